/**
 * The flat map at its budget: every store evicts. Rate, and how long one 32-block batch takes, which is how long the event
 * loop stands still; the same load runs several times. Conversations grow to 416 blocks in 32-block events, all of them new blocks, as many at a time as a
 * fleet serves.
 */
import type { KvBatch, KvEvent, KvParent, WorkerSlot } from '../../src/kv/batch.ts'
import { FlatMap } from '../../src/map/flat-map.ts'
import { randomWords } from '../../test/support/random.ts'
import { median, percentile } from '../result.ts'
import type { BenchResult } from '../result.ts'

const seed = 20_261
const workers = 64
const eventBlocks = 32
const ownEvents = 13
const activeConversations = 500
const stretchBatches = 3200
const repetitions = 3
const goalBlocksPerUs = 1.5
const goalBatchMs = 2

export interface ChurnOptions {
  readonly name: string
  readonly budgetBytes: number
  /** Blocks stored while it is measured, after as many as fill the map. */
  readonly blocks: number
}

export const churns: readonly ChurnOptions[] = [
  { name: '32 MiB budget', budgetBytes: 32 * 2 ** 20, blocks: 3_000_000 },
  { name: '10M-entry budget', budgetBytes: 520_000_000, blocks: 10_000_000 },
]

export function churn(options: ChurnOptions): BenchResult[] {
  const runs = Array.from({ length: repetitions }, () => churnOnce(options))
  // The runs do the same work, and what disturbs one batch on a busy machine seldom disturbs it again.
  const batchMs = runs[0]?.batchMs.map((_, i) => Math.min(...runs.map((run) => run.batchMs[i] ?? Infinity))) ?? []
  const rates = runs.map((run) => median(run.rates))
  const slowest = percentile(batchMs, 1)
  return [
    {
      name: `store while evicting, ${options.name}`,
      unit: 'M blocks/s',
      value: percentile(rates, 1),
      samples: runs.flatMap((run) => run.rates),
      goal: `>= ${goalBlocksPerUs} (best of ${repetitions} runs)`,
      met: percentile(rates, 1) >= goalBlocksPerUs,
      notes: { worst: percentile(rates, 0), ...runs[0]?.notes },
    },
    {
      name: `slowest ${eventBlocks}-block batch while evicting, ${options.name}`,
      unit: 'ms',
      value: slowest,
      samples: [slowest],
      goal: `<= ${goalBatchMs} (each batch at its best)`,
      met: slowest <= goalBatchMs,
      notes: {
        p50: percentile(batchMs, 0.5),
        p99: percentile(batchMs, 0.99),
        'p99.9': percentile(batchMs, 0.999),
        batches: batchMs.length,
        'slowest in each run': runs.map((run) => percentile(run.batchMs, 1).toFixed(1)).join(' '),
      },
    },
  ]
}

interface ChurnRun {
  /** Millions of blocks a second, by stretch. */
  readonly rates: number[]
  readonly batchMs: number[]
  readonly notes: Readonly<Record<string, number>>
}

function churnOnce({ budgetBytes, blocks }: ChurnOptions): ChurnRun {
  const map = new FlatMap({ budgetBytes, maxWorkers: workers })
  for (let slot = 0; slot < workers; slot++) {
    map.addWorker(slot as WorkerSlot, { countsStores: true, blockSize: 16 })
  }
  const load = new ChurnLoad()
  while (map.stats().evictions === 0) for (const batch of load.batches(100)) map.apply(batch)
  // The step into eviction belongs to what is measured.
  const rates: number[] = []
  const batchMs: number[] = []
  let refused = 0
  let cpuMs = 0
  const before = map.stats()
  for (let done = 0; done < blocks; done += stretchBatches * eventBlocks) {
    let stretchMs = 0
    const batches = load.batches(stretchBatches)
    const cpuBefore = process.threadCpuUsage()
    for (const batch of batches) {
      const start = performance.now()
      refused += map.apply(batch).parentEvicted
      const tookMs = performance.now() - start
      batchMs.push(tookMs)
      stretchMs += tookMs
    }
    const cpu = process.threadCpuUsage(cpuBefore)
    cpuMs += (cpu.user + cpu.system) / 1000
    rates.push((stretchBatches * eventBlocks) / 1000 / stretchMs)
  }
  const stats = map.stats()
  const stored = batchMs.length * eventBlocks
  const notes = {
    'by CPU time': stored / 1000 / cpuMs,
    entries: stats.entries,
    'evictions a block': (stats.evictions - before.evictions) / stored,
    'refused share': refused / stored,
    'B/entry': stats.bytes / stats.entries,
    'of it aliases': map.aliasBytes / stats.entries,
  }
  return { rates, batchMs, notes }
}

/** Batches of conversations that take turns at random; a finished one gives its place to a new one on another worker. */
class ChurnLoad {
  readonly #random = randomWords(seed)
  readonly #sequences = new Array<number>(workers).fill(0)
  readonly #worker = new Int32Array(activeConversations)
  readonly #events = new Int32Array(activeConversations)
  readonly #parents = new Uint32Array(2 * activeConversations)

  batches(count: number): KvBatch[] {
    return Array.from({ length: count }, () => this.#batch(this.#random() % activeConversations))
  }

  #batch(conversation: number): KvBatch {
    const begun = (this.#events[conversation] as number) % ownEvents
    if (begun === 0) this.#worker[conversation] = this.#random() % workers
    this.#events[conversation] = begun + 1
    const parent: KvParent =
      begun === 0
        ? { kind: 'root', keyLow: 1, keyHigh: 1 }
        : {
            kind: 'block',
            hashLow: this.#parents[2 * conversation] as number,
            hashHigh: this.#parents[2 * conversation + 1] as number,
          }
    const words = Uint32Array.from({ length: 4 * eventBlocks }, this.#random)
    const engineHashes = words.subarray(0, 2 * eventBlocks)
    this.#parents.set(engineHashes.subarray(-2), 2 * conversation)
    const event: KvEvent = {
      kind: 'store',
      tier: 0,
      group: 0,
      engineHashes,
      locals: words.subarray(2 * eventBlocks),
      parent,
    }
    const worker = this.#worker[conversation] as number
    const sequence = this.#sequences[worker] as number
    this.#sequences[worker] = sequence + 1
    return { worker: worker as WorkerSlot, epoch: 0, sequence, events: [event] }
  }
}
