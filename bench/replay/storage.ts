/**
 * What caches behind the GPUs bring to agent sessions on 8 workers, two on a node, in virtual time: GPU only, with host memory, with a disk, with
 * a store that all reach; and what routing should make of such a store, which counts nothing (s = 0), a part (0.4) or as much as a GPU's own
 * blocks (1), over networks of several speeds, with the bytes that move.
 *
 *     npm run bench storage            ten seeds
 *     npm run bench storage quick      two, and keeps no results
 */
import { fileURLToPath } from 'node:url'
import { calibrated } from '../../src/replay/calibration.ts'
import { ReplayPool } from '../../src/replay/pool.ts'
import { estimate, meanOf } from '../../src/replay/statistics.ts'
import type { ReplayResult } from '../../src/replay/summary.ts'
import type { TierOptions } from '../../src/replay/tiers.ts'
import { readTrace } from '../../src/replay/traces/read.ts'
import { traceFigures } from '../../src/replay/traces/trace.ts'
import { printResults, type BenchResult, type Told } from '../result.ts'
import { own } from './policies.ts'

const path = fileURLToPath(new URL('../../test/fixtures/traces/agentic_sessions.jsonl', import.meta.url))
const workers = 8
const workersPerNode = 2
const giga = 1e9
const calibration = calibrated('agentic')
/** Users with long pauses: more sessions than the GPUs hold, and no more requests than they can compute. */
const loads = [120, 180, 240]
const thinkCapMs = 300_000
const credits = [0, 0.4, 1]
const gigabytesPerSecond = [1.2, 2.5, 5, 12.5, 25]

interface Setting {
  readonly name: string
  readonly users: number
  readonly tiers?: TierOptions
  readonly sharedBytesPerSecond?: number
}

export async function run(words: readonly string[]): Promise<BenchResult[] | Told> {
  const isQuick = words.includes('quick')
  const seeds = Array.from({ length: isQuick ? 2 : 10 }, (_, index) => index + 1)
  const trace = await readTrace(path)
  const workingSet = (traceFigures(trace).distinctBlocks * trace.blockTokens) / calibration.blockSize
  const share = (part: number, over: number): number => Math.floor((workingSet * part) / over)
  const pool = new ReplayPool({ path, threads: 2 })
  const play = async (setting: Setting): Promise<BenchResult> => {
    const { users, tiers, sharedBytesPerSecond = 5 * giga } = setting
    const runs = await Promise.all(
      seeds.map((seed) =>
        pool.run({
          ...{ policy: own.policy, workers, seed, timeoutMs: 60_000 },
          calibration: { ...calibration, sharedBytesPerSecond },
          capacityBlocks: share(0.1, workers),
          load: { users, thinkCapMs, durationMs: 900_000, warmUpMs: 300_000 },
          slo: { ttftMs: 3_000, ttftMsPer1kTokens: 20, itlMs: 50 },
          ...(tiers === undefined ? {} : { tiers: { ...tiers, workersPerNode } }),
        }),
      ),
    )
    return told(setting, runs)
  }
  const host = { hostBlocks: share(0.15, workers) }
  const shared = { sharedBlocks: share(0.5, 1) }
  const setups: readonly { readonly name: string; readonly tiers?: TierOptions }[] = [
    { name: 'GPU only (10 % of the distinct blocks)' },
    { name: '+ host memory (15 %)', tiers: host },
    { name: '+ host memory and disk (50 %)', tiers: { ...host, diskBlocks: share(0.5, workers) } },
    { name: '+ host memory and shared store (50 %) at 5 GB/s', tiers: { ...host, ...shared } },
  ]
  const results: BenchResult[] = []
  for (const setup of setups) for (const users of loads) results.push(await play({ ...setup, users }))
  for (const bandwidth of gigabytesPerSecond) {
    for (const sharedCredit of credits) {
      const name = `GPU + shared store at ${bandwidth} GB/s a node, s = ${sharedCredit}`
      const tiers = { ...shared, sharedCredit }
      results.push(await play({ name, users: 180, tiers, sharedBytesPerSecond: bandwidth * giga }))
    }
  }
  await pool.close()
  if (!isQuick) return results
  printResults(results)
  return { missed: 0 }
}

function told({ name, users }: Setting, runs: readonly ReplayResult[]): BenchResult {
  const samples = runs.map(({ ttftMs }) => ttftMs.mean)
  const { mean, halfWidth } = estimate(samples)
  const average = (of: (run: ReplayResult) => number): number => meanOf(runs.map(of))
  const moved = runs.every(({ moved }) => moved !== undefined)
  return {
    name: `${name}, ${users} users: mean TTFT over seeds`,
    unit: 'ms',
    value: mean,
    samples,
    notes: {
      '±': halfWidth,
      p50: average(({ ttftMs }) => ttftMs.p50),
      p90: average(({ ttftMs }) => ttftMs.p90),
      'in SLO': average(({ inSlo }) => inSlo),
      'requests/s per worker': average(({ requestsPerSecond }) => requestsPerSecond) / workers,
      'tokens/s per user': average(({ tokensPerSecondPerUser }) => tokensPerSecondPerUser),
      hits: average(({ hitRatio }) => hitRatio),
      ...(moved
        ? {
            'GB from the store': average(({ moved }) => (moved?.shared ?? 0) / giga),
            'of it between nodes': average(({ moved }) => (moved?.betweenNodes ?? 0) / giga),
          }
        : {}),
    },
  }
}
