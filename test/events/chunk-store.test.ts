import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { ChunkStore, type LastingStore } from '../../src/events/chunk-store.ts'
import { Ingest } from '../../src/events/ingest.ts'
import type { ForgetLimit } from '../../src/events/forgetting.ts'
import { blockKeys, createKeyMaker, type KeyMaker } from '../../src/kv/keys.ts'
import { FlatMap } from '../../src/map/flat-map.ts'
import { heldBlocks } from '../../src/routing/held-blocks.ts'
import type { StoreRef } from '../../src/workers/worker.ts'
import { emptyMatch, slotOf } from '../support/kv-tree.ts'
import { restored, snapshotOf } from '../support/map-snapshots.ts'
import { encodeMsgpack, type Encodable } from '../support/msgpack.ts'
import { countingCounters } from './counting.ts'

let keys: KeyMaker
before(async () => {
  keys = await createKeyMaker(Buffer.from('a secret'))
})

const blockSize = 2
const prompt = (length: number, first = 1): number[] => Array.from({ length }, (_, i) => first + i)

/** Workers 0 and 1 with blocks of 2 tokens; stores get the slots behind them. */
function rig({ limit = { afterMs: 1000, tokens: Infinity } }: { limit?: ForgetLimit } = {}) {
  const map = new FlatMap({ budgetBytes: 1024 * 1024, maxWorkers: 8 })
  const now = { ms: 0 }
  const stores = new Map<string, ChunkStore>()
  const shared = new Map<ChunkStore, StoreRef>()
  const chunks: (StoreRef | null)[] = [null, null]
  const store = (worker: number, part: 'chunks' | 'shared'): ChunkStore => {
    const known = stores.get(`${worker} ${part}`)
    if (known !== undefined) return known
    const slot = slotOf(2 + stores.size)
    const made = new ChunkStore({
      slot,
      map,
      kin: () => [slotOf(worker), ...[...shared.values()].map((ref) => slotOf(ref.slot))].filter((kin) => kin !== slot),
      forget: [undefined, limit, limit, limit],
      clock: () => now.ms,
      onStored: () => [...shared.keys()].forEach((other) => other.adopt()),
      onBlockSize: (tokens) => {
        const ref = tokens === null ? null : { slot, blockSize: tokens }
        if (part === 'chunks') chunks[worker] = ref
        else if (ref === null) shared.delete(made)
        else shared.set(made, ref)
      },
    })
    stores.set(`${worker} ${part}`, made)
    return made
  }
  const counted = countingCounters()
  const ingests = [0, 1].map((worker) => {
    map.addWorker(slotOf(worker), { countsStores: true, blockSize })
    return new Ingest({
      worker: slotOf(worker),
      map,
      keys,
      model: 'm',
      blockSize,
      countsStores: true,
      stores: (part) => store(worker, part),
      counters: counted.counters,
      onBlockSize: () => undefined,
    })
  })
  let sequence = 0
  const send = (worker: number, ...events: Encodable[]): void =>
    ingests[worker]?.apply(sequence++, 0, encodeMsgpack([1, events, 0]))
  const heldOf = (tokens: readonly number[], worker = 0): [gpu: number, host: number, disk: number, shared: number] => {
    const out = emptyMatch(8)
    const sizes = new Set([blockSize, ...chunks.flatMap((ref) => ref?.blockSize ?? [])])
    for (const ref of shared.values()) sizes.add(ref.blockSize)
    const queries = [...sizes].map((size) => {
      const scope = keys.scope({ model: 'm', blockSize: size, adapter: null })
      return { blockSize: size, keys: blockKeys(Uint32Array.from(tokens), scope) }
    })
    map.match(queries, out)
    const held = { gpu: 0, host: 0, disk: 0, shared: 0, toldRun: 0 }
    const ofWorker = { slot: worker, blockSize, chunks: chunks[worker] ?? null, lookedUp: null }
    heldBlocks(ofWorker, [...shared.values()], out, held)
    return [held.gpu, held.host, held.disk, held.shared]
  }
  return { map, now, send, heldOf, store, counted, ingests }
}

/** Hashes of a chain of blocks named after where it begins. */
const stored = (tokens: readonly number[], size: number, medium: string, more: object = {}): Encodable => ({
  type: 'BlockStored',
  block_hashes: Array.from({ length: tokens.length / size }, (_, i) => size * 1000 + (tokens[0] ?? 0) + i * size),
  parent_block_hash: null,
  token_ids: [...tokens],
  block_size: size,
  medium,
  ...more,
})
const removed = (hashes: readonly number[], medium: string): Encodable => ({
  type: 'BlockRemoved',
  block_hashes: [...hashes],
  medium,
})

