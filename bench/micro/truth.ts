/** What the truth check costs: of each request, of each batch of events, and each verification of an engine's own hash. */
import { Ingest } from '../../src/events/ingest.ts'
import type { EventsWitness } from '../../src/events/counters.ts'
import type { WorkerSlot } from '../../src/kv/batch.ts'
import { vllmAlgorithms } from '../../src/kv/engine-hash/vllm.ts'
import { createKeyMaker, type KeyMaker } from '../../src/kv/keys.ts'
import { PromptKeys } from '../../src/kv/prompt-keys.ts'
import type { RootBlock } from '../../src/kv/root-block.ts'
import { FlatMap } from '../../src/map/flat-map.ts'
import { encodeBatch } from '../../src/simulator/event-encoding.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import { TruthCheck } from '../../src/truth/check.ts'
import { verifyRootBlock } from '../../src/truth/native/verify.ts'
import type { Worker } from '../../src/workers/worker.ts'
import { collectingLog } from '../../test/support/fleet.ts'
import { aWorker } from '../../test/support/routing.ts'
import { countingCounters } from '../../test/events/counting.ts'
import { median, type BenchResult } from '../result.ts'

const runs = 9
const blockSize = 16
const workers = 256
const slot = 0 as WorkerSlot

export async function run(): Promise<BenchResult[]> {
  const keys = await createKeyMaker(Buffer.from('a secret'))
  return [...ofRequests(keys), ...ofEvents(keys), ...ofHashes(), ofTicks(keys)]
}

function ofRequests(keys: KeyMaker): BenchResult[] {
  return [2048, 32_768].flatMap((length) => {
    const tokens = Uint32Array.from({ length }, (_, at) => 1000 + at)
    return [true, false].map((settled): BenchResult => {
      const { truth, worker, ingest } = checked(keys)
      const promptKeys = new PromptKeys(keys).of(tokens, { model: 'model', adapter: null, blockSize, cacheSalt: null })
      ingest.apply(0, 0, storing(tokens, 0))
      const blocks = length / blockSize - 1
      const request = (): void => {
        const watched = truth.watch(worker, {
          keys: promptKeys,
          tokens,
          runBlocks: blocks,
          sharedBlocks: 0,
          comingBlocks: 0,
          adapter: null,
          salt: null,
          chat: true,
          generates: true,
          reports: true,
        })
        if (watched === null) throw new Error('the worker has a block size')
        truth.sent(watched)
        truth.ended(watched, true)
        truth.answered(watched, { cachedTokens: blocks * blockSize, stream: false })
      }
      for (let i = 0; i < (settled ? 100 : 0); i++) request()
      // Before it has seen enough, each prompt is looked up again; a stratum is new for so many requests.
      const times = settled ? 20_000 : 16
      const what = settled ? 'one prompt in eight looked up' : 'every prompt looked up'
      return timed(`a request of ${length} tokens, ${what}`, times, request, () => {
        if (!settled) truth.record(worker).forgetJudgements()
      })
    })
  })
}

function ofEvents(keys: KeyMaker): BenchResult[] {
  const tokens = Uint32Array.from({ length: 8 * blockSize }, (_, at) => 1000 + at)
  const batches = [false, true].map((witnessed) => {
    const { ingest } = checked(keys, witnessed)
    const payload = storing(tokens, 1)
    let sequence = 0
    const of = witnessed ? 'with the check' : 'without it'
    return timed(`a batch that stores the first 8 blocks of a chain, ${of}`, 5000, () => {
      ingest.apply(sequence++, 0, payload)
    })
  })
  const { truth, worker } = checked(keys)
  const block = firstBlock(tokens.subarray(0, blockSize))
  truth.root(worker, block)
  const alone = timed('the check’s own part of such a batch', 100_000, () => {
    truth.applied(worker, 8, 0)
    truth.root(worker, block)
  })
  return [...batches, alone]
}

function firstBlock(tokens: Uint32Array): RootBlock {
  return { tokens, hashLow: 1, hashHigh: 2, adapter: null, extras: [], plainLow: 0, plainHigh: 0 }
}

function ofHashes(): BenchResult[] {
  const tokens = Uint32Array.from({ length: blockSize }, (_, at) => 120_000 + at)
  const block = firstBlock(tokens)
  const paths = new Map<string, string>()
  return vllmAlgorithms.map((algorithm) =>
    timed(`a first block whose seed nobody knows, all attempts, ${algorithm}`, 100, () => {
      verifyRootBlock('vllm', block, { algorithm, seed: null, adapterPaths: paths })
    }),
  )
}

function ofTicks(keys: KeyMaker): BenchResult {
  const { truth } = checked(keys)
  for (let index = 0; index < workers; index++) truth.record(aWorker(index))
  return timed(`the watch over ${workers} workers, ten times a second`, 1000, () => truth.tick())
}

function checked(keys: KeyMaker, witnessed = true): { truth: TruthCheck; worker: Worker; ingest: Ingest } {
  const map = new FlatMap({ budgetBytes: 256 * 1024 * 1024, maxWorkers: workers })
  map.addWorker(slot, { countsStores: false, blockSize })
  const worker = aWorker(0)
  const truth = new TruthCheck({
    map,
    keys,
    slots: workers,
    agreement: { requests: 30, leastRatio: 0.3, recoveredRatio: 0.6 },
    timing: { graceMs: 1000, silentMs: 5000, nativeIntervalMs: 600_000 },
    clock: () => performance.now(),
    wallClock: Date.now,
    log: collectingLog([]),
    metrics: createMetrics(),
    isPartial: () => false,
    heldBlocks: () => map.workerBlocks(slot).gpu,
  })
  const witness: EventsWitness = {
    applied: (stored, removed) => truth.applied(worker, stored, removed),
    cleared: () => truth.cleared(worker),
    root: (block) => truth.root(worker, block),
  }
  const ingest = new Ingest({
    worker: slot,
    map,
    keys,
    model: 'model',
    blockSize,
    countsStores: false,
    counters: countingCounters().counters,
    onBlockSize: () => undefined,
    ...(witnessed ? { witness } : {}),
  })
  return { truth, worker, ingest }
}

function storing(tokens: Uint32Array, name: number): Buffer {
  const hashes = Uint32Array.from({ length: (2 * tokens.length) / blockSize }, (_, at) => name * 100_000 + at + 1)
  return encodeBatch(
    [
      {
        kind: 'stored',
        tier: 'gpu',
        blockSize,
        hashes,
        parent: null,
        tokens,
        fromStart: true,
        cacheSalt: null,
        loraName: null,
        loraId: null,
        sessionId: null,
      },
    ],
    1,
    { hashes: 'int', rank: 0 },
  )
}

function timed(name: string, times: number, work: () => void, before: () => void = () => undefined): BenchResult {
  const samples: number[] = []
  for (let run = -2; run < runs; run++) {
    before()
    const startMs = performance.now()
    for (let i = 0; i < times; i++) work()
    if (run >= 0) samples.push(((performance.now() - startMs) / times) * 1000)
  }
  return { name, unit: 'µs', value: median(samples), samples }
}
