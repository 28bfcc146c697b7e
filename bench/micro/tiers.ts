/**
 * What tiers cost: an event in each form that tells of blocks outside the GPU, and a prompt's keys, match and credit with stores beside
 * the workers. Everything is measured in turn within one round, so that a busy moment of the machine meets all of it.
 */
import assert from 'node:assert/strict'
import { performance } from 'node:perf_hooks'
import { ChunkStore } from '../../src/events/chunk-store.ts'
import type { DecodedEvent, DecodedStore } from '../../src/events/decode.ts'
import { Ingest } from '../../src/events/ingest.ts'
import type { WorkerSlot } from '../../src/kv/batch.ts'
import { blockKeys, createKeyMaker, type KeyMaker } from '../../src/kv/keys.ts'
import { FlatMap } from '../../src/map/flat-map.ts'
import type { PrefixMatch } from '../../src/map/map.ts'
import { heldBlocks } from '../../src/routing/held-blocks.ts'
import { TierCredit } from '../../src/routing/tier-credit.ts'
import type { StoreRef } from '../../src/workers/worker.ts'
import { median, printResults, type BenchResult } from '../result.ts'

const blockSize = 16
const chunkTokens = 256
const workers = 8
const promptTokens = 32_768
const rounds = 9

interface Part {
  readonly name: string
  readonly unit: string
  /** Does it once; answers how many of the unit's things were done. */
  readonly run: (round: number) => number
}

const undefinedly = (): undefined => undefined
const counters = {
  event: undefinedly,
  blocks: undefinedly,
  skipped: undefinedly,
  gap: undefinedly,
  restart: undefinedly,
  disconnect: undefinedly,
}

export async function run(): Promise<BenchResult[]> {
  const keys = await createKeyMaker(Buffer.from('bench'))
  const parts = [...eventParts(keys), ...matchParts(keys)]
  const samples = parts.map((): number[] => [])
  for (let round = 0; round < rounds + 2; round++) {
    for (const [at, { run: work }] of parts.entries()) {
      const startedMs = performance.now()
      const done = work(round)
      if (round >= 2) samples[at]?.push(((performance.now() - startedMs) * 1000) / done)
    }
  }
  return parts.map(({ name, unit }, at) => {
    const own = samples[at] ?? []
    return { name: `tiers: ${name}`, unit, value: median(own), samples: own }
  })
}

/** One event of 256 tokens in each form; a round sends 2,000 of them, no two alike. */
function eventParts(keys: KeyMaker): Part[] {
  const map = new FlatMap({ budgetBytes: 512 * 1024 * 1024, maxWorkers: 16 })
  const worker = 0 as WorkerSlot
  map.addWorker(worker, { countsStores: true, blockSize })
  const store = new ChunkStore({
    slot: 1 as WorkerSlot,
    map,
    kin: () => [worker],
    forget: [undefined, ...[1, 2, 3].map(() => ({ afterMs: 600_000, tokens: Infinity }))],
    clock: () => performance.now(),
    onBlockSize: undefinedly,
  })
  const ingest = new Ingest({
    worker,
    map,
    keys,
    model: 'm',
    blockSize,
    countsStores: true,
    stores: () => store,
    counters,
    onBlockSize: () => assert.fail(),
  })
  const events = 2_000
  let sequence = 0
  const send = (events: readonly DecodedEvent[]): number => {
    for (const event of events) ingest.applyEvents(sequence++, 0, [event])
    return events.length
  }
  const made = (round: number, medium: string, size: number, describes = true): DecodedStore[] =>
    Array.from({ length: events }, (_, i) => storedEvent(round * events + i, medium, size, describes))
  const forms: [string, (round: number) => DecodedEvent[]][] = [
    ['GPU, described', (round) => made(round, 'GPU', blockSize)],
    ['host, described', (round) => made(round, 'CPU', blockSize)],
    ['GPU, removed', (round) => made(round, 'GPU', blockSize).map(removalOf)],
    ['host, by hash alone', (round) => made(round, 'CPU', blockSize, false)],
    ['host, a chunk', (round) => made(round, 'cpu', chunkTokens)],
  ]
  // What is made for a round is made before it is measured.
  const prepared = forms.map(([, make]) => Array.from({ length: rounds + 2 }, (_, round) => make(round)))
  return forms.map(([name], at) => ({
    name: `event of 256 tokens, ${name}`,
    unit: 'µs an event',
    run: (round) => send(prepared[at]?.[round] ?? []),
  }))
}

