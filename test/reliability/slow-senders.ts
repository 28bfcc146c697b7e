import { model } from '../support/fleet.ts'
import { percentile, tally, Verdict, type Scenario } from './scenario.ts'
import { slowSender } from './slow-client.ts'

/** How late Node looks for connections that are over their time, and what a busy machine adds. */
const noticedMs = 2500

export const slowSenders: Scenario = {
  number: '17',
  fault: 'a 10 MB body; 500 senders of 1 header byte/s; a body at 1 byte/s',
  promise: '413, 408 or a close at the limit; a healthy client’s p99 < 2× its baseline',
  quick: false,
  async run(rig) {
    const headersMs = rig.size(10_000, 2000)
    const requestMs = rig.size(15_000, 3000)
    const engines = await rig.engines(1)
    const router = await rig.router(engines, {
      config: { limits: { bodyBytes: 8 * 1024 * 1024 }, timeouts: { headersMs, requestMs } },
    })
    const client = rig.client(router)
    const healthy = async (): Promise<number> => {
      const sent = await client.paced(20, requestMs)
      return percentile(
        sent.map(({ totalMs }) => totalMs),
        0.99,
      )
    }
    await client.burst(20)
    const baselineMs = await healthy()
    const deadlineMs = requestMs + 2 * noticedMs
    const heads = Array.from({ length: rig.size(500, 100) }, () =>
      slowSender(router.url, {
        atOnce: 'POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n',
        slowly: 'x-slow: y\r\n',
        everyMs: 1000,
        deadlineMs,
      }),
    )
    const bodies = Array.from({ length: rig.size(100, 20) }, () =>
      slowSender(router.url, {
        atOnce:
          'POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n',
        slowly: '{"model": ',
        everyMs: 1000,
        deadlineMs,
      }),
    )
    const large = client.post(
      '/v1/chat/completions',
      JSON.stringify({ model, messages: [{ role: 'user', content: 'x'.repeat(10_000_000) }] }),
    )
    const attackedMs = await healthy()
    const [slowHeads, slowBodies] = [await Promise.all(heads), await Promise.all(bodies)]
    const { status } = await large
    const verdict = new Verdict()
    verdict.add(`10 MB: ${status}`, status === 413)
    for (const [name, ended, limitMs] of [
      ['heads', slowHeads, headersMs],
      ['bodies', slowBodies, requestMs],
    ] as const) {
      const slowestMs = Math.max(...ended.map(({ afterMs }) => afterMs))
      verdict.add(
        `${name}: ${tally(ended.map((one) => one.status ?? 'still open'))}, the last after ${(slowestMs / 1000).toFixed(1)} s of ${limitMs / 1000} s`,
        ended.every((one) => one.status === 408 || one.status === 0) && slowestMs <= limitMs + noticedMs,
      )
    }
    verdict.add(
      `healthy client’s p99 ${baselineMs.toFixed(0)} → ${attackedMs.toFixed(0)} ms`,
      attackedMs < 2 * baselineMs,
    )
    return verdict.finding()
  },
}
