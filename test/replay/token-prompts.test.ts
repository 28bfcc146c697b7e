import assert from 'node:assert/strict'
import { test } from 'node:test'
import { commonTokens, TokenPrompts } from '../../src/replay/real-time/token-prompts.ts'
import type { TraceRequest, TraceSession } from '../../src/replay/traces/trace.ts'

type Turn = readonly [runs: readonly number[], promptTokens: number, outputTokens: number]

function session(turns: readonly Turn[], commonBlocks = 0): TraceSession {
  const requests = turns.map(([runs, promptTokens, outputTokens]): TraceRequest => ({
    ...{ thinkMs: 0, recordedMs: 0, promptTokens, outputTokens, blocks: Uint32Array.from(runs) },
  }))
  return { id: 's', startMs: null, commonBlocks, requests }
}

const scope = { blockTokens: 16 }
const list = (tokens: Uint32Array, first: number, end: number): number[] => [...tokens.subarray(first, end)]

test('equal blocks hold equal tokens, and what no block covers is the request’s own', () => {
  const one = new TokenPrompts(session([[[7, 3], 50, 4]]), 0, scope).of(0, 1)
  const other = new TokenPrompts(session([[[7, 2, 90, 1], 50, 4]]), 0, scope).of(0, 2)
  assert.equal(one.length, 50)
  assert.deepEqual(list(one, 0, 32), list(other, 0, 32))
  assert.notDeepEqual(list(one, 32, 48), list(other, 32, 48))
  assert.notDeepEqual(list(one, 48, 50), list(other, 48, 50))
  assert.deepEqual(new TokenPrompts(session([[[7, 3], 50, 4]]), 0, scope).of(0, 1), one)
})

test('the next prompt goes on from what was generated, as far as it has blocks there', () => {
  const prompts = new TokenPrompts(
    session([
      [[0, 2], 40, 30],
      [[0, 4], 100, 5],
      [[0, 6], 100, 5],
    ]),
    0,
    scope,
  )
  const first = prompts.of(0, 1)
  assert.equal(prompts.goesOn, true)
  const generated = Array.from({ length: 30 }, (_, i) => 5_000 + i)
  prompts.answered(generated)
  const second = prompts.of(1, 2)
  assert.deepEqual(list(second, 0, 40), [...first])
  assert.deepEqual(list(second, 40, 64), generated.slice(0, 24))
  // Beyond its four blocks are tokens of its own, though the answer had more.
  assert.ok(!list(second, 64, 70).some((token) => token >= 5_000))
  const third = prompts.of(2, 3)
  assert.deepEqual(list(third, 0, 96), list(second, 0, 96))
})

test('an answer that no further prompt holds is not asked for', () => {
  const branching = session([
    [[0, 2], 40, 30],
    [[0, 1, 50, 2], 48, 5],
  ])
  const prompts = new TokenPrompts(branching, 0, scope)
  const first = prompts.of(0, 1)
  assert.equal(prompts.goesOn, false)
  const second = prompts.of(1, 2)
  assert.equal(prompts.goesOn, false)
  assert.deepEqual(list(second, 0, 16), list(first, 0, 16))
  assert.notDeepEqual(list(second, 16, 32), list(first, 16, 32))
})

test('a second user of a session shares its preamble and nothing else', () => {
  const shared = session([[[0, 4], 64, 1]], 2)
  const [one, two] = [0, 1].map((copy) => new TokenPrompts(shared, copy, scope).of(0, copy))
  assert.ok(one !== undefined && two !== undefined)
  assert.deepEqual(list(one, 0, 32), list(two, 0, 32))
  assert.notDeepEqual(list(one, 32, 48), list(two, 32, 48))
})

test('every token is one that small vocabularies have, too', () => {
  const { first, count } = commonTokens
  const tokens = new TokenPrompts(session([[[0, 300], 6_000, 1]]), 0, scope).of(0, 9)
  assert.ok(tokens.every((token) => token >= first && token < first + count && token < 4_096))
})
