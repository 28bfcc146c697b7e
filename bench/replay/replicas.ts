/**
 * A burst through one, two, four and eight replicas of the router, in virtual time: each with a map, counters and a policy of
 * its own, joined by the very messages that they send through Redis, read so many ms later. Each turn comes through any of them,
 * as behind a load balancer that knows of nothing. Seeded: equal commits give equal figures on any machine.
 */
import { replay } from '../../src/replay/replay.ts'
import type { ReplicasOptions } from '../../src/replay/replicated.ts'
import { meanOf } from '../../src/replay/statistics.ts'
import { summary, type ReplayResult } from '../../src/replay/summary.ts'
import { chatTrace } from '../../src/replay/traces/chat.ts'
import type { ChatWorkloadOptions } from '../../src/simulator/workload.ts'
import { inTokens, scenario } from '../../scripts/quickstart/scenario.ts'
import { printResults, type BenchResult } from '../result.ts'

const seeds = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
/** As `redis.shareMs` is by default. */
const shareMs = 1

interface Setting {
  readonly name: string
  readonly workload: Omit<ChatWorkloadOptions, 'seed'>
  readonly workers: number
  readonly withoutEvents: number
  readonly hasGoals: boolean
}

const burst = { ...scenario.workload, conversations: 128, systemPrompts: 12, turns: 4, arrivalGapMs: 4 }
const settings: readonly Setting[] = [
  { name: 'burst', workload: burst, workers: 8, withoutEvents: 0, hasGoals: true },
  { name: 'burst, no events', workload: burst, workers: 8, withoutEvents: 8, hasGoals: true },
  { name: 'quick start', workload: scenario.workload, workers: 4, withoutEvents: 0, hasGoals: true },
  {
    name: 'one prompt 64 times in 130 ms',
    workload: { ...scenario.workload, conversations: 64, systemPrompts: 1, turns: 1, arrivalGapMs: 2 },
    workers: 8,
    withoutEvents: 0,
    hasGoals: false,
  },
]

interface Variant {
  readonly name: string
  readonly replicas?: ReplicasOptions
  readonly hasGoals?: boolean
}

interface PlayedSeed extends ReplayResult {
  /** Prompt tokens that the busiest worker computed, over the mean. */
  readonly computedBalance: number
}

const variants: readonly Variant[] = [
  { name: '1 replica' },
  { name: '2 replicas, 1 ms apart', replicas: { count: 2, delayMs: 1, shareMs } },
  { name: '4 replicas, 1 ms apart', replicas: { count: 4, delayMs: 1, shareMs } },
  { name: '8 replicas, 1 ms apart', replicas: { count: 8, delayMs: 1, shareMs }, hasGoals: true },
  { name: '8 replicas, 10 ms apart', replicas: { count: 8, delayMs: 10, shareMs } },
  { name: '8 replicas, 1 ms apart, a message every 5 ms at most', replicas: { count: 8, delayMs: 1, shareMs: 5 } },
  { name: '8 replicas that share nothing', replicas: { count: 8, delayMs: null, shareMs } },
]

export async function run(): Promise<BenchResult[]> {
  const results: BenchResult[] = []
  for (const setting of settings) {
    let one: readonly PlayedSeed[] = []
    for (const variant of variants) {
      const runs = await play(setting, variant)
      if (variant.replicas === undefined) one = runs
      results.push(...told(setting, variant, runs, one))
    }
  }
  return results
}

async function play({ workload, workers, withoutEvents }: Setting, { replicas }: Variant): Promise<PlayedSeed[]> {
  const runs: PlayedSeed[] = []
  for (const seed of seeds) {
    const run = await replay({
      ...{
        trace: chatTrace(inTokens({ ...workload, seed })),
        workers,
        seed,
        policy: 'kv-aware',
        engine: scenario.engine,
      },
      router: { withoutEvents, ...(replicas === undefined ? {} : { replicas }) },
    })
    const computed = new Float64Array(workers)
    for (const { worker, promptTokens, cachedTokens } of run.rows)
      computed[worker] = (computed[worker] ?? 0) + promptTokens - cachedTokens
    runs.push({ ...summary(run), computedBalance: Math.max(...computed) / meanOf([...computed]) })
  }
  return runs
}

function told(
  setting: Setting,
  variant: Variant,
  runs: readonly PlayedSeed[],
  one: readonly PlayedSeed[],
): BenchResult[] {
  const name = `${setting.name}: ${variant.name}`
  const hits = mean(runs, hitsOf) / mean(one, hitsOf)
  const balance = mean(runs, balanceOf) / mean(one, balanceOf)
  const hasGoals = setting.hasGoals && variant.hasGoals === true
  const ratio = (value: number): number => Number(value.toFixed(3))
  return [
    {
      name: `${name}, hit ratio over seeds`,
      unit: 'ratio',
      value: mean(runs, hitsOf),
      samples: runs.map(hitsOf),
      ...(hasGoals ? { goal: '≥ 0.98 of one replica’s', met: hits >= 0.98 } : {}),
      notes: { 'of one': ratio(hits), 'mean TTFT in ms': mean(runs, ({ ttftMs }) => ttftMs.mean) },
    },
    {
      name: `${name}, prompt tokens computed by the busiest worker over the mean`,
      unit: 'ratio',
      value: mean(runs, balanceOf),
      samples: runs.map(balanceOf),
      ...(hasGoals ? { goal: '≤ 1.02 of one replica’s', met: balance <= 1.02 } : {}),
      notes: { 'of one': ratio(balance) },
    },
  ]
}

const hitsOf = ({ hitRatio }: PlayedSeed): number => hitRatio
const balanceOf = ({ computedBalance }: PlayedSeed): number => computedBalance

function mean(runs: readonly PlayedSeed[], of: (run: PlayedSeed) => number): number {
  return meanOf(runs.map(of))
}

if (import.meta.main) printResults(await run())
