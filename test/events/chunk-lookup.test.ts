import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ChunkLookup, type ChunkLookupOptions, type LookupLimits } from '../../src/events/chunk-lookup.ts'
import { ChunkStore } from '../../src/events/chunk-store.ts'
import { FlatMap } from '../../src/map/flat-map.ts'
import { emptyMatch, slotOf } from '../support/kv-tree.ts'
import { readLayout } from '../../src/workers/lmcache.ts'

type Answer = Awaited<ReturnType<ChunkLookupOptions['ask']>>

function rig(limits: Partial<LookupLimits> = {}) {
  const map = new FlatMap({ budgetBytes: 1024 * 1024, maxWorkers: 4 })
  const now = { ms: 0 }
  const counts: Record<string, number> = {}
  const asked: { tokens: Uint32Array; answer: (given: Answer) => Promise<void> }[] = []
  const limit = { afterMs: 1000, tokens: Infinity }
  const store = new ChunkStore({
    slot: slotOf(1),
    map,
    kin: () => [],
    forget: [undefined, limit, limit, limit],
    clock: () => now.ms,
    onBlockSize: () => undefined,
  })
  const lookup = new ChunkLookup({
    chunkTokens: 4,
    limits: { concurrency: 2, maxTokens: 1000, ttlMs: 1000, ...limits },
    ask: (tokens) =>
      new Promise((resolve) => {
        const answer = async (given: Answer): Promise<void> => {
          resolve(given)
          await settled()
        }
        asked.push({ tokens, answer })
      }),
    // A chunk's key is its last token here.
    keysOf: (tokens) => Uint32Array.from({ length: tokens.length / 2 }, (_, i) => tokens[4 * (i >> 1) + 3] ?? 0),
    storeOf: (instance) => (instance === 'inst-0' ? store : null),
    clock: () => now.ms,
    later: (run) => run(),
    count: (result) => (counts[result] = (counts[result] ?? 0) + 1),
  })
  const heldOf = (...keys: number[]): number => {
    const out = emptyMatch(4)
    map.match([{ blockSize: 4, keys: Uint32Array.from(keys.flatMap((key) => [key, key])) }], out)
    return out.host[1] ?? 0
  }
  return { lookup, store, asked, now, counts, heldOf }
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
const prompt = (first: number, length = 9): Uint32Array => Uint32Array.from({ length }, (_, i) => first + i)

test('who holds the whole chunks of a prompt is asked once, and believed for a time', async () => {
  const { lookup, store, asked, now, counts, heldOf } = rig()
  lookup.routed(prompt(10))
  assert.deepEqual([...(asked[0]?.tokens ?? [])], [...prompt(10, 8)])
  await asked[0]?.answer([
    { instance: 'inst-0', tier: 'host', tokens: 8 },
    { instance: 'stranger', tier: 'host', tokens: 8 },
  ])
  assert.equal(heldOf(13, 17), 2)
  lookup.routed(prompt(10))
  await settled()
  assert.equal(asked.length, 1, 'not again so soon')
  now.ms = 1000
  store.tend()
  assert.equal(heldOf(13, 17), 0)
  lookup.routed(prompt(10))
  assert.equal(asked.length, 2)
  assert.deepEqual(counts, { answered: 1 })
})

test('a part of a chunk is none, and short prompts are not asked about', async () => {
  const { lookup, asked, heldOf } = rig()
  lookup.routed(prompt(10, 3))
  assert.equal(asked.length, 0)
  lookup.routed(prompt(10))
  await asked[0]?.answer([{ instance: 'inst-0', tier: 'host', tokens: 7 }])
  assert.equal(heldOf(13, 17), 1)
})

test('beyond the lookups under way prompts are let go, and long ones are cut', () => {
  const { lookup, asked, counts } = rig({ maxTokens: 6 })
  for (const first of [10, 30, 50]) lookup.routed(prompt(first))
  assert.deepEqual(
    asked.map(({ tokens }) => tokens.length),
    [4, 4],
  )
  assert.deepEqual(counts, { left_out: 1 })
})

test('a directory that fails is left alone for a growing time', async () => {
  const { lookup, asked, now, counts } = rig()
  for (const first of [10, 30, 50]) {
    lookup.routed(prompt(first))
    await asked.at(-1)?.answer(null)
  }
  lookup.routed(prompt(70))
  assert.deepEqual([asked.length, counts], [3, { failed: 3, left_out: 1 }])
  now.ms = 1000
  lookup.routed(prompt(70))
  await asked.at(-1)?.answer(null)
  now.ms = 2500
  lookup.routed(prompt(90))
  assert.equal(asked.length, 4, 'two seconds now')
})

test('the layout of LMCache’s controller: own backends by name, any other is the shared store', () => {
  const text = (layout: object): string => JSON.stringify({ event_id: 'e1', layout_info: layout })
  assert.deepEqual(readLayout(text({ a: ['LocalCPUBackend', 256], b: ['LocalDiskBackend', 512] })), [
    { instance: 'a', tier: 'host', tokens: 256 },
    { instance: 'b', tier: 'disk', tokens: 512 },
  ])
  assert.deepEqual(readLayout(text({ a: ['RemoteBackend', 256] })), [{ instance: 'a', tier: 'shared', tokens: 256 }])
  assert.deepEqual(readLayout(text({ a: ['LocalCPUBackend', -1], b: 5, c: ['LocalCPUBackend', 'x'] })), [])
  for (const wrong of ['', '[]', '{}', 'null', '{"layout_info":[]}']) assert.equal(readLayout(wrong), null)
})
