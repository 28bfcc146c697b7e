/**
 * A snapshot of a map as a fleet fills it: how long it takes to make (export), to pack and keep in a file, and to read
 * back into an empty map; how long the thread stands still at most; what it takes in bytes and memory. Batches go on being
 * applied while it is made.
 *
 *     node bench/micro/snapshot.ts [--entries 10000000] [--workers 64] [--slice-ms 2]
 */
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import type { KvBatch, KvEvent, KvParent, KvStore, WorkerSlot } from '../../src/kv/batch.ts'
import { chainKeys } from '../../src/kv/keys.ts'
import { FlatMap } from '../../src/map/flat-map.ts'
import { newPrefixMatch } from '../../src/map/map.ts'
import { exportSnapshot, type Exported, type SnapshotPace } from '../../src/map/snapshot-export.ts'
import { restoreSnapshot } from '../../src/map/snapshot-restore.ts'
import { SnapshotFile } from '../../src/replication/snapshot-file.ts'
import { randomWords } from '../../test/support/random.ts'
import { median, percentile, printResults, type BenchResult, type Told } from '../result.ts'

const seed = 20_262
const eventBlocks = 32
/** Blocks of a conversation: 416 of its own behind a prompt of 96 that an eighth of the workers hold. */
const ownEvents = 13
const promptEvents = 3
const prompts = 400
const conversations = 20_000
/** While a snapshot is made: what a large fleet publishes. */
const batchesPerMs = 2
const goalMs = 10_000
const goalSliceMs = 5
const fingerprint = 'bench'

const help = `npm run bench snapshot -- [--entries N] [--workers N] [--slice-ms MS]

  --entries   blocks held, counted for each worker that holds them (10000000)
  --workers   workers that hold them (64)
  --slice-ms  for which making or reading a snapshot takes the thread at a time (2)`

interface Options {
  readonly entries: number
  readonly workers: number
  readonly sliceMs: number
}

export async function run(words: readonly string[]): Promise<BenchResult[] | Told> {
  const { values } = parseArgs({
    args: [...words],
    options: {
      entries: { type: 'string', default: '10000000' },
      workers: { type: 'string', default: '64' },
      'slice-ms': { type: 'string', default: '2' },
      help: { type: 'boolean' },
    },
  })
  if (values.help === true) {
    console.log(help)
    return { missed: 0 }
  }
  const options = {
    entries: Number(values.entries),
    workers: Number(values.workers),
    sliceMs: Number(values['slice-ms']),
  }
  const folder = mkdtempSync(join(tmpdir(), 'warmroute-snapshot-'))
  try {
    return await measure(options, new SnapshotFile({ path: join(folder, 'map.snapshot'), maxBytes: 2 ** 40 }))
  } finally {
    rmSync(folder, { recursive: true })
  }
}

