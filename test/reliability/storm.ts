import { setTimeout as after } from 'node:timers/promises'
import type { FakeEngine } from '../events/fake-engine.ts'
import { encodeMsgpack } from '../support/msgpack.ts'
import { histogramQuantile } from './processes.ts'
import { tally, Verdict, type Scenario } from './scenario.ts'
import { knownBlocks, stored, tellingEngine } from './telling-engine.ts'

const blocksAChain = 50
const chainsABatch = 10
const blocksABatch = blocksAChain * chainsABatch

/** Batches of 500 blocks each, encoded ahead of the storm; all differ. */
export function batches(count: number): Buffer[] {
  return Array.from({ length: count }, (_, batch) => {
    const chains = Array.from({ length: chainsABatch }, (_, index) => batch * chainsABatch + index)
    return encodeMsgpack([2000 + batch, chains.map((chain) => stored(chain, 0, blocksAChain)), 0])
  })
}

/** Publishes the batches at a steady pace; answers the blocks a second that it came to. */
export async function blow(events: FakeEngine, payloads: readonly Buffer[], blocksPerSecond: number): Promise<number> {
  const startMs = performance.now()
  for (const [index, payload] of payloads.entries()) {
    const dueMs = startMs + (index * blocksABatch * 1000) / blocksPerSecond
    const waitMs = dueMs - performance.now()
    if (waitMs > 1) await after(waitMs)
    events.raw(payload)
  }
  return (payloads.length * blocksABatch * 1000) / (performance.now() - startMs)
}

export const storm: Scenario = {
  number: '35',
  fault: 'a storm of 50,000 KV blocks/s for 30 s',
  promise: 'event-loop delay p99 < 20 ms, routing p99 < 5 ms; the map stays inside its budget; (memory: see soak)',
  quick: false,
  async run(rig) {
    const budgetBytes = rig.size(48, 8) * 1024 * 1024
    const seconds = rig.size(30, 4)
    const perSecond = 50_000
    const payloads = batches((seconds * perSecond) / blocksABatch)
    const telling = await tellingEngine(rig, { budgetBytes })
    const { router } = telling
    const client = rig.client(router)
    await client.burst(20)
    const rssBefore = router.rssMiB
    const delays: number[] = []
    const over = { is: false }
    let mostBytes = 0
    await router.metricsText()
    const watch = (async () => {
      while (!over.is) {
        await after(1000)
        const text = await router.metric('event_loop_delay_seconds', { quantile: '0.99' })
        delays.push(text * 1000)
        mostBytes = Math.max(mostBytes, await router.metric('map_bytes'))
      }
    })()
    const load = client.paced(50, seconds * 1000)
    const rate = await blow(telling.events, payloads, perSecond)
    const sent = await load
    over.is = true
    await watch
    const worstMs = Math.max(...delays)
    const routingMs = 1000 * histogramQuantile(await router.metricsText(), 'decision_seconds', 0.99)
    const verdict = new Verdict()
    verdict.add(`${Math.round(rate / 1000)}k blocks/s for ${seconds} s`, rate > perSecond * 0.9)
    verdict.add(`worst event-loop delay p99 of any second ${worstMs.toFixed(1)} ms`, worstMs < 20)
    verdict.add(`routing p99 ≤ ${routingMs.toFixed(2)} ms`, routingMs < 5)
    verdict.add(
      `map at most ${(mostBytes / 2 ** 20).toFixed(0)} of ${budgetBytes / 2 ** 20} MiB, ${await knownBlocks(telling)} blocks`,
      mostBytes <= budgetBytes,
    )
    verdict.add(`memory grew by ${(router.rssMiB - rssBefore).toFixed(0)} MiB`)
    verdict.add(`gaps: ${await router.metric('kv_event_gaps_total')}`)
    verdict.add(
      `${sent.length} requests: ${tally(sent.map(({ status }) => status))}`,
      sent.every(({ status }) => status === 200),
    )
    return verdict.finding(delays)
  },
}
