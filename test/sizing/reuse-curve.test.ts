import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { blockIds } from '../../src/replay/traces/trace.ts'
import { readTrace } from '../../src/replay/traces/read.ts'
import { inOrderOfArrival } from '../../src/sizing/arrivals.ts'
import { ReuseCurve } from '../../src/sizing/reuse-curve.ts'

function curveOf(requests: readonly (readonly number[])[]): ReuseCurve {
  return ReuseCurve.of(requests, (row) => row)
}

/** The slow way: one cache of one size, used last block first. */
function hitsOfCache(requests: readonly (readonly number[])[], capacityBlocks: number): number {
  let cache: number[] = []
  let hits = 0
  for (const row of requests) {
    for (const id of row) {
      if (!cache.includes(id)) break
      hits++
    }
    for (const id of [...row].reverse()) cache = [id, ...cache.filter((other) => other !== id)]
    cache = cache.slice(0, capacityBlocks)
  }
  return hits
}

/** Prompts that are paths in a tree: an id says all that is before it. */
const paths = fc
  .array(fc.array(fc.integer({ min: 0, max: 2 }), { maxLength: 6 }), { maxLength: 25 })
  .map((rows) =>
    rows.map((row) => row.map((_, end) => row.slice(0, end + 1).reduce((id, step) => id * 4 + step + 1, 0))),
  )

test('the curve equals a cache of every size', () => {
  fc.assert(
    fc.property(paths, (requests) => {
      const curve = curveOf(requests)
      for (let capacity = 0; capacity <= curve.distinctBlocks + 1; capacity++)
        assert.equal(
          Math.round(curve.hitRatio(capacity) * curve.blocks),
          hitsOfCache(requests, capacity),
          String(capacity),
        )
    }),
  )
})

test('ids that do not name what is before them are told apart by it', () => {
  const rows = fc.array(fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 6 }), { maxLength: 20 })
  fc.assert(
    fc.property(rows, (requests) => {
      const named = new Map<string, number>()
      const chained = requests.map((row) =>
        row.map((_, end) => {
          const path = row.slice(0, end + 1).join()
          if (!named.has(path)) named.set(path, named.size)
          return named.get(path) ?? -1
        }),
      )
      const curve = curveOf(requests)
      assert.equal(curve.distinctBlocks, named.size)
      for (let capacity = 0; capacity <= curve.distinctBlocks; capacity++)
        assert.equal(Math.round(curve.hitRatio(capacity) * curve.blocks), hitsOfCache(chained, capacity))
    }),
  )
})

test('ids may be as large as they like', () => {
  const near = curveOf([
    [1, 2, 3],
    [1, 2],
    [1, 2, 3],
  ])
  const far = curveOf([
    [5e9, 4e9, 3e9],
    [5e9, 4e9],
    [5e9, 4e9, 3e9],
  ])
  for (let capacity = 0; capacity <= 3; capacity++) assert.equal(far.hitRatio(capacity), near.hitRatio(capacity))
})

test('a workload without requests finds nothing', () => {
  const curve = curveOf([])
  assert.deepEqual([curve.hitRatio(10), curve.idealHitRatio, curve.capacityFor(0.5)], [0, 0, null])
})

test('a larger cache never finds less, and the size for a wanted share is the smallest', () => {
  fc.assert(
    fc.property(paths, fc.double({ min: 0, max: 1, noNaN: true }), (requests, wanted) => {
      const curve = curveOf(requests)
      for (let capacity = 1; capacity <= curve.distinctBlocks; capacity++)
        assert.ok(curve.hitRatio(capacity) >= curve.hitRatio(capacity - 1))
      const capacity = curve.capacityFor(wanted)
      if (capacity === null) assert.ok(wanted > curve.idealHitRatio)
      else {
        assert.ok(curve.hitRatio(capacity) >= wanted)
        assert.ok(capacity === 0 || curve.hitRatio(capacity - 1) < wanted)
      }
    }),
  )
})

// Of the whole trace of 12,031 requests the ratios are 0.045, 0.065, 0.212, 0.326, 0.355 and 0.364, and come out so.
test('the conversation trace of Mooncake gives the hits that a cache of each size counts', async () => {
  const file = fileURLToPath(new URL('../fixtures/traces/mooncake_conversation.jsonl', import.meta.url))
  const { sessions } = await readTrace(file)
  const curve = ReuseCurve.of(inOrderOfArrival(sessions, 1), ({ blocks }) => blockIds(blocks))
  assert.deepEqual([curve.requests, curve.blocks, curve.distinctBlocks], [3000, 80_619, 55_287])
  // Counted by a cache of each size, written apart from this code.
  const known = [
    [1_000, 3_273],
    [3_000, 4_953],
    [10_000, 16_863],
    [30_000, 24_376],
    [50_000, 25_332],
    [100_000, 25_332],
  ] as const
  for (const [blocks, hits] of known)
    assert.equal(Math.round(curve.hitRatio(blocks) * curve.blocks), hits, String(blocks))
})
