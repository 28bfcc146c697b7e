import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as after } from 'node:timers/promises'
import { model } from '../support/fleet.ts'
import { seededRandom } from '../support/random.ts'
import { countCalls } from './accounts.ts'
import type { EngineProcess } from './processes.ts'
import { tally, Verdict, type Scenario } from './scenario.ts'

const slowStart: Scenario = {
  number: '11',
  fault: 'a new engine joins under load',
  promise: '≤ 25 % of its fair share in the first second; fair ±20 % at the end of the slow-start window',
  quick: false,
  async run(rig) {
    const windowMs = rig.size(10_000, 3000)
    const perSecond = rig.size(80, 40)
    const engines = await rig.engines(4)
    const joining = engines.at(-1) as EngineProcess
    const router = await rig.router(engines.slice(0, -1), { config: { outliers: { slowStart: { windowMs } } } })
    const client = rig.client(router)
    // The others must be settled, or all would be new alike.
    const settling = await client.paced(perSecond, windowMs + 500, () => ({ maxTokens: 8 }))
    await fetch(`${router.adminUrl}/admin/workers`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ pool: model, url: joining.url }),
    })
    await router.healthy(4)
    const startMs = performance.now()
    const endMs = windowMs + rig.size(8000, 3000)
    const sent = await client.paced(perSecond, endMs, () => ({ maxTokens: 8 }))
    const at = new Map(router.logged('request').map(({ requestId, worker }) => [requestId, worker]))
    const shareBetween = (fromMs: number, toMs: number): number => {
      const inside = sent.filter(({ sentAtMs }) => sentAtMs - startMs >= fromMs && sentAtMs - startMs < toMs)
      return (inside.filter(({ requestId }) => at.get(requestId) === joining.url).length / inside.length) * 4
    }
    const first = shareBetween(0, 1000)
    const final = shareBetween(windowMs, endMs)
    const verdict = new Verdict()
    verdict.add(`${(first * 100).toFixed(0)} % of a fair share in the first second`, first <= 0.25)
    verdict.add(`${(final * 100).toFixed(0)} % after the window of ${windowMs / 1000} s`, Math.abs(final - 1) <= 0.2)
    verdict.add(
      tally(sent.map(({ status }) => status)),
      sent.every(({ status }) => status === 200),
    )
    await countCalls(verdict, router, engines, settling.length + sent.length)
    const seconds = Array.from({ length: Math.floor(endMs / 1000) }, (_, second) => second * 1000)
    return verdict.finding(seconds.map((fromMs) => shareBetween(fromMs, fromMs + 1000)))
  },
}

const staleConnections: Scenario = {
  number: '12',
  fault: 'an engine closes idle connections after 1 s; 2,000 requests 0.9–1.1 s apart on 8 connections',
  promise: '0 client 502',
  quick: false,
  async run(rig) {
    const idleMs = rig.size(1000, 200)
    let calls = 0
    const server = createServer((request, response) => {
      request.resume().on('end', () => {
        if (request.method === 'POST') calls++
        // No hint of how long the connection is kept: engines give none.
        response.writeHead(request.url === '/tokenize' ? 404 : 200, {
          'content-type': 'application/json',
          connection: 'keep-alive',
        })
        response.end(JSON.stringify({ object: 'list', data: [{ id: model, object: 'model', parent: null }] }))
      })
    })
    server.keepAliveTimeout = idleMs
    // Node adds a second of its own to the time that it is given.
    Object.assign(server, { keepAliveTimeoutBuffer: 0 })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    rig.after(() => {
      server.closeAllConnections()
      server.close()
    })
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const router = await rig.router([{ url }])
    const client = rig.client(router)
    calls = 0
    const random = seededRandom(12)
    const each = rig.size(250, 25)
    const sent = (
      await Promise.all(
        Array.from({ length: 8 }, async () => {
          const statuses: number[] = []
          for (let turn = 0; turn < each; turn++) {
            await after(idleMs * (0.9 + 0.2 * random()))
            statuses.push((await client.chat()).status)
          }
          return statuses
        }),
      )
    ).flat()
    const retries = await router.metric('retries_total')
    const verdict = new Verdict()
    verdict.add(
      `${sent.length} requests: ${tally(sent)}`,
      sent.every((status) => status === 200),
    )
    verdict.add(`${retries} met a connection that was just closing and were sent again`)
    verdict.add(`${calls} upstream calls`, calls <= sent.length + retries)
    return verdict.finding()
  },
}

export const enginesJoin: readonly Scenario[] = [slowStart, staleConnections]
