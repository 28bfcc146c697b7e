/**
 * Routing quality on recorded workloads, in virtual time: agent sessions (closed loop) and Mooncake's conversations (open
 * loop) on 8 and 16 workers with caches that hold 10, 25 and 50 % of the trace's distinct blocks, at 50, 70 and 90 % of the load at which the
 * greedy oracle still keeps the SLO; and, with caches of 25 %, the highest load at which each policy does. Prompts have their recorded length. Seeded:
 * equal commits give equal figures on any machine.
 *
 *     npm run bench agentic, npm run bench mooncake     all of it, ten seeds: most of an hour on two cores
 *     npm run bench agentic 8                           with 8 workers alone
 *     npm run bench agentic quick                       8 workers, 25 %, two seeds: for trying a policy out; keeps no results
 */
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import type { LoadOptions } from '../../src/replay/arrivals.ts'
import { calibrated } from '../../src/replay/calibration.ts'
import type { ReplayJob } from '../../src/replay/job.ts'
import { ReplayPool } from '../../src/replay/pool.ts'
import { highestLoad } from '../../src/replay/search.ts'
import { estimate, meanOf, pairedDifference } from '../../src/replay/statistics.ts'
import type { ReplayResult, Slo } from '../../src/replay/summary.ts'
import { readTrace } from '../../src/replay/traces/read.ts'
import { traceFigures } from '../../src/replay/traces/trace.ts'
import { printResults, type BenchResult, type Told } from '../result.ts'
import { oracle, others, own, tuned, type ComparedPolicy } from './policies.ts'

interface Workload {
  readonly name: string
  readonly path: string
  readonly slo: Slo
  /** What a load is: users at once, or how many times as fast as recorded. */
  readonly unit: 'users' | '× recorded rate'
  readonly load: (load: number, extent: Extent) => LoadOptions
  readonly start: number
}

interface Extent {
  readonly seeds: readonly number[]
  readonly workers: readonly number[]
  readonly cacheShares: readonly number[]
  readonly loadShares: readonly number[]
  /** Caches with which the highest load of every policy is looked for. */
  readonly limitShares: readonly number[]
  readonly durationMs: number
  readonly warmUpMs: number
  /** Of the searches for the highest load. */
  readonly searchSeeds: readonly number[]
  readonly precision: number
}

const full: Extent = {
  seeds: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
  workers: [8, 16],
  cacheShares: [0.1, 0.25, 0.5],
  loadShares: [0.5, 0.7, 0.9],
  durationMs: 720_000,
  warmUpMs: 240_000,
  searchSeeds: [1, 2, 3],
  limitShares: [0.25],
  precision: 0.04,
}

const quick: Extent = {
  ...full,
  seeds: [1, 2],
  workers: [8],
  cacheShares: [0.25],
  durationMs: 600_000,
  searchSeeds: [1],
  precision: 0.05,
}

const fixture = (name: string): string =>
  fileURLToPath(new URL(`../../test/fixtures/traces/${name}.jsonl`, import.meta.url))

/** Pauses of minutes leave the caches to others for as long, and runs of a quarter of an hour would see nothing else of them. */
const thinkCapMs = 30_000
const timeoutMs = 60_000
const goal = 0.95

const workloads: readonly Workload[] = [
  {
    name: 'agentic',
    path: fixture('agentic_sessions'),
    slo: { ttftMs: 3_000, ttftMsPer1kTokens: 20, itlMs: 50 },
    unit: 'users',
    load: (users, { durationMs, warmUpMs }) => ({ users, thinkCapMs, durationMs, warmUpMs }),
    start: 64,
  },
  {
    name: 'mooncake',
    path: fixture('mooncake_conversation'),
    slo: { ttftMs: 1_000, ttftMsPer1kTokens: 100, itlMs: 50 },
    unit: '× recorded rate',
    load: (rate, { warmUpMs }) => ({ rate, jitterMs: 3_000, warmUpMs: warmUpMs / 2 / rate }),
    start: 1,
  },
]

interface Setting {
  readonly workload: Workload
  readonly extent: Extent
  readonly pool: ReplayPool
  readonly workers: number
  readonly cacheShare: number
  readonly capacityBlocks: number
}

export function run(name: 'agentic' | 'mooncake') {
  return async (words: readonly string[]): Promise<BenchResult[] | Told> => {
    const isQuick = words.includes('quick')
    const workload = workloads.find((one) => one.name === name)
    const fleets = full.workers.filter((count) => words.includes(String(count)))
    const extent = isQuick ? quick : fleets.length > 0 ? { ...full, workers: fleets } : full
    const results = workload === undefined ? [] : await compare(workload, extent)
    if (!isQuick) return results
    printResults(results)
    return { missed: 0 }
  }
}

