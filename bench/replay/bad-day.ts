/**
 * What a bad day does to agent sessions on 8 workers, in virtual time: an engine restarts, events are lost, others drive out what is
 * cached, the router restarts or has replicas, workers join empty, one becomes slow, capacities are taken for what they are not. Told are the
 * requests out of SLO beyond those of the same run without the fault, and the seconds until as many miss as before.
 *
 *     npm run bench bad-day            ten seeds
 *     npm run bench bad-day quick      two, and keeps no results
 */
import { fileURLToPath } from 'node:url'
import { calibrated } from '../../src/replay/calibration.ts'
import type { ReplayFault } from '../../src/replay/faults.ts'
import type { ReplayJob } from '../../src/replay/job.ts'
import { ReplayPool } from '../../src/replay/pool.ts'
import { recovery } from '../../src/replay/recovery.ts'
import type { RouterOptions } from '../../src/replay/router.ts'
import { estimate } from '../../src/replay/statistics.ts'
import type { ReplayResult } from '../../src/replay/summary.ts'
import { readTrace } from '../../src/replay/traces/read.ts'
import { traceFigures } from '../../src/replay/traces/trace.ts'
import { printResults, type BenchResult, type Told } from '../result.ts'
import { cacheAware, oracle, own, type ComparedPolicy } from './policies.ts'

const path = fileURLToPath(new URL('../../test/fixtures/traces/agentic_sessions.jsonl', import.meta.url))
const workers = 8
const users = 56
const cacheShare = 0.25
const warmUpMs = 240_000
const faultMs = 360_000
const durationMs = 900_000
const calibration = calibrated('agentic')

interface BadDay {
  readonly name: string
  readonly faults?: readonly ReplayFault[]
  readonly router?: RouterOptions
  /** Whether it happens at one time, after which all may be well again. */
  readonly isSudden: boolean
}

const days: readonly BadDay[] = [
  {
    name: 'an engine restarts, 30 s',
    faults: [{ kind: 'restart', worker: 0, atMs: faultMs, downMs: 30_000 }],
    isSudden: true,
  },
  {
    name: '1 % of events lost and replayed',
    faults: [{ kind: 'lost-events', share: 0.01, repair: 'replay' }],
    isSudden: false,
  },
  {
    name: '1 % of events lost for good',
    faults: [{ kind: 'lost-events', share: 0.01, repair: 'forget' }],
    isSudden: false,
  },
  {
    name: 'foreign prompts for a minute',
    faults: [
      {
        ...{ kind: 'foreign', requestsPerSecond: 0.2, promptTokens: 30_000, outputTokens: 100 },
        ...{ fromMs: faultMs, untilMs: faultMs + 60_000 },
      },
    ],
    isSudden: true,
  },
  {
    name: 'the router restarts, engines keep 10,000 batches',
    faults: [{ kind: 'router-restart', atMs: faultMs, keptBatches: 10_000 }],
    isSudden: true,
  },
  {
    name: 'the router restarts, engines keep nothing',
    faults: [{ kind: 'router-restart', atMs: faultMs, keptBatches: 0 }],
    isSudden: true,
  },
  { name: '2 replicas', router: { replicas: { count: 2, delayMs: 1, shareMs: 1 } }, isSudden: false },
  { name: '8 replicas', router: { replicas: { count: 8, delayMs: 1, shareMs: 1 } }, isSudden: false },
  { name: '4 empty workers join', faults: [{ kind: 'scale-out', workers: 4, atMs: faultMs }], isSudden: true },
  {
    name: 'a worker at a third of its speed',
    faults: [{ kind: 'slow', worker: 0, atMs: faultMs, factor: 3 }],
    isSudden: true,
  },
  { name: 'no events', router: { withoutEvents: workers }, isSudden: false },
  {
    name: 'no events, caches taken for 4 times as large',
    router: { withoutEvents: workers, capacityFactor: 4 },
    isSudden: false,
  },
  {
    name: 'no events, caches taken for a quarter',
    router: { withoutEvents: workers, capacityFactor: 0.25 },
    isSudden: false,
  },
]

export async function run(words: readonly string[]): Promise<BenchResult[] | Told> {
  const isQuick = words.includes('quick')
  const seeds = Array.from({ length: isQuick ? 2 : 10 }, (_, index) => index + 1)
  const trace = await readTrace(path)
  const workingSet = (traceFigures(trace).distinctBlocks * trace.blockTokens) / calibration.blockSize
  const capacityBlocks = Math.floor((workingSet * cacheShare) / workers)
  const pool = new ReplayPool({ path, threads: 2 })
  const results: BenchResult[] = []
  for (const compared of [own, oracle, ...cacheAware]) {
    const play = (day: Omit<BadDay, 'name' | 'isSudden'>): Promise<ReplayResult[]> =>
      Promise.all(seeds.map((seed) => pool.run(job(compared, day, capacityBlocks, seed))))
    const healthy = await play({})
    for (const day of days) results.push(told(compared, day, await play(day), healthy))
  }
  await pool.close()
  if (!isQuick) return results
  printResults(results)
  return { missed: 0 }
}

function job(
  { policy }: ComparedPolicy,
  { faults = [], router = {} }: Omit<BadDay, 'name' | 'isSudden'>,
  capacityBlocks: number,
  seed: number,
): ReplayJob {
  return {
    ...{ policy, workers, seed, calibration, capacityBlocks, faults, router, timeoutMs: 60_000 },
    load: { users, thinkCapMs: 30_000, durationMs, warmUpMs },
    slo: { ttftMs: 3_000, ttftMsPer1kTokens: 20, itlMs: 50 },
  }
}

function told(
  { name }: ComparedPolicy,
  day: BadDay,
  runs: readonly ReplayResult[],
  healthy: readonly ReplayResult[],
): BenchResult {
  const misses = (run: ReplayResult | undefined): number => (run === undefined ? NaN : run.requests * (1 - run.inSlo))
  const samples = runs.map((run, index) => misses(run) - misses(healthy[index]))
  const { mean, halfWidth } = estimate(samples)
  const timelines = runs.map(({ timeline }) => timeline)
  const { recoveredMs } = recovery(timelines, { faultMs, wellFromMs: warmUpMs, untilMs: durationMs })
  return {
    name: `${day.name}: ${name}, further requests out of SLO in ${(durationMs - warmUpMs) / 60_000} minutes`,
    unit: 'requests',
    value: mean,
    samples,
    notes: {
      '±': halfWidth,
      'in SLO': runs.reduce((sum, { inSlo }) => sum + inSlo, 0) / runs.length,
      ...(day.isSudden
        ? { 'seconds to recover': recoveredMs === Infinity ? 'not recovered' : recoveredMs / 1000 }
        : {}),
    },
  }
}

if (import.meta.main) await run(process.argv.slice(2))
