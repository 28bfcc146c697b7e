import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { PromptsUnderWay } from '../../src/routing/learned/prompts-under-way.ts'
import type { Dispatch } from '../../src/routing/policy.ts'

/** Keys of a prompt's blocks: each names all before it. */
function keysOf(path: readonly number[]): Uint32Array {
  let name = 7
  return Uint32Array.from(
    path.flatMap((block) => {
      name = (Math.imul(name, 31) + block + 1) >>> 0
      return [name, block]
    }),
  )
}

function dispatchOf(keys: Uint32Array | null): Dispatch {
  return {
    ...{
      serial: 1,
      promptTokens: 0,
      uncachedTokens: 0,
      prefillTokensAhead: 0,
      requestsAhead: 0,
      stream: true,
      atMs: 0,
    },
    ...{ keys, adapter: null, session: null, maxTokens: null },
  }
}

function common(one: readonly number[], other: readonly number[]): number {
  const at = one.findIndex((block, index) => block !== other[index])
  return at === -1 ? one.length : at
}

test('a prompt shares the longest beginning that it has in common with one under way', () => {
  const path = fc.array(fc.integer({ min: 0, max: 1 }), { maxLength: 12 })
  fc.assert(
    fc.property(fc.array(path, { maxLength: 8 }), path, (others, prompt) => {
      const underWay = new PromptsUnderWay()
      for (const other of others) underWay.began(dispatchOf(keysOf(other)))
      const longest = Math.max(0, ...others.map((other) => common(prompt, other)))
      assert.equal(underWay.commonBlocks(keysOf(prompt)), longest)
    }),
  )
})

test('what several hold is there once, and whoever ends takes its part along', () => {
  const underWay = new PromptsUnderWay()
  assert.equal(underWay.distinctShare, 1)
  const [first, second, third] = [[1, 2, 3, 4], [1, 2, 3, 5], [9]].map((path) => dispatchOf(keysOf(path)))
  assert.ok(first !== undefined && second !== undefined && third !== undefined)
  for (const dispatch of [first, second, third]) underWay.began(dispatch)
  assert.equal(underWay.distinctShare, 1 - 3 / 9)
  underWay.ended(second)
  assert.equal(underWay.distinctShare, 1)
  underWay.ended(second)
  for (const dispatch of [first, third]) underWay.ended(dispatch)
  assert.equal(underWay.distinctShare, 1)
  assert.equal(underWay.commonBlocks(keysOf([1, 2])), 0)
})

test('requests of other replicas, whose prompts are not known, change nothing', () => {
  const underWay = new PromptsUnderWay()
  const unknown = dispatchOf(null)
  underWay.began(unknown)
  assert.equal(underWay.commonBlocks(keysOf([1])), 0)
  assert.equal(underWay.distinctShare, 1)
  underWay.ended(unknown)
})