async function compare(workload: Workload, extent: Extent): Promise<BenchResult[]> {
  const trace = await readTrace(workload.path)
  const { distinctBlocks } = traceFigures(trace)
  const workingSet = (distinctBlocks * trace.blockTokens) / calibration.blockSize
  const pool = new ReplayPool({ path: workload.path, threads: Math.min(2, availableParallelism()) })
  const results: BenchResult[] = []
  for (const workers of extent.workers) {
    for (const cacheShare of extent.cacheShares) {
      const capacityBlocks = Math.floor((workingSet * cacheShare) / workers)
      results.push(...(await compareIn({ workload, extent, pool, workers, cacheShare, capacityBlocks })))
    }
  }
  await pool.close()
  return results
}

const calibration = calibrated('agentic')

async function compareIn(setting: Setting): Promise<BenchResult[]> {
  const { workload, extent, workers, cacheShare } = setting
  const place = `${workload.name}, ${workers} workers, caches of ${cacheShare * 100} %`
  const saturation = await limitOf(setting, oracle, workload.start)
  const results = extent.limitShares.includes(cacheShare) ? await limits(setting, place, saturation) : []
  for (const share of extent.loadShares) {
    const load = workload.unit === 'users' ? Math.max(1, Math.round(saturation * share)) : saturation * share
    const at = `${place}, ${share * 100} % load (${Number(load.toPrecision(3))} ${workload.unit})`
    const runs = await Promise.all(
      [own, oracle, ...others, ...tuned].map(async (compared) => ({
        compared,
        runs: await play(setting, compared, load),
      })),
    )
    const ownTtft = runs[0]?.runs.map(({ ttftMs }) => ttftMs.mean) ?? []
    results.push(...runs.map(({ compared, runs }) => measured(at, compared, runs, ownTtft)))
  }
  return results
}

/** The highest load of every policy, and how many GPUs fewer the default needs for it. */
async function limits(setting: Setting, place: string, saturation: number): Promise<BenchResult[]> {
  const { workload } = setting
  const ownLoad = await limitOf(setting, own, saturation)
  const results = [
    limit(`${place}: ${oracle.name}`, workload, saturation, null),
    limit(`${place}: ${own.name}`, workload, ownLoad, null),
  ]
  for (const other of [...others, ...tuned])
    results.push(limit(`${place}: ${other.name}`, workload, await limitOf(setting, other, saturation / 2), ownLoad))
  return results
}

function play(setting: Setting, { policy }: ComparedPolicy, load: number): Promise<ReplayResult[]> {
  return Promise.all(setting.extent.seeds.map((seed) => setting.pool.run(job(setting, policy, load, seed))))
}

function limitOf(setting: Setting, { policy }: ComparedPolicy, start: number): Promise<number> {
  const { workload, extent, pool } = setting
  return highestLoad({
    inSlo: async (load) => {
      const runs = await Promise.all(extent.searchSeeds.map((seed) => pool.run(job(setting, policy, load, seed))))
      return meanOf(runs.map(({ inSlo }) => inSlo))
    },
    ...{ goal, start, precision: extent.precision },
    whole: workload.unit === 'users',
    most: 4096,
  })
}

function job(setting: Setting, policy: ReplayJob['policy'], load: number, seed: number): ReplayJob {
  const { workload, extent, workers, capacityBlocks } = setting
  return {
    ...{ policy, workers, seed, calibration, capacityBlocks, timeoutMs },
    ...{ load: workload.load(load, extent), slo: workload.slo },
  }
}

function limit(name: string, workload: Workload, load: number, ownLoad: number | null): BenchResult {
  return {
    name: `${name}, highest load with 95 % in SLO`,
    unit: workload.unit,
    value: load,
    samples: [],
    notes: ownLoad === null ? {} : { 'GPUs that the default saves': `${Math.round((1 - load / ownLoad) * 100)} %` },
  }
}

function measured(
  at: string,
  { name }: ComparedPolicy,
  runs: readonly ReplayResult[],
  ownTtft: readonly number[],
): BenchResult {
  const samples = runs.map(({ ttftMs }) => ttftMs.mean)
  const { mean, halfWidth } = estimate(samples)
  const over = pairedDifference(samples, ownTtft)
  const average = (of: (run: ReplayResult) => number): number => meanOf(runs.map(of))
  return {
    name: `${at}: ${name}, mean TTFT over seeds`,
    unit: 'ms',
    value: mean,
    samples,
    notes: {
      '±': halfWidth,
      ...(name === own.name ? {} : { 'more than the default': `${plain(over.mean)} ± ${plain(over.halfWidth)}` }),
      p50: average(({ ttftMs }) => ttftMs.p50),
      p90: average(({ ttftMs }) => ttftMs.p90),
      'in SLO': average(({ inSlo }) => inSlo),
      hits: average(({ hitRatio }) => hitRatio),
      balance: average(({ balance }) => balance),
      'requests/s': average(({ requestsPerSecond }) => requestsPerSecond),
    },
  }
}

function plain(value: number): string {
  return String(Number(value.toPrecision(3)))
}
