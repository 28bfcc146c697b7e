/**
 * Routing quality in virtual time: the quick start's workload, and the same with small caches and with faster arrivals,
 * under every built-in policy and under a greedy oracle that sees the engines' true caches and queues; the router also without
 * prediction on route, with workers that publish no events, and with others' requests on one worker. Seeded: equal commits
 * give equal figures on any machine.
 */
import type { ReplayFault } from '../../src/replay/faults.ts'
import { oraclePolicy, replay } from '../../src/replay/replay.ts'
import type { RouterOptions } from '../../src/replay/router.ts'
import { meanOf } from '../../src/replay/statistics.ts'
import { summary, type ReplayResult } from '../../src/replay/summary.ts'
import { chatTrace } from '../../src/replay/traces/chat.ts'
import type { ChatWorkloadOptions } from '../../src/simulator/workload.ts'
import { inTokens, scenario } from '../../scripts/quickstart/scenario.ts'
import { printResults, type BenchResult } from '../result.ts'

const seeds = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
const router = 'kv-aware'
const rivals = ['round-robin', 'least-loaded', 'random', 'power-of-two'] as const
/** Those that the router must beat. */
const mustBeat: readonly string[] = ['round-robin', 'least-loaded']

interface Setting {
  readonly name: string
  readonly workload: Omit<ChatWorkloadOptions, 'seed'>
  readonly capacityBlocks: number
  readonly hasGoals: boolean
}

const { workload, engine, workers } = scenario
const settings: readonly Setting[] = [
  { name: 'quick start', workload, capacityBlocks: engine.capacityBlocks, hasGoals: true },
  // About a quarter of what the conversations and system prompts come to.
  { name: 'small caches', workload, capacityBlocks: 1_200, hasGoals: false },
  {
    name: 'heavy queueing',
    workload: { ...workload, conversations: 96, arrivalGapMs: 20 },
    capacityBlocks: engine.capacityBlocks,
    hasGoals: false,
  },
  {
    name: 'light load',
    workload: { ...workload, arrivalGapMs: 600, thinkMs: 2_000 },
    capacityBlocks: engine.capacityBlocks,
    hasGoals: false,
  },
  {
    name: 'one system prompt',
    workload: { ...workload, systemPrompts: 1, arrivalGapMs: 30 },
    capacityBlocks: engine.capacityBlocks,
    hasGoals: false,
  },
]

/** The router with less to go by. */
const variants: readonly { readonly name: string; readonly more: RouterOptions }[] = [
  { name: 'no prediction on route', more: { predictsOnRoute: false } },
  { name: 'half of the workers without events', more: { withoutEvents: workers / 2 } },
  { name: 'all workers without events', more: { withoutEvents: workers } },
]

interface PlayedSeed extends ReplayResult {
  /** Of all requests, those of the worker that had most of them. */
  readonly largestShare: number
}

interface Measured {
  readonly policy: string
  /** One for each seed. */
  readonly runs: readonly PlayedSeed[]
  readonly meansMs: number[]
}

export async function run(): Promise<BenchResult[]> {
  const results: BenchResult[] = []
  for (const setting of settings) {
    const measured: Measured[] = []
    for (const policy of [oraclePolicy, router, ...rivals]) measured.push(await measure(setting, policy))
    results.push(...measured.map((one) => ttft(setting, one)), ...ratios(setting, measured))
    const own = measured.find(({ policy }) => policy === router)?.meansMs ?? []
    for (const { name, more } of variants) {
      const less = await measure(setting, router, more)
      results.push(ttft(setting, { ...less, policy: `${router}, ${name}` }), ratio(setting, own, less.meansMs, name))
    }
  }
  results.push(...(await amongOthers()))
  return results
}

/** Half as much work again goes straight to one worker: once the router reads the engines' load, once it does not. */
async function amongOthers(): Promise<BenchResult[]> {
  const name = 'quick start, others’ requests on one worker'
  const setting: Setting = { name, workload, capacityBlocks: engine.capacityBlocks, hasGoals: false }
  const others: ReplayFault = {
    ...{ kind: 'foreign', worker: 0, requestsPerSecond: 12, promptTokens: 700, outputTokens: 40 },
    ...{ fromMs: 0, untilMs: 10_000 },
  }
  const heard = await measure(setting, router, {}, [others])
  const deaf = await measure(setting, router, { loadIntervalMs: Infinity }, [others])
  return [
    ttft(setting, { ...heard, policy: router }),
    ttft(setting, { ...deaf, policy: `${router}, deaf to their load` }),
    ratio(setting, heard.meansMs, deaf.meansMs, 'deaf to their load'),
  ]
}

async function measure(
  { workload, capacityBlocks }: Setting,
  policy: string,
  more: RouterOptions = {},
  faults: readonly ReplayFault[] = [],
): Promise<Measured> {
  const runs: PlayedSeed[] = []
  for (const seed of seeds) {
    const trace = chatTrace(inTokens({ ...workload, seed }))
    const run = await replay({ trace, workers, engine: { capacityBlocks }, policy, seed, router: more, faults })
    const perWorker = Array.from({ length: workers }, (_, at) => run.rows.filter(({ worker }) => worker === at).length)
    runs.push({ ...summary(run), largestShare: Math.max(...perWorker) / run.rows.length })
  }
  return { policy, runs, meansMs: runs.map(({ ttftMs }) => ttftMs.mean) }
}

function ttft({ name }: Setting, { policy, runs, meansMs }: Measured): BenchResult {
  return {
    name: `${name}: ${policy}, mean TTFT over seeds`,
    unit: 'ms',
    value: meanOf(meansMs),
    samples: meansMs,
    notes: {
      p90: meanOf(runs.map(({ ttftMs }) => ttftMs.p90)),
      hits: meanOf(runs.map(({ hitRatio }) => hitRatio)),
      agreement: meanOf(runs.map(({ agreement }) => agreement)),
      'on one worker at most': meanOf(runs.map(({ largestShare }) => largestShare)),
    },
  }
}

/** The router's mean time to first token over the oracle's, and over those of the policies that it must beat. */
function ratios({ name, hasGoals }: Setting, measured: readonly Measured[]): BenchResult[] {
  const own = measured.find(({ policy }) => policy === router)?.meansMs ?? []
  return measured
    .filter(({ policy }) => policy === oraclePolicy || mustBeat.includes(policy))
    .map(({ policy, meansMs }) => {
      const value = meanOf(own) / meanOf(meansMs)
      const [goal, met] = policy === oraclePolicy ? ['≤ 1.05', value <= 1.05] : ['< 1', value < 1]
      return {
        name: `${name}: ${router} / ${policy}, ratio of mean TTFT`,
        unit: 'ratio',
        value,
        samples: own.map((ms, index) => ms / (meansMs[index] ?? NaN)),
        ...(hasGoals ? { goal, met } : {}),
      }
    })
}

/** The router's mean time to first token over what it is with less to go by. */
function ratio({ name }: Setting, own: readonly number[], less: readonly number[], variant: string): BenchResult {
  const value = meanOf(own) / meanOf(less)
  const isChoice = variant === 'no prediction on route' || variant === 'deaf to their load'
  return {
    name: `${name}: ${router} / ${router}, ${variant}, ratio of mean TTFT`,
    unit: 'ratio',
    value,
    samples: own.map((ms, index) => ms / (less[index] ?? NaN)),
    ...(isChoice ? { goal: '≤ 1', met: value <= 1 } : {}),
  }
}

if (import.meta.main) printResults(await run())
