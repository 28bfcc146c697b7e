/** What each guard of the request path costs by itself; the same work many times, the median of several runs. */
import { Admission } from '../../src/admission/admission.ts'
import { ApiKeys, hashOfKey } from '../../src/admission/api-keys.ts'
import { anonymous } from '../../src/admission/caller.ts'
import { PoolRoom } from '../../src/main/pool-room.ts'
import { EventBoundary, streamEnd } from '../../src/proxy/sse.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import { Fleet } from '../../src/workers/fleet.ts'
import { Outliers } from '../../src/workers/outliers.ts'
import { newPool, Pools } from '../../src/workers/pool.ts'
import { checkConfig } from '../../src/config/load.ts'
import { aWorker } from '../../test/support/routing.ts'
import { median, printResults, type BenchResult } from '../result.ts'

const runs = 7
const timesARun = 50_000
const workers = 256
const config = checkConfig({ workerUrls: ['http://127.0.0.1:1'] })
const clock = (): number => performance.now()

export function run(): BenchResult[] {
  const fleet = new Fleet(workers)
  const pools = new Pools()
  const pool = newPool('model')
  pools.add(pool)
  for (let i = 0; i < workers; i++) {
    const load = { running: 40, waiting: 20, kvUsage: 0.9, source: 'poll' as const, atMs: clock() + 3_600_000 }
    const worker = fleet.add((slot, serial) => aWorker(i, { slot, serial, load }))
    if (worker !== null) pool.workers.push(worker)
  }
  const quiet = (): void => undefined
  const parts = { limits: config.outliers, clock, random: Math.random }
  const outliers = new Outliers({ ...parts, onEjected: quiet, onReturned: quiet, onPanic: quiet })
  const { requestsPerWorker = null, ...saturation } = config.admission.saturation
  const room = new PoolRoom({ pools, fleet, clock, limits: { ...saturation, requestsPerWorker, staleMs: 3000 } })
  for (const worker of pool.workers) room.read(worker)
  const admission = new Admission({
    settings: config.admission,
    hasRoom: () => true,
    clock,
    after: () => quiet,
    metrics: createMetrics(),
  })
  const keys = new ApiKeys(Array.from({ length: 100 }, (_, i) => ({ id: `key-${i}`, hash: hashOfKey(`bench-${i}`) })))
  const chunk = Buffer.from(
    `data: ${JSON.stringify({ id: 'x'.repeat(40), choices: [{ delta: { content: ' word' } }] })}\n\n`,
  )
  const boundary = new EventBoundary(1 << 20)
  const marks = ['data: [DONE]', 'data:[DONE]']
  const tried = new Set<number>()
  const entry = { caller: anonymous, pool: 'model', promptTokens: 100, priority: 0, onGone: quiet }

  return [
    timed(
      `who may be chosen of ${workers} workers (ejection, slow start, back-pressure)`,
      () => outliers.eligible(pool.workers, tried).length,
    ),
    timed(`whether a pool has room, ${workers} saturated workers asked`, () => (room.hasRoom('model', 0) ? 1 : 0)),
    timed('admission: enter, sent, done', () => {
      const pass = admission.tryEnter(entry)
      pass?.sent()
      pass?.done(10)
      return 1
    }),
    timed('an API key, among 100', () => keys.authenticate({ authorization: 'Bearer bench-50' }).weight),
    timed('one event of a stream: whole, and not the last', () => streamEnd(boundary.push(chunk), marks)),
  ]
}

let sink = 0

function timed(name: string, work: () => number): BenchResult {
  const samples: number[] = []
  for (let run = -1; run < runs; run++) {
    const startMs = performance.now()
    for (let i = 0; i < timesARun; i++) sink += work()
    if (run >= 0) samples.push(((performance.now() - startMs) / timesARun) * 1000)
  }
  if (Number.isNaN(sink)) throw new Error('the work must not be optimized away')
  return { name, unit: 'µs', value: median(samples), samples }
}

if (import.meta.main) printResults(run())
