/**
 * The flat map under a fleet's load: storing from 32-block events, matching 512-block prompts against the same number of
 * independent random reads in a table of that size, clearing a worker, memory an entry; and the map at its byte budget
 * (map-churn.ts).
 *
 *     node bench/micro/map.ts [--entries 10000000] [--workers 64] [--large]      (--large: 256 workers, 50M entries)
 *
 * A conversation is a system prompt (8 of them, 32 blocks, on every worker), an application prompt (400, 64 blocks, on an
 * eighth of the workers) and its own 416 blocks, on one worker, every fourth on two to four. Events of all conversations come
 * interleaved, so that neighbours in the map are neighbours for one event only.
 */
import { parseArgs } from 'node:util'
import { chainKeys } from '../../src/kv/keys.ts'
import type { KvEvent, KvParent, WorkerSlot } from '../../src/kv/batch.ts'
import { FlatMap } from '../../src/map/flat-map.ts'
import type { PrefixMatch } from '../../src/map/map.ts'
import { randomWords } from '../../test/support/random.ts'
import { median, percentile, printResults } from '../result.ts'
import type { BenchResult } from '../result.ts'
import { churn, churns } from './map-churn.ts'

const seed = 20_260
const eventBlocks = 32
const systemPrompts = 8
const applications = 400
const ownEvents = 13
/** Mean number of workers that hold a conversation's own blocks. */
const copiesShare = 1 + 1 / 4 + 1 / 16 + 1 / 32
const promptBlocks = 512
const sampledPrompts = 3000

export interface MapBenchOptions {
  readonly entries: number
  readonly workers: number
  readonly budgetBytes: number
}

const usual: MapBenchOptions = { entries: 10_000_000, workers: 64, budgetBytes: 2 ** 30 }
const large: MapBenchOptions = { entries: 50_000_000, workers: 256, budgetBytes: 4 * 2 ** 30 }

/** 256 workers and 50 M entries: memory and match, stated beside the goals. */
export function runLarge(): Promise<BenchResult[]> {
  return run(large)
}

export function run(options: MapBenchOptions = usual): Promise<BenchResult[]> {
  const name = `${options.entries / 1e6}M entries, ${options.workers} workers`
  const bench = new MapBench(options)
  const inserts = bench.fill()
  const stats = bench.map.stats()
  const results: BenchResult[] = [
    {
      name: `store from empty, tables growing, ${eventBlocks}-block events, ${name}`,
      unit: 'M blocks/s',
      value: median(inserts),
      samples: inserts,
      notes: { first: inserts[0] ?? 0, last: inserts.at(-1) ?? 0, keys: stats.keys, sets: stats.sets },
    },
    {
      name: `memory, ${name}`,
      unit: 'B/entry',
      value: stats.bytes / stats.entries,
      samples: [stats.bytes / stats.entries],
      goal: '<= 48 (24 table and sets, 24 aliases)',
      met: stats.bytes / stats.entries <= 48,
      notes: {
        'table and sets': bench.tableBytes() / stats.entries,
        aliases: (stats.bytes - bench.tableBytes()) / stats.entries,
        'rss B/entry': process.memoryUsage().rss / stats.entries,
      },
    },
  ]
  results.push(...bench.matches(name))
  results.push(bench.clears(name))
  bench.empty()
  const refills = bench.fill()
  results.push({
    name: `store into tables grown before, ${name}`,
    unit: 'M blocks/s',
    value: median(refills),
    samples: refills,
    goal: '>= 3',
    met: median(refills) >= 3,
    notes: { best: percentile(refills, 1) },
  })
  if (options === usual) for (const atBudget of churns) results.push(...churn(atBudget))
  return Promise.resolve(results)
}

class MapBench {
  readonly map: FlatMap
  readonly #options: MapBenchOptions
  readonly #random = randomWords(seed)
  readonly #sequences: number[]
  #epoch = 0
  readonly #out: PrefixMatch
  /** Keys of the sampled prompts, all 512 blocks of each. */
  readonly #prompts: Uint32Array[] = []

  constructor(options: MapBenchOptions) {
    this.#options = options
    this.map = new FlatMap({ budgetBytes: options.budgetBytes, maxWorkers: options.workers })
    this.#sequences = new Array<number>(options.workers).fill(0)
    for (let slot = 0; slot < options.workers; slot++) {
      this.map.addWorker(slot as WorkerSlot, { countsStores: true, blockSize: 16 })
    }
    const counts = (): Uint32Array => new Uint32Array(options.workers)
    this.#out = { gpu: counts(), host: counts(), disk: counts(), shared: counts() }
  }

  /** Bytes of slots, index and sets: all but aliases. */
  tableBytes(): number {
    return this.map.stats().bytes - this.map.aliasBytes
  }

