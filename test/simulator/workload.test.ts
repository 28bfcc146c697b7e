import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Engine } from '../../src/simulator/engine.ts'
import { chatWorkload, chatWorkloadTokens, messagesOf, promptOf } from '../../src/simulator/workload.ts'

test('equal seeds give equal workloads; more conversations leave the first ones as they were', () => {
  fc.assert(
    fc.property(fc.integer(), fc.integer({ min: 1, max: 6 }), (seed, conversations) => {
      const some = chatWorkload({ seed, conversations })
      assert.deepEqual(chatWorkload({ seed, conversations }), some)
      assert.deepEqual(chatWorkload({ seed, conversations: conversations + 2 }).slice(0, conversations), some)
    }),
    { numRuns: 20 },
  )
  assert.notDeepEqual(chatWorkload({ seed: 1 }), chatWorkload({ seed: 2 }))
})

test('conversations share system prompts, begin one after another, and ask what was configured', () => {
  const options = { conversations: 40, systemPrompts: 3, turns: 2, userWords: [4, 6], outputTokens: [7, 9] } as const
  const load = chatWorkload(options)
  assert.equal(new Set(load.map(({ system }) => system)).size, 3)
  assert.equal(new Set(load.flatMap(({ turns }) => turns.map(({ user }) => user))).size, 80)
  assert.deepEqual(
    load.map(({ startMs }) => startMs),
    load.map(({ startMs }) => startMs).sort((a, b) => a - b),
  )
  for (const turn of load.flatMap(({ turns }) => turns)) {
    assert([4, 5, 6].includes(turn.user.split(' ').length))
    assert([7, 8, 9].includes(turn.outputTokens))
  }
})

test('each turn’s request begins with the one before it and its answer', () => {
  const [conversation] = chatWorkload()
  assert(conversation !== undefined)
  const first = messagesOf(conversation, 0, [])
  assert.deepEqual(
    first.map(({ role }) => role),
    ['system', 'user'],
  )
  const second = messagesOf(conversation, 1, ['the answer'])
  assert.deepEqual(second.slice(0, 3), [...first, { role: 'assistant', content: 'the answer' }])
  const [tokens] = chatWorkloadTokens()
  assert(tokens !== undefined)
  const short = promptOf(tokens, 0, [])
  const long = promptOf(tokens, 1, [Uint32Array.of(1, 2)])
  assert.deepEqual(long.slice(0, short.length + 2), Uint32Array.of(...short, 1, 2))
})

test('in virtual time an engine with room for all serves later turns from its cache', () => {
  const results: number[] = []
  const engine = new Engine({
    onFinished: ({ cachedTokens, promptTokens }) => results.push(cachedTokens / promptTokens),
  })
  const load = chatWorkloadTokens({ conversations: 3, turns: 3 })
  for (let turn = 0; turn < 3; turn++) {
    for (const conversation of load) {
      engine.add(
        { id: `${conversation.id}/${turn}`, tokens: promptOf(conversation, turn, []), outputTokens: 2 },
        engine.nowMs,
      )
      for (let at = engine.nextEventMs(); at !== null; at = engine.nextEventMs()) engine.advanceTo(at)
    }
  }
  assert.equal(results.length, 9)
  assert(Math.min(...results.slice(3)) > 0.6)
})
