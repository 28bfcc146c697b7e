import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { chatWorkload, chatWorkloadSizes, messagesOf } from '../../src/simulator/workload.ts'

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
})

test('conversations by their sizes are of the same kind as those by their texts', () => {
  const options = { conversations: 200, turns: 3, userWords: [7, 9], outputTokens: [2, 4] } as const
  const [texts, sizes] = [chatWorkload(options), chatWorkloadSizes(options)]
  assert.equal(sizes.length, 200)
  for (const { system, turns } of sizes) {
    assert.equal(system, texts[0]?.system.split(' ').length)
    assert.equal(turns.length, 3)
    assert(turns.every(({ user, outputTokens }) => user >= 7 && user <= 9 && outputTokens >= 2 && outputTokens <= 4))
  }
  assert.deepEqual(
    sizes.map(({ startMs }) => startMs),
    texts.map(({ startMs }) => startMs),
  )
})