test('chunks count where they reach beyond the worker’s own run, in whole chunks of the prompt', () => {
  const { send, heldOf } = rig()
  send(0, stored(prompt(6), 2, 'GPU'))
  send(0, stored(prompt(16), 8, 'cpu'))
  assert.deepEqual(heldOf(prompt(16)), [3, 5, 0, 0])
  assert.deepEqual(heldOf(prompt(15)), [3, 1, 0, 0], 'half a chunk is none')
  assert.deepEqual(heldOf([...prompt(12), 99, 98, 97, 96]), [3, 1, 0, 0], 'a chunk that differs at its end is none')
  assert.deepEqual(heldOf(prompt(16), 1), [0, 0, 0, 0])
})

test('chunks that were removed, or dropped with the cache, count no more', () => {
  const { send, heldOf, counted } = rig()
  send(0, stored(prompt(16), 8, 'CPU'))
  send(0, removed([8009], 'CPU'))
  assert.deepEqual(heldOf(prompt(16)), [0, 4, 0, 0])
  send(0, removed([4711], 'CPU'))
  assert.deepEqual(counted.skipped(), { unknown_removal: 1 })
  send(0, { type: 'AllBlocksCleared' })
  assert.deepEqual(heldOf(prompt(16)), [0, 0, 0, 0])
})

test('a removal from a tier with blocks and chunks is unknown only if neither has it', () => {
  const { send, heldOf, counted } = rig()
  send(0, stored(prompt(4), 2, 'GPU'), stored(prompt(4), 2, 'CPU'), stored(prompt(8), 8, 'cpu'))
  send(0, removed([2001, 8001], 'CPU'))
  assert.deepEqual(counted.skipped(), {})
  assert.deepEqual(heldOf(prompt(8)), [2, 0, 0, 0])
  send(0, removed([2001, 2003], 'CPU'))
  assert.deepEqual(counted.skipped(), { unknown_removal: 1 })
})

test('the shared store gives every worker what follows its own run', () => {
  const { send, heldOf } = rig()
  send(0, stored(prompt(4), 2, 'GPU'))
  send(1, stored(prompt(16), 8, 'EXTERNAL'))
  assert.deepEqual(heldOf(prompt(16), 0), [2, 0, 0, 6])
  assert.deepEqual(heldOf(prompt(16), 1), [0, 0, 0, 8])
})

test('the shared store outlives a worker’s clear, unless removals may have been missed with it', () => {
  const { send, heldOf, ingests } = rig()
  send(1, stored(prompt(16), 8, 'EXTERNAL'))
  send(1, { type: 'AllBlocksCleared' })
  ingests[1]?.clear('distrust')
  assert.deepEqual(heldOf(prompt(16)), [0, 0, 0, 8])
  send(1, stored(prompt(8, 50), 8, 'EXTERNAL'), removed([8050], 'EXTERNAL'))
  ingests[1]?.clear('distrust')
  assert.deepEqual(heldOf(prompt(16)), [0, 0, 0, 0])
})

test('a chunk whose parent another worker stored is found, also where it is told first', () => {
  for (const first of [0, 1]) {
    const { send, heldOf } = rig()
    const head = stored(prompt(8), 8, 'EXTERNAL')
    const tail = stored(prompt(8, 9), 8, 'EXTERNAL', { parent_block_hash: 8001 })
    if (first === 0) send(0, head)
    send(1, tail)
    if (first === 1) send(0, head)
    assert.deepEqual(heldOf(prompt(16)), [0, 0, 0, 8], `worker ${first} first`)
    send(0, removed([8001], 'EXTERNAL'))
    assert.deepEqual(heldOf(prompt(16)), [0, 0, 0, 0])
  }
})

test('shared blocks named by hash alone are those that the worker described on its GPU', () => {
  const { send, heldOf } = rig()
  send(0, stored(prompt(8), 2, 'GPU'))
  send(0, { ...(stored(prompt(8), 2, 'EXTERNAL') as object), token_ids: [], block_size: 0 })
  assert.deepEqual(heldOf(prompt(8), 1), [0, 0, 0, 4])
})

