import { Pool } from 'undici'
import { freePort } from '../../test/support/redis-server.ts'
import { until } from '../../test/support/until.ts'
import { median, percentile, type BenchResult } from '../result.ts'
import { cpuNanoseconds, startMeasured, type MeasuredProcess } from './measured-process.ts'
import { RedisProcess } from './redis-process.ts'

const concurrency = 8
/** Long enough for Redis to count as away within it: what is tried before that is measured, too. */
const measureMs = 3000
const healMs = 10_000
const kinds = ['none', 'healthy', 'frozen', 'absent'] as const
type Kind = (typeof kinds)[number]

interface Cost {
  readonly cpuUs: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly requests: number
}

const body = JSON.stringify({
  model: 'model',
  prompt: 'The quick brown fox jumps over the lazy dog. '.repeat(6),
  max_tokens: 4,
})

/** Small requests through one router while its Redis comes and goes, beside those through a router that has none. */
export async function requestPath(rounds: number): Promise<BenchResult[]> {
  const redis = await RedisProcess.start()
  const upstream = await startMeasured(['bench/load/upstream.ts'])
  const adminPort = await freePort()
  const alone = await startMeasured(['bench/load/router.ts', upstream.url])
  const shared = await startMeasured(['bench/load/router.ts', upstream.url, '-', redis.url, String(adminPort)])
  const redisIs = (state: string): Promise<void> =>
    until(async () => (await redisState(adminPort)) === state, `Redis is ${state}`, healMs)
  try {
    const costs: Record<Kind, Cost>[] = []
    for (let round = -1; round < rounds; round++) {
      await redisIs('up')
      const none = await measure(alone)
      const healthy = await measure(shared)
      redis.freeze()
      const frozen = await measure(shared)
      await redisIs('away')
      redis.thaw()
      await redisIs('up')
      await redis.kill()
      const absent = await measure(shared)
      await redisIs('away')
      await redis.restart()
      // The first round warms the compilers up.
      if (round >= 0) costs.push({ none, healthy, frozen, absent })
    }
    return [...kinds.map((kind) => costRow(kind, costs)), ...comparisons(costs)]
  } finally {
    for (const server of [shared, alone, upstream]) server.process.kill()
    await redis.kill()
  }
}

async function redisState(adminPort: number): Promise<string> {
  const answer = await fetch(`http://127.0.0.1:${adminPort}/admin/map`)
  const { replication } = (await answer.json()) as { replication: { redis: { state: string } } }
  return replication.redis.state
}

async function measure(server: MeasuredProcess): Promise<Cost> {
  const pool = new Pool(server.url, { connections: concurrency, pipelining: 1 })
  const tookMs: number[] = []
  const beforeNs = cpuNanoseconds(server)
  const endMs = performance.now() + measureMs
  await Promise.all(
    Array.from({ length: concurrency }, async () => {
      for (let startMs = performance.now(); startMs < endMs; startMs = performance.now()) {
        const answer = await pool.request({
          path: '/v1/completions',
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body,
        })
        await answer.body.dump()
        if (answer.statusCode !== 200) throw new Error(`status ${answer.statusCode}`)
        tookMs.push(performance.now() - startMs)
      }
    }),
  )
  const spentNs = cpuNanoseconds(server) - beforeNs
  await pool.close()
  return {
    cpuUs: spentNs / tookMs.length / 1000,
    p50Ms: median(tookMs),
    p99Ms: percentile(tookMs, 0.99),
    requests: tookMs.length,
  }
}

type Costs = readonly Readonly<Record<Kind, Cost>>[]

function costRow(kind: Kind, costs: Costs): BenchResult {
  const of = (part: keyof Cost): number[] => costs.map((cost) => cost[kind][part])
  return {
    name: `request, Redis ${kind === 'none' ? 'not configured' : kind}: CPU of the router`,
    unit: 'µs',
    value: median(of('cpuUs')),
    samples: of('cpuUs'),
    notes: { 'p50 ms': median(of('p50Ms')), 'p99 ms': median(of('p99Ms')), requests: median(of('requests')) },
  }
}

function comparisons(costs: Costs): BenchResult[] {
  const row = (name: string, unit: string, samples: number[], most?: number): BenchResult => {
    const value = median(samples)
    const goal = most === undefined ? {} : { goal: `≤ ${most}`, met: value <= most }
    return { name, unit, value, samples, ...goal }
  }
  const ratios = (kind: Kind, to: Kind, part: keyof Cost): number[] =>
    costs.map((cost) => cost[kind][part] / cost[to][part])
  return [
    ...(['frozen', 'absent'] as const).flatMap((kind) => [
      row(`${kind} / healthy, CPU a request`, 'ratio', ratios(kind, 'healthy', 'cpuUs'), 1.05),
      row(`${kind} / healthy, p50 of a request`, 'ratio', ratios(kind, 'healthy', 'p50Ms'), 1.05),
      row(
        `${kind} − healthy, p99 of a request`,
        'ms',
        costs.map((cost) => cost[kind].p99Ms - cost.healthy.p99Ms),
        5,
      ),
    ]),
    row('healthy / not configured, CPU a request', 'ratio', ratios('healthy', 'none', 'cpuUs')),
    row('healthy / not configured, p50 of a request', 'ratio', ratios('healthy', 'none', 'p50Ms')),
  ]
}