async function measure(options: Options, file: SnapshotFile): Promise<BenchResult[]> {
  const { workers } = options
  const load = new Load(workers)
  const map = newMap(workers)
  while (map.stats().entries < options.entries) for (const batch of load.batches(1000)) map.apply(batch)
  const { entries, keys } = map.stats()
  const name = `${(entries / 1e6).toFixed(1)}M entries, ${workers} workers`
  const pace: SnapshotPace = { clock: () => performance.now(), sliceMs: options.sliceMs, pause: () => turn() }
  const rssBefore = process.memoryUsage().rss
  let rssAfter = 0
  let batches = 0

  const make = async (isBusy: boolean): Promise<Made> => {
    const slices: number[] = []
    const start = performance.now()
    const cpuBefore = cpuMs()
    const draft = await file.write()
    const exported = await exportSnapshot({
      map,
      sink: draft,
      fingerprint,
      id: randomBytes(8),
      wants: () => true,
      factsOf: (slot) => ({
        worker: `w${slot}`,
        part: 'engine',
        engine: 'vllm',
        position: { sequence: 1, timestamp: 1 },
        partial: false,
        state: null,
      }),
      logPosition: () => null,
      wallClock: () => Date.now(),
      pace: {
        ...pace,
        onSlice: (tookMs) => slices.push(tookMs),
        pause: async () => {
          for (; isBusy && batches < batchesPerMs * (performance.now() - start); batches++)
            for (const batch of load.batches(1)) map.apply(batch)
          await turn()
        },
      },
      check: () => (rssAfter = Math.max(rssAfter, process.memoryUsage().rss)),
    })
    return { exported, slices, tookMs: performance.now() - start, cpuMs: cpuMs() - cpuBefore }
  }

  const busy = await make(true)
  const quiet = await make(false)
  const restored = newMap(workers)
  const rssRestoreBefore = process.memoryUsage().rss
  const start = performance.now()
  const restoreCpuBefore = cpuMs()
  const restoreSlices: number[] = []
  const frames = await file.read()
  if (frames === null) throw new Error('the snapshot that was written is not there')
  const result = await restoreSnapshot({
    map: restored,
    frames,
    fingerprint,
    slotOf: ({ worker }) => Number(worker.slice(1)) as WorkerSlot,
    pace: { ...pace, onSlice: (tookMs) => restoreSlices.push(tookMs) },
  })
  const rssRestore = process.memoryUsage().rss
  await frames.close()
  for (const part of result.parts) part.commit({ epoch: 0, lastSequence: 0, isConcealed: false })
  const restoreMs = performance.now() - start
  const restoreCpuMs = cpuMs() - restoreCpuBefore
  assertSame(map, restored, load)
  const perEntry = (bytes: number): number => bytes / entries
  return [
    timed(`make a snapshot and keep it in a file, ${name}`, quiet.tookMs, {
      'CPU time of the thread s': quiet.cpuMs / 1000,
      keys,
    }),
    sliced(`longest slice while one is made, ${name}`, quiet.slices),
    timed(`the same while batches are applied, ${name}`, busy.tookMs, {
      'CPU time of the thread s, batches among it': busy.cpuMs / 1000,
      'batches meanwhile': batches,
      'records written again': busy.exported.header.records - entries,
    }),
    sliced(`longest slice while one is made and batches are applied, ${name}`, busy.slices),
    timed(`read it into an empty map, ${name}`, restoreMs, {
      'CPU time of the thread s': restoreCpuMs / 1000,
      refused: result.refused,
    }),
    sliced(`longest slice while one is read, ${name}`, restoreSlices),
    {
      name: `bytes, ${name}`,
      unit: 'B/entry',
      value: perEntry(quiet.exported.bytes),
      samples: [perEntry(quiet.exported.bytes)],
      notes: {
        MiB: quiet.exported.bytes / 2 ** 20,
        'before compression': perEntry(quiet.exported.header.rawBytes),
        chunks: quiet.exported.header.chunks,
        'rss MiB while it is made': (rssAfter - rssBefore) / 2 ** 20,
        'rss MiB while it is read, with the map': (rssRestore - rssRestoreBefore) / 2 ** 20,
      },
    },
  ]
}

/** Conversations that take turns; a finished one begins anew on another worker, under a prompt that this one has. */
class Load {
  readonly workers: number
  /** Keys of some prompts as the map knows them. */
  readonly sampled: Uint32Array[] = []
  readonly #random = randomWords(seed)
  readonly #sequences: number[]
  /** Under which conversations begin. */
  readonly #prompts: KvParent[] = []
  readonly #pending: { readonly worker: number; readonly events: readonly KvEvent[] }[] = []
  readonly #active: Conversation[] = []

  constructor(workers: number) {
    this.workers = workers
    this.#sequences = new Array<number>(workers).fill(0)
    for (let i = 0; i < prompts; i++) this.#prompts.push(this.#newPrompt(i))
  }

