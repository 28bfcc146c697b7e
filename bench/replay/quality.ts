/**
 * Routing quality in virtual time: the quick start's workload, and the same with small caches and with faster arrivals,
 * under every built-in policy and under a greedy oracle that sees the engines' true caches and queues; the router also without
 * prediction on route, with workers that publish no events, and with others' requests on one worker. Seeded: equal commits
 * give equal figures on any machine.
 */
import { oraclePolicy, runVirtual, type VirtualOptions, type VirtualResult } from '../../src/replay/virtual-time.ts'
import { chatWorkloadTokens, type ChatWorkloadOptions } from '../../src/simulator/workload.ts'
import { inTokens, scenario } from '../../scripts/quickstart/scenario.ts'
import { percentile, printResults, type BenchResult } from '../result.ts'

const seeds = [1, 2, 3, 4, 5]
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
const variants: readonly { readonly name: string; readonly more: Partial<VirtualOptions> }[] = [
  { name: 'no prediction on route', more: { predictsOnRoute: false } },
  { name: 'half of the workers without events', more: { withoutEvents: workers / 2 } },
  { name: 'all workers without events', more: { withoutEvents: workers } },
]

interface Measured {
  readonly policy: string
  /** One for each seed. */
  readonly runs: readonly VirtualResult[]
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

/** Half as much traffic again goes straight to one worker: once the router reads the engines' load, once it does not. */
async function amongOthers(): Promise<BenchResult[]> {
  const name = 'quick start, others’ requests on one worker'
  const setting: Setting = { name, workload, capacityBlocks: engine.capacityBlocks, hasGoals: false }
  const others = (seed: number) => ({
    worker: 0,
    conversations: chatWorkloadTokens(inTokens({ ...workload, conversations: 16, seed: seed + 100 })).map((talk) => ({
      ...talk,
      id: `other-${talk.id}`,
    })),
  })
  const heard = await measure(setting, router, {}, others)
  const deaf = await measure(setting, router, { loadIntervalMs: Infinity }, others)
  return [
    ttft(setting, { ...heard, policy: router }),
    ttft(setting, { ...deaf, policy: `${router}, deaf to their load` }),
    ratio(setting, heard.meansMs, deaf.meansMs, 'deaf to their load'),
  ]
}

async function measure(
  { workload, capacityBlocks }: Setting,
  policy: string,
  more: Partial<VirtualOptions> = {},
  others?: (seed: number) => NonNullable<VirtualOptions['others']>,
): Promise<Measured> {
  const runs: VirtualResult[] = []
  for (const seed of seeds) {
    const conversations = chatWorkloadTokens(inTokens({ ...workload, seed }))
    const options = { conversations, workers, engine: { capacityBlocks }, policy, seed, ...more }
    runs.push(await runVirtual(others === undefined ? options : { ...options, others: others(seed) }))
  }
  return { policy, runs, meansMs: runs.map(({ meanTtftMs }) => meanTtftMs) }
}

function ttft({ name }: Setting, { policy, runs, meansMs }: Measured): BenchResult {
  return {
    name: `${name}: ${policy}, mean TTFT over seeds`,
    unit: 'ms',
    value: mean(meansMs),
    samples: meansMs,
    notes: {
      p95: mean(runs.map(({ ttftMs }) => percentile([...ttftMs], 0.95))),
      hits: mean(runs.map(({ hitRatio }) => hitRatio)),
      agreement: mean(runs.map(({ agreement }) => agreement)),
      'on one worker at most': mean(
        runs.map(({ requestsPerWorker, rows }) => Math.max(...requestsPerWorker) / rows.length),
      ),
    },
  }
}

/** The router's mean time to first token over the oracle's, and over those of the policies that it must beat. */
function ratios({ name, hasGoals }: Setting, measured: readonly Measured[]): BenchResult[] {
  const own = measured.find(({ policy }) => policy === router)?.meansMs ?? []
  return measured
    .filter(({ policy }) => policy === oraclePolicy || mustBeat.includes(policy))
    .map(({ policy, meansMs }) => {
      const value = mean(own) / mean(meansMs)
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
  const value = mean(own) / mean(less)
  const isChoice = variant === 'no prediction on route' || variant === 'deaf to their load'
  return {
    name: `${name}: ${router} / ${router}, ${variant}, ratio of mean TTFT`,
    unit: 'ratio',
    value,
    samples: own.map((ms, index) => ms / (less[index] ?? NaN)),
    ...(isChoice ? { goal: '≤ 1', met: value <= 1 } : {}),
  }
}

function mean(samples: readonly number[]): number {
  return samples.reduce((sum, sample) => sum + sample, 0) / samples.length
}

if (import.meta.main) printResults(await run())
