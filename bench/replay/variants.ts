/** Variants of policies on recorded workloads, paired over seeds, in virtual time: what the benches of constants and knobs have in common. */
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import type { LoadOptions } from '../../src/replay/arrivals.ts'
import { calibrated } from '../../src/replay/calibration.ts'
import { ReplayPool } from '../../src/replay/pool.ts'
import { meanOf, pairedDifference } from '../../src/replay/statistics.ts'
import type { ReplayResult } from '../../src/replay/summary.ts'
import { readTrace } from '../../src/replay/traces/read.ts'
import { traceFigures } from '../../src/replay/traces/trace.ts'
import type { ProfileChoice } from '../../src/routing/catalogue.ts'
import type { BenchResult } from '../result.ts'

const workers = 8
const calibration = calibrated('agentic')

export interface Setting {
  readonly name: string
  readonly trace: string
  readonly cacheShare: number
  readonly load: LoadOptions
}

const users = { thinkCapMs: 30_000, durationMs: 600_000, warmUpMs: 240_000 }
export const settings: readonly Setting[] = [
  { name: 'agentic, 64 users', trace: 'agentic_sessions', cacheShare: 0.25, load: { ...users, users: 64 } },
  {
    name: 'agentic, small caches, 72 users',
    trace: 'agentic_sessions',
    cacheShare: 0.1,
    load: { ...users, users: 72 },
  },
  {
    name: 'mooncake, 2 ×',
    trace: 'mooncake_conversation',
    cacheShare: 0.5,
    load: { rate: 2, jitterMs: 3_000, warmUpMs: 60_000 },
  },
]

export interface Variant {
  readonly name: string
  readonly policy: ProfileChoice
}

/** The default, and each variant beside it, over so many seeds. */
export async function compareVariants(
  { name, trace, cacheShare, load }: Setting,
  variants: readonly Variant[],
  seedCount = 10,
): Promise<BenchResult[]> {
  const path = fileURLToPath(new URL(`../../test/fixtures/traces/${trace}.jsonl`, import.meta.url))
  const read = await readTrace(path)
  const workingSet = (traceFigures(read).distinctBlocks * read.blockTokens) / calibration.blockSize
  const capacityBlocks = Math.floor((workingSet * cacheShare) / workers)
  const seeds = Array.from({ length: seedCount }, (_, index) => index + 1)
  const pool = new ReplayPool({ path, threads: Math.min(2, availableParallelism()) })
  const play = (policy: string | ProfileChoice): Promise<ReplayResult[]> =>
    Promise.all(seeds.map((seed) => pool.run({ policy, workers, seed, calibration, capacityBlocks, load })))
  const own = await play('kv-aware')
  const ownMs = own.map(({ ttftMs }) => ttftMs.mean)
  const results: BenchResult[] = [
    { name: `${name}: kv-aware, mean TTFT`, unit: 'ms', value: meanOf(ownMs), samples: ownMs, notes: figures(own) },
  ]
  for (const { name: changed, policy } of variants) {
    const runs = await play(policy)
    const ms = runs.map(({ ttftMs }) => ttftMs.mean)
    const { mean, halfWidth } = pairedDifference(ms, ownMs)
    results.push({
      name: `${name}: ${changed}, mean TTFT over that of the default`,
      unit: 'ratio',
      value: meanOf(ms) / meanOf(ownMs),
      samples: ms.map((each, index) => each / (ownMs[index] ?? NaN)),
      notes: { 'more, ms': mean, '±': halfWidth, ...figures(runs) },
    })
  }
  await pool.close()
  return results
}

function figures(runs: readonly ReplayResult[]): Record<string, number> {
  return {
    p50: meanOf(runs.map(({ ttftMs }) => ttftMs.p50)),
    p90: meanOf(runs.map(({ ttftMs }) => ttftMs.p90)),
    hits: meanOf(runs.map(({ hitRatio }) => hitRatio)),
  }
}

/** Each value of each parameter, one at a time. */
export function oneByOne(
  parameters: Readonly<Record<string, readonly number[]>>,
): [name: string, parameters: Record<string, number>][] {
  return Object.entries(parameters).flatMap(([name, values]) =>
    values.map((value): [string, Record<string, number>] => [`${name} ${value}`, { [name]: value }]),
  )
}