  batches(count: number): KvBatch[] {
    return Array.from({ length: count }, () => this.#batch())
  }

  #newPrompt(i: number): KvParent {
    const keys = new Uint32Array(2 * promptEvents * eventBlocks)
    let parent: KvParent = { kind: 'root', keyLow: 1, keyHigh: i }
    let [low, high] = [1, i]
    const events: KvEvent[] = []
    for (let n = 0; n < promptEvents; n++) {
      const event = this.#event(parent)
      const own = keys.subarray(2 * n * eventBlocks, 2 * (n + 1) * eventBlocks)
      chainKeys(low, high, event.locals, own)
      ;[low = 0, high = 0] = own.subarray(-2)
      const [hashLow = 0, hashHigh = 0] = event.engineHashes.subarray(-2)
      parent = { kind: 'block', hashLow, hashHigh }
      events.push(event)
    }
    for (let worker = i % 8; worker < this.workers; worker += 8) this.#pending.push({ worker, events })
    this.sampled.push(keys)
    return parent
  }

  #batch(): KvBatch {
    const waiting = this.#pending.pop()
    if (waiting !== undefined) return this.#sent(waiting.worker, waiting.events)
    const place = this.#random() % conversations
    let active = this.#active[place]
    if (active === undefined || active.left === 0) {
      const prompt = this.#random() % prompts
      const worker = ((prompt % 8) + 8 * (this.#random() % Math.ceil(this.workers / 8))) % this.workers
      active = { worker, left: ownEvents, parent: this.#prompts[prompt] as KvParent }
      this.#active[place] = active
    }
    const event = this.#event(active.parent)
    const [hashLow = 0, hashHigh = 0] = event.engineHashes.subarray(-2)
    active.parent = { kind: 'block', hashLow, hashHigh }
    active.left--
    return this.#sent(active.worker, [event])
  }

  #sent(worker: number, events: readonly KvEvent[]): KvBatch {
    const sequence = this.#sequences[worker] as number
    this.#sequences[worker] = sequence + 1
    return { worker: worker as WorkerSlot, epoch: 0, sequence, events }
  }

  #event(parent: KvParent): KvStore {
    const words = Uint32Array.from({ length: 4 * eventBlocks }, this.#random)
    return {
      kind: 'store',
      tier: 0,
      group: 0,
      engineHashes: words.subarray(0, 2 * eventBlocks),
      locals: words.subarray(2 * eventBlocks),
      parent,
    }
  }
}

interface Conversation {
  readonly worker: number
  left: number
  parent: KvParent
}

function timed(name: string, ms: number, notes: Record<string, number>): BenchResult {
  return { name, unit: 's', value: ms / 1000, samples: [ms / 1000], goal: '<= 10', met: ms <= goalMs, notes }
}

/** What else the machine does is in the longest; hence the others beside it. */
function sliced(name: string, slices: number[]): BenchResult {
  const longest = percentile(slices, 1)
  return {
    name,
    unit: 'ms',
    value: longest,
    samples: [longest],
    goal: `<= ${goalSliceMs}`,
    met: longest <= goalSliceMs,
    notes: {
      slices: slices.length,
      median: median(slices),
      p99: percentile(slices, 0.99),
      'p99.9': percentile(slices, 0.999),
    },
  }
}

interface Made {
  readonly exported: Exported
  readonly slices: number[]
  readonly tookMs: number
  readonly cpuMs: number
}

function cpuMs(): number {
  const { user, system } = process.threadCpuUsage()
  return (user + system) / 1000
}

function newMap(workers: number): FlatMap {
  const map = new FlatMap({ budgetBytes: 2 ** 30, maxWorkers: 2 * workers })
  for (let slot = 0; slot < workers; slot++) map.addWorker(slot as WorkerSlot, { countsStores: true, blockSize: 16 })
  return map
}

function assertSame(map: FlatMap, restored: FlatMap, load: Load): void {
  const matches = [newPrefixMatch(load.workers), newPrefixMatch(load.workers)] as const
  let sum = 0
  for (const keys of load.sampled) {
    map.match([{ blockSize: 16, keys }], matches[0])
    restored.match([{ blockSize: 16, keys }], matches[1])
    if (matches[0].gpu.join() !== matches[1].gpu.join()) throw new Error('the restored map matches another way')
    sum += matches[0].gpu.reduce((total, blocks) => total + blocks, 0)
  }
  if (sum === 0 || map.stats().entries !== restored.stats().entries) throw new Error('the restored map is not the same')
}

if (import.meta.main) {
  const results = await run(process.argv.slice(2))
  if (Array.isArray(results)) printResults(results)
}