function storedEvent(number: number, medium: string, size: number, describes: boolean): DecodedStore {
  const blocks = chunkTokens / size
  const hashes = Uint32Array.from({ length: 2 * blocks }, (_, i) => Math.imul(number * 64 + i + size, 0x9e3779b1))
  return {
    kind: 'store',
    hashes,
    parent: null,
    tokens: describes ? Uint32Array.from({ length: chunkTokens }, (_, i) => number * 7 + i) : new Uint32Array(0),
    pairs: false,
    blockSize: describes ? size : 0,
    loraId: null,
    loraName: null,
    medium,
    cacheSalt: null,
    extraKeys: null,
    group: 0,
    specKind: null,
    slidingWindow: null,
    locality: null,
    ownership: null,
    sessionId: null,
  }
}

function removalOf({ hashes, medium, group, locality, ownership }: DecodedStore): DecodedEvent {
  return { kind: 'remove', hashes, medium, group, locality, ownership }
}

/** Keys, match and credit of one prompt of 32,768 tokens of which each of 8 workers holds a part. */
function matchParts(keys: KeyMaker): Part[] {
  const scope = keys.scope({ model: 'm', blockSize, adapter: null })
  const chunkScope = keys.scope({ model: 'm', blockSize: chunkTokens, adapter: null })
  const tokens = Uint32Array.from({ length: promptTokens }, (_, i) => 100 + i)
  const prompts = 200
  const credit = new TierCredit()
  const held = { gpu: 0, host: 0, disk: 0, shared: 0, toldRun: 0 }
  return (['GPU only', 'GPU and host', 'with chunks and a shared store'] as const).map((name) => {
    const map = new FlatMap({ budgetBytes: 64 * 1024 * 1024, maxWorkers: 32 })
    const own = blockKeys(tokens, scope)
    const chunks: (StoreRef | null)[] = []
    for (let slot = 0; slot < workers; slot++) {
      map.addWorker(slot as WorkerSlot, { countsStores: true, blockSize })
      const gpuWords = 2 * (slot + 1) * 128
      map.apply(hold(slot, 0, own.subarray(0, gpuWords)))
      if (name === 'GPU and host') map.apply(hold(slot, 1, own.subarray(0, 2 * gpuWords), 1))
      const store = { slot: workers + slot, blockSize: chunkTokens }
      chunks.push(name === 'with chunks and a shared store' ? store : null)
      if (chunks[slot] !== null) fill(map, store, 1, blockKeys(tokens, chunkScope).subarray(0, 16 * (slot + 1)))
    }
    const stores = chunks[0] === null ? [] : [{ slot: 2 * workers, blockSize: chunkTokens }]
    for (const store of stores) fill(map, store, 3, blockKeys(tokens, chunkScope).subarray(0, 200))
    const counts = (): Uint32Array => new Uint32Array(32)
    const match: PrefixMatch = { gpu: counts(), host: counts(), disk: counts(), shared: counts() }
    return {
      name: `prompt of ${promptTokens.toLocaleString('en')} tokens, ${name}`,
      unit: 'µs a prompt',
      run: () => {
        let worth = 0
        for (let i = 0; i < prompts; i++) {
          const queries = [{ blockSize, keys: blockKeys(tokens, scope) }]
          if (stores.length > 0) queries.push({ blockSize: chunkTokens, keys: blockKeys(tokens, chunkScope) })
          map.match(queries, match)
          for (let slot = 0; slot < workers; slot++) {
            heldBlocks({ slot, blockSize, chunks: chunks[slot] ?? null, lookedUp: null }, stores, match, held)
            worth += credit.worth(held, promptTokens / blockSize, 0.1)
          }
        }
        assert(worth > 0)
        return prompts
      },
    }
  })
}

function fill(map: FlatMap, store: StoreRef, tier: number, keys: Uint32Array): void {
  map.addWorker(store.slot as WorkerSlot, { countsStores: false, blockSize: store.blockSize })
  map.apply(hold(store.slot, tier, keys))
}

function hold(slot: number, tier: number, keys: Uint32Array, sequence = 0) {
  const events = [{ kind: 'hold', tier, keys, parent: null }] as const
  return { worker: slot as WorkerSlot, epoch: 1, sequence, events }
}

if (import.meta.main) printResults(await run())