test('chunks of a store that tells no removals are forgotten after a time, unless stored again', () => {
  const { send, heldOf, store, now } = rig()
  send(0, stored(prompt(8), 8, 'cpu'), stored(prompt(8, 50), 8, 'cpu'))
  now.ms = 600
  send(0, stored(prompt(8), 8, 'cpu'))
  now.ms = 1200
  store(0, 'chunks').tend()
  assert.deepEqual(heldOf(prompt(8)), [0, 4, 0, 0])
  assert.deepEqual(heldOf(prompt(8, 50)), [0, 0, 0, 0])
  now.ms = 1600
  store(0, 'chunks').tend()
  assert.deepEqual(heldOf(prompt(8)), [0, 0, 0, 0])
})

test('chunks of a store that tells its removals stay until they are removed', () => {
  const { send, heldOf, store, now } = rig()
  send(0, stored(prompt(8), 8, 'cpu'), stored(prompt(8, 50), 8, 'cpu'), removed([8050], 'cpu'))
  now.ms = 100_000
  store(0, 'chunks').tend()
  assert.deepEqual(heldOf(prompt(8)), [0, 4, 0, 0])
})

test('beyond its capacity the chunks stored longest ago are forgotten', () => {
  const { send, heldOf, store } = rig({ limit: { afterMs: 0, tokens: 16 } })
  for (const first of [1, 50, 100]) send(0, stored(prompt(8, first), 8, 'cpu'))
  store(0, 'chunks').tend()
  assert.deepEqual(
    [1, 50, 100].map((first) => heldOf(prompt(8, first))[1]),
    [0, 4, 4],
  )
})

test('a short chunk that comes first does not keep whole ones out', () => {
  const { send, heldOf, counted } = rig()
  send(0, stored(prompt(6, 50), 6, 'cpu'), stored(prompt(8), 8, 'cpu'), stored(prompt(6, 90), 6, 'cpu'))
  assert.deepEqual(heldOf(prompt(8)), [0, 4, 0, 0])
  assert.deepEqual(heldOf(prompt(6, 50)), [0, 0, 0, 0])
  assert.deepEqual(counted.skipped(), { chunk_size: 1 })
})

/** A store whose map is given, at slot 1 beside the worker at slot 0. */
function storeOn(map: FlatMap, limit: ForgetLimit): ChunkStore {
  return new ChunkStore({
    slot: slotOf(1),
    map,
    kin: () => [slotOf(0)],
    forget: [undefined, limit],
    clock: () => 0,
    onBlockSize: () => undefined,
  })
}

test('a store that tells its removals is kept by a snapshot and goes on from it; one whose blocks go by time is not', async () => {
  const limit = { afterMs: 1000, tokens: 1_000_000 }
  const map = new FlatMap({ budgetBytes: 512 * 1024, maxWorkers: 8 })
  const store = storeOn(map, limit)
  const chunkKeys = Uint32Array.from({ length: 20 }, (_, i) => i + 1)
  const hold = (from: number, to: number) =>
    ({ kind: 'hold', tier: 1, keys: chunkKeys.subarray(2 * from, 2 * to), parent: null }) as const
  const remove = (from: number, to: number) =>
    ({ kind: 'remove', tier: 1, group: 0, engineHashes: chunkKeys.subarray(2 * from, 2 * to) }) as const
  assert.equal(store.lasting, null, 'nothing was stored')
  store.open(4)
  store.apply([hold(0, 10)])
  assert.equal(store.lasting, null, 'its blocks are forgotten after a time')
  store.apply([remove(8, 10)])
  assert.deepEqual(store.lasting, { toldTiers: [1] })

  const name = { worker: 'w', part: 'chunks', engine: 'vllm', position: null, partial: false } as const
  const kept = await snapshotOf(map, { factsOf: () => ({ ...name, state: store.lasting }) })
  const target = new FlatMap({ budgetBytes: 512 * 1024, maxWorkers: 8 })
  const other = storeOn(target, limit)
  const { parts } = await restored(target, kept, {
    slotOf: ({ blockSize }) => {
      other.open(blockSize)
      return other.slot
    },
  })
  for (const part of parts) {
    assert.ok(part.commit({ epoch: other.epoch, lastSequence: -1, isConcealed: false }))
    other.resume(part.part.state as LastingStore)
  }
  assert.equal(target.workerBlocks(slotOf(1)).host, 8)
  other.apply([remove(6, 8)])
  assert.equal(target.workerBlocks(slotOf(1)).host, 6)
  assert.deepEqual(other.lasting, { toldTiers: [1] })
})
