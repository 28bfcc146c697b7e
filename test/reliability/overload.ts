import { callsOf } from './accounts.ts'
import { elapsed, type Sent, type LoadClient } from './load.ts'
import type { EngineProcess } from './processes.ts'
import type { Rig } from './rig.ts'
import { percentile, tally, Verdict, type Scenario } from './scenario.ts'

/** Sequences that each engine computes at once, and requests that the router gives it. */
const places = 8
const maxTokens = 16

export const overload: Scenario = {
  number: 'overload',
  fault: 'load of 3× what the engines can do, with admission on',
  promise:
    'p99 to the first token of what is admitted within 1.5× of that at 0.9× of capacity; refusals carry retry-after',
  quick: false,
  async run(rig) {
    const engines = await rig.engines(2, '--max-num-seqs', String(places), '--step-ms', '25')
    const verdict = new Verdict()
    const capacity = await throughput(rig, engines)
    verdict.add(`capacity ${capacity.toFixed(1)} requests/s`)
    const queues = [
      ['no queue', { requests: 0 }, true],
      ['the default queue of 256 requests and 2 s, for comparison', {}, false],
    ] as const
    for (const [name, queue, judged] of queues) {
      const client = await admitting(rig, engines, queue)
      const before = await callsOf(engines)
      const durationMs = rig.size(15_000, 3000)
      const below = await client.paced(capacity * 0.9, durationMs, () => ({ stream: true, maxTokens }))
      const startMs = performance.now()
      const above = await client.paced(capacity * 3, durationMs, () => ({ stream: true, maxTokens }))
      const [p99Below, p99Above] = [p99(below), p99(above)]
      const refused = [...below, ...above].filter(({ status }) => status !== 200)
      verdict.add(
        `${name}: p99 ${p99Below.toFixed(0)} → ${p99Above.toFixed(0)} ms (${(p99Above / p99Below).toFixed(2)}×)`,
        !judged || p99Above <= 1.5 * p99Below,
      )
      verdict.add(
        `clients saw ${tally(above.map(({ status }) => status))}`,
        above.every(({ status }) => status === 200 || status === 429),
      )
      verdict.add(
        'each refusal with retry-after',
        refused.every(({ headers }) => headers['retry-after'] !== undefined),
      )
      const served = (above.filter(({ status }) => status === 200).length * 1000) / (performance.now() - startMs)
      verdict.add(`${served.toFixed(1)} served a second`, served >= capacity * 0.8)
      const calls = (await callsOf(engines)) - before
      const answered = below.length + above.length - refused.length
      verdict.add(`${calls} upstream calls for ${answered} requests that were let in`, calls === answered)
    }
    return verdict.finding()
  },
}

/** Whole requests a second with every place taken all the time. */
async function throughput(rig: Rig, engines: readonly EngineProcess[]): Promise<number> {
  const client = await admitting(rig, engines, { requests: 64 })
  const durationMs = rig.size(6000, 2500)
  const load = (forMs: number): Promise<Sent[]> =>
    client.closedLoop(engines.length * places, elapsed(forMs), () => ({ stream: true, maxTokens }))
  await load(1000)
  const startMs = performance.now()
  const sent = await load(durationMs)
  return (sent.length * 1000) / (performance.now() - startMs)
}

async function admitting(rig: Rig, engines: readonly EngineProcess[], queue: object): Promise<LoadClient> {
  const admission = { saturation: { requestsPerWorker: places }, queue }
  const router = await rig.router(engines, { config: { admission } })
  const client = rig.client(router)
  return client
}

function p99(sent: readonly Sent[]): number {
  return percentile(
    sent.flatMap(({ status, firstByteMs }) => (status === 200 ? (firstByteMs ?? []) : [])),
    0.99,
  )
}