  /** Stores everything; returns the rate of each stretch of about 100,000 blocks, in millions a second. */
  fill(): number[] {
    const { entries, workers } = this.#options
    const chains = this.#prefixes()
    const conversations = Math.round((entries - this.map.stats().entries) / (copiesShare * ownEvents * eventBlocks))
    const parents = new Uint32Array(2 * conversations)
    const keys = new Uint32Array(2 * conversations)
    const heads = chains.map(({ hash, key }) => ({ hash, key }))
    const sampleStep = Math.max(1, Math.floor(conversations / sampledPrompts))
    const sampled = new Map<number, Uint32Array>()
    for (let i = 0; i < conversations; i++) {
      const head = heads[i % heads.length] as Chain
      parents.set(head.hash, 2 * i)
      keys.set(head.key, 2 * i)
      if (i % sampleStep !== 0) continue
      const prompt = new Uint32Array(2 * promptBlocks)
      prompt.set((chains[i % heads.length] as Chain).keys)
      sampled.set(i, prompt)
    }
    const rates: number[] = []
    let pending: { worker: number; event: KvEvent }[] = []
    const flush = (): void => {
      const start = performance.now()
      for (const { worker, event } of pending) this.#apply(worker, [event])
      rates.push((pending.length * eventBlocks) / 1000 / (performance.now() - start))
      pending = []
    }
    const scratch = new Uint32Array(2 * eventBlocks)
    for (let step = 0; step < ownEvents; step++) {
      for (let i = 0; i < conversations; i++) {
        const parent: KvParent = { kind: 'block', hashLow: parents[2 * i] ?? 0, hashHigh: parents[2 * i + 1] ?? 0 }
        const event = this.#event(parent)
        parents.set(event.engineHashes.subarray(-2), 2 * i)
        chainKeys(keys[2 * i] ?? 0, keys[2 * i + 1] ?? 0, event.locals, scratch)
        keys.set(scratch.subarray(-2), 2 * i)
        sampled.get(i)?.set(scratch, 2 * (promptBlocks - (ownEvents - step) * eventBlocks))
        const home = this.#homeOf(i, workers)
        pending.push({ worker: home, event })
        for (const copy of copiesOf(i)) pending.push({ worker: (home + 8 * copy) % workers, event })
        if (pending.length >= 3200) flush()
      }
    }
    flush()
    this.#prompts.push(...sampled.values())
    return rates
  }

