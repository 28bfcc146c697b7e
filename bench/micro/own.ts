/** What the router's own conclusions cost: prompts that are coming, what workers without events hold, what replicas add. */
import { Approximate } from '../../src/map/approximate.ts'
import { Coming } from '../../src/map/coming.ts'
import { FlatMap } from '../../src/map/flat-map.ts'
import type { WorkerSlot } from '../../src/kv/batch.ts'
import { chainKeys } from '../../src/kv/keys.ts'
import { LoadShares } from '../../src/replication/replica-shares.ts'
import { decodeShared, encodeShared, type SharedMessage } from '../../src/replication/shared-record.ts'
import { SharedWorkers } from '../../src/replication/shared-workers.ts'
import { FleetLoad } from '../../src/workers/fleet-load.ts'
import { InFlightCounters } from '../../src/workers/fleet.ts'
import { randomWords } from '../../test/support/random.ts'
import { aWorker } from '../../test/support/routing.ts'
import { median, printResults, type BenchResult } from '../result.ts'

const runs = 7
const workers = 64
const promptBlocks = 512
const turns = 8

const next = randomWords(1)

/** Keys of a conversation's turns, each with the ones before it. */
function talk(): Uint32Array[] {
  const locals = Uint32Array.from({ length: 2 * promptBlocks }, next)
  const keys = new Uint32Array(2 * promptBlocks)
  chainKeys(next(), next(), locals, keys)
  return Array.from({ length: turns }, (_, turn) => keys.subarray(0, ((turn + 1) * 2 * promptBlocks) / turns))
}

export function run(): BenchResult[] {
  return [...comingCosts(), ...approximateCosts(), ...sharingCosts()]
}

function comingCosts(): BenchResult[] {
  const out = new Uint32Array(workers)
  const counts = (): Uint32Array => new Uint32Array(workers)
  const match = { gpu: counts(), host: counts(), disk: counts(), shared: counts() }
  return [0, 16, 128, 1024].map((underWay) => {
    const coming = new Coming({ requests: 1024 })
    const prompts = Array.from({ length: Math.max(1, underWay) }, () => talk().at(-1) as Uint32Array)
    for (let i = 0; i < underWay; i++) coming.expect(i % workers, 16, prompts[i] as Uint32Array, Infinity)
    let at = 0
    return timed(`coming: a decision with ${underWay} requests under way`, 20_000, () => {
      const keys = prompts[at++ % prompts.length] as Uint32Array
      coming.match([{ blockSize: 16, keys }], match, 0, out)
      return out[at % workers] as number
    })
  })
}

function approximateCosts(): BenchResult[] {
  const slot = 0 as WorkerSlot
  const capacityBlocks = 32_768
  const setUp = () => {
    const map = new FlatMap({ budgetBytes: 256 * 1024 * 1024, maxWorkers: workers })
    map.addWorker(slot, { countsStores: false, blockSize: 16 })
    return new Approximate({ map, limits: { capacityBlocks, ttlMs: Infinity }, isAnnounced: () => false })
  }
  const warm = setUp()
  const talks = Array.from({ length: capacityBlocks / promptBlocks }, talk)
  let nowMs = 0
  const use = (approximate: Approximate, keys: Uint32Array, believedBlocks: number): number => {
    approximate.computed({ slot, keys, believedBlocks, capacityBlocks: null }, nowMs++)
    return keys.length
  }
  for (const each of talks) each.forEach((keys, turn) => use(warm, keys, (turn * promptBlocks) / turns))
  let at = 0
  const again = timed(`approximate: a prompt of ${promptBlocks} blocks in ${turns} turns, all of it held`, 20_000, () =>
    use(warm, talks[at++ % talks.length]?.at(-1) as Uint32Array, promptBlocks),
  )
  const full = setUp()
  const many = Array.from({ length: 2_000 }, talk)
  let turn = 0
  const added = timed(`approximate: a turn that adds ${promptBlocks / turns} blocks, as many evicted`, 16_000, () => {
    const keys = many[Math.floor(turn / turns) % many.length]?.[turn % turns] as Uint32Array
    return use(full, keys, ((turn++ % turns) * promptBlocks) / turns)
  })
  return [again, added]
}

function sharingCosts(): BenchResult[] {
  const known = new SharedWorkers()
  const fleet = Array.from({ length: workers }, (_, slot) => aWorker(slot))
  for (const worker of fleet) known.add(worker)
  const figures = fleet.map(({ id }) => ({
    worker: id,
    requests: 3,
    sequences: 3,
    prefillTokens: 900,
    decodeBlocks: 99,
  }))
  const sums = [0, 7, 63].map((others) => {
    const shares = new LoadShares({ workers: known, slots: workers, ttlMs: () => 2000 })
    for (let i = 0; i < others; i++) shares.apply(`${i}`, { kind: 'load', full: true, workers: figures }, 0)
    const load = new FleetLoad({ counters: new InFlightCounters(workers), replicas: shares })
    return timed(`shares: what is in flight on ${workers} workers, with ${others} other replicas`, 2_000, () => {
      let sum = 0
      for (const { slot } of fleet) sum += load.requests(slot) + load.prefillTokens(slot) + load.decodeBlocks(slot)
      return sum
    })
  })
  const keys = talk().at(-1) as Uint32Array
  const [one] = figures
  if (one === undefined) throw new Error('no workers')
  const message: SharedMessage = {
    replica: '0123456789abcdef',
    counter: 1,
    records: [
      { kind: 'load', full: false, workers: [one] },
      {
        ...{ kind: 'prompt', number: 1, worker: one.worker, assumed: false, blockSize: 16, believedBlocks: 0 },
        ...{ firstBlock: 0, predictedMs: 100, keys },
      },
    ],
  }
  const bytes = encodeShared(message)
  return [
    ...sums,
    timed(`shares: write a message of ${promptBlocks} new blocks`, 20_000, () => encodeShared(message).length),
    timed(`shares: read a message of ${promptBlocks} new blocks`, 20_000, () => decodeShared(bytes, () => 0).length),
  ]
}

let sink = 0

function timed(name: string, times: number, work: () => number): BenchResult {
  const samples: number[] = []
  for (let run = -1; run < runs; run++) {
    const startMs = performance.now()
    for (let i = 0; i < times; i++) sink += work()
    if (run >= 0) samples.push(((performance.now() - startMs) / times) * 1000)
  }
  if (Number.isNaN(sink)) throw new Error('the work must not be optimized away')
  return { name, unit: 'µs', value: median(samples), samples }
}

if (import.meta.main) printResults(run())