  /** Matching against as many random reads, alternating, each prompt once: cold keys. */
  matches(name: string): BenchResult[] {
    const entries = new Int32Array(this.map.shared().entries)
    const top = this.map.stats().keys
    const places = new Uint32Array(promptBlocks)
    const lookups: number[] = []
    const floors: number[] = []
    const shortLookups: number[] = []
    let sink = 0
    const order = this.#prompts.map((prompt) => ({ prompt, rank: this.#random() })).sort((a, b) => a.rank - b.rank)
    for (const { prompt } of order) {
      for (let i = 0; i < promptBlocks; i++) places[i] = 5 * (this.#random() % top)
      let start = performance.now()
      sink ^= sumAt(entries, places)
      floors.push((performance.now() - start) * 1000)
      start = performance.now()
      this.map.match([{ blockSize: 16, keys: prompt }], this.#out)
      lookups.push((performance.now() - start) * 1000)
      sink ^= this.#out.gpu.reduce((sum, blocks) => sum + blocks, 0)
      const short = prompt.subarray(0, 128)
      start = performance.now()
      this.map.match([{ blockSize: 16, keys: short }], this.#out)
      shortLookups.push((performance.now() - start) * 1000)
    }
    const warm = Math.floor(lookups.length / 5)
    for (const samples of [lookups, floors, shortLookups]) samples.splice(0, warm)
    const floor = median(floors)
    return [
      {
        name: `match, ${promptBlocks} blocks, ${name}`,
        unit: 'us',
        value: median(lookups),
        samples: lookups,
        goal: '<= 3x the random reads',
        met: median(lookups) <= 3 * floor,
        notes: {
          'random reads': floor,
          'random reads p99': percentile(floors, 0.99),
          ratio: median(lookups) / floor,
          p99: percentile(lookups, 0.99),
          sink: sink & 1,
        },
      },
      {
        name: `match, 64 blocks just matched, ${name}`,
        unit: 'us',
        value: median(shortLookups),
        samples: shortLookups,
        notes: { p99: percentile(shortLookups, 0.99) },
      },
    ]
  }

  clears(name: string): BenchResult {
    const samples: number[] = []
    const { sets } = this.map.stats()
    for (let slot = 0; slot < Math.min(9, this.#options.workers); slot++) {
      const start = performance.now()
      this.map.clear(slot as WorkerSlot, 1)
      samples.push(performance.now() - start)
    }
    const start = performance.now()
    let steps = 0
    while (this.map.sweep(1)) steps++
    const sweepMs = performance.now() - start
    return {
      name: `clear a worker, ${name}`,
      unit: 'ms',
      value: percentile(samples, 1),
      samples,
      goal: '<= 5 (slowest)',
      met: percentile(samples, 1) <= 5,
      notes: { sets, 'sweep ms, in steps': sweepMs, steps, 'ms a step': sweepMs / Math.max(1, steps) },
    }
  }

  /** Clears every worker and sweeps; tables keep the size and the pages that they have. */
  empty(): void {
    this.#epoch = 2
    for (let slot = 0; slot < this.#options.workers; slot++) this.map.clear(slot as WorkerSlot, this.#epoch)
    this.#sequences.fill(0)
    while (this.map.sweep(1000));
  }

  /** System and application prompts, on all and on an eighth of the workers. */
  #prefixes(): Chain[] {
    const { workers } = this.#options
    const systems: Chain[] = []
    for (let i = 0; i < systemPrompts; i++) {
      const root: KvParent = { kind: 'root', keyLow: 1, keyHigh: 1 }
      const event = this.#event(root)
      for (let worker = 0; worker < workers; worker++) this.#apply(worker, [event])
      systems.push(chainOf(event, Uint32Array.of(1, 1), new Uint32Array(0)))
    }
    const chains: Chain[] = []
    for (let i = 0; i < applications; i++) {
      let chain = systems[i % systemPrompts] as Chain
      for (let half = 0; half < 2; half++) {
        const event = this.#event({ kind: 'block', hashLow: chain.hash[0] ?? 0, hashHigh: chain.hash[1] ?? 0 })
        for (let n = 0; n < workers; n += 8) this.#apply((n + i) % workers, [event])
        chain = chainOf(event, chain.key, chain.keys)
      }
      chains.push(chain)
    }
    return chains
  }

  /** A worker that has the conversation's application prompt. */
  #homeOf(conversation: number, workers: number): number {
    const application = conversation % applications
    const turn = Math.floor(conversation / applications) % Math.ceil(workers / 8)
    return (turn * 8 + application) % workers
  }

  #event(parent: KvParent): KvEvent & { kind: 'store' } {
    const engineHashes = new Uint32Array(2 * eventBlocks)
    const locals = new Uint32Array(2 * eventBlocks)
    for (let i = 0; i < engineHashes.length; i++) {
      engineHashes[i] = this.#random()
      locals[i] = this.#random()
    }
    return { kind: 'store', tier: 0, group: 0, engineHashes, locals, parent }
  }

  #apply(worker: number, events: KvEvent[]): void {
    const sequence = this.#sequences[worker] ?? 0
    this.#sequences[worker] = sequence + 1
    this.map.apply({ worker: worker as WorkerSlot, epoch: this.#epoch, sequence, events })
  }
}

/** The end of a chain of blocks: its last engine hash and key, and all its keys. */
interface Chain {
  readonly hash: Uint32Array
  readonly key: Uint32Array
  readonly keys: Uint32Array
}

function chainOf(event: KvEvent & { kind: 'store' }, key: Uint32Array, before: Uint32Array): Chain {
  const keys = new Uint32Array(event.locals.length)
  chainKeys(key[0] ?? 0, key[1] ?? 0, event.locals, keys)
  const all = new Uint32Array(before.length + keys.length)
  all.set(before)
  all.set(keys, before.length)
  return { hash: event.engineHashes.subarray(-2), key: keys.subarray(-2), keys: all }
}

function sumAt(words: Int32Array, places: Uint32Array): number {
  let total = 0
  for (let i = 0; i < places.length; i++) total = (total + (words[places[i] as number] as number)) | 0
  return total
}

/** On which further workers (in steps of eight) a conversation is: every thirteenth on any few of the other seven. */
function copiesOf(conversation: number): number[] {
  const draw = Math.imul(conversation + 1, 0x9e3779b1) >>> 4
  if (draw % 13 !== 0) return []
  const mask = Math.imul(draw, 0x85ebca6b) >>> 25
  return [1, 2, 3, 4, 5, 6, 7].filter((copy) => (mask & (1 << (copy - 1))) !== 0)
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: { entries: { type: 'string' }, workers: { type: 'string' }, large: { type: 'boolean' } },
  })
  const base = values.large === true ? large : usual
  const entries = values.entries === undefined ? base.entries : Number(values.entries)
  const workers = values.workers === undefined ? base.workers : Number(values.workers)
  console.log(`seed ${seed}, node ${process.version}`)
  printResults(await run({ ...base, entries, workers }))
}
