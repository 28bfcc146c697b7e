// What kind of engine an endpoint is, where the config does not say.
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { sglang } from '../../src/simulator/flavours/sglang.ts'
import { vllm } from '../../src/simulator/flavours/vllm.ts'
import { startSimulators, type Simulators } from '../../src/simulator/simulate.ts'
import { loadTokenizer } from '../../src/tokenize/tokenizer.ts'
import { demoTokenizer, fleetFor, model, prose, type Fleet } from '../support/fleet.ts'
import { scriptedEngine } from '../support/scripted-engine.ts'
import { until } from '../support/until.ts'

interface View {
  readonly id: string
  readonly engine: string
  readonly state: string
  readonly blockSize: number | null
  readonly events: { readonly state: string }
}

const views = async (fleet: Fleet): Promise<readonly View[]> =>
  (await fleet.admin<{ workers: readonly View[] }>('/admin/workers')).workers

async function engineAt(httpPort: number, flavour: typeof vllm, ranks = 1): Promise<Simulators> {
  const tokenizer = await loadTokenizer({ path: demoTokenizer })
  return startSimulators({ workers: 1, model, tokenizer, httpPort, worker: { flavour, ranks } })
}

test('an engine of another kind at the same URL is another worker, with nothing of the former one’s cache', async (t) => {
  const first = await engineAt(0, vllm)
  const [url = ''] = first.urls
  const fleet = await fleetFor(t, { workers: 0, urls: [url] })
  const text = prose('kept', 80)
  await (await fleet.chat(text)).text()
  await until(async () => (await views(fleet))[0]?.events.state === 'live', 'its events are live')
  assert.deepEqual(
    (await views(fleet)).map(({ id, engine }) => [id, engine]),
    [[url, 'vllm']],
  )
  await first.stop()
  const second = await engineAt(Number(new URL(url).port), sglang({ cacheReport: true }), 2)
  t.after(() => second.stop())
  await until(async () => {
    const now = await views(fleet)
    return now.length === 2 && now.every(({ state, events }) => state === 'healthy' && events.state === 'live')
  }, 'the new engine has taken its place')
  assert.deepEqual(
    (await views(fleet)).map(({ id, engine }) => [id, engine]),
    [
      [`${url}#0`, 'sglang'],
      [`${url}#1`, 'sglang'],
    ],
  )
  assert(fleet.log.some(({ message }) => message === 'engine is of another kind'))
  const answer = await fleet.chat(text)
  assert.equal(answer.headers.get('x-warmroute-cached-tokens'), '0')
  await answer.text()
})

test('an engine of no known kind is served, its cache concluded from what it is sent, and said to be so', async (t) => {
  const engine = await scriptedEngine(t, (_request, response) => {
    response.writeHead(200, { 'content-type': 'application/json' }).end('{"choices":[]}')
  })
  const fleet = await fleetFor(t, { workers: 0, urls: [engine.url] })
  assert.deepEqual(
    (await views(fleet)).map(({ engine: kind, events }) => [kind, events.state]),
    [['openai', 'absent']],
  )
  assert.equal((await fleet.chat(prose('unknown', 60))).status, 200)
  assert.equal(fleet.log.filter(({ message }) => message.startsWith('the kind of engine is not known')).length, 1)
  const again = await fleet.chat(prose('unknown', 60))
  assert.ok(Number(again.headers.get('x-warmroute-cached-tokens')) >= 48)
})

test('what the config says about the kind of engine is not doubted', async (t) => {
  const fleet = await fleetFor(t, { worker: { engine: 'vllm' } })
  assert.deepEqual(
    (await views(fleet)).map(({ engine }) => engine),
    ['vllm'],
  )
  assert.equal(fleet.worker(0).counters?.requests['/version'] ?? 0, 0)
  assert(!fleet.log.some(({ message }) => message === 'engine recognized'))
})

test('an engine is asked what it is once in its life, and anew when it was gone', async (t) => {
  const fleet = await fleetFor(t)
  const asked = (): number => fleet.worker(0).counters?.requests['/version'] ?? 0
  assert.equal(asked(), 1)
  await fleet.worker(0).restart()
  await until(async () => (await views(fleet))[0]?.events.state === 'live' && asked() > 0, 'it is back')
  assert.equal(asked(), 1)
})

test('an engine that comes back with its events elsewhere is listened to there', async (t) => {
  const first = await engineAt(0, vllm)
  const [url = ''] = first.urls
  const fleet = await fleetFor(t, { workers: 0, urls: [url] })
  const text = prose('moved', 80)
  await (await fleet.chat(text)).text()
  const before = first.workers[0]?.eventEndpoints().events
  await first.stop()
  const second = await engineAt(Number(new URL(url).port), vllm)
  t.after(() => second.stop())
  assert.notEqual(second.workers[0]?.eventEndpoints().events, before)
  await until(async () => {
    const [view] = await views(fleet)
    return view?.state === 'healthy' && view.events.state === 'live'
  }, 'its events are live')
  const cached = async (): Promise<string | null> => {
    const answer = await fleet.chat(text)
    await answer.text()
    return answer.headers.get('x-warmroute-cached-tokens')
  }
  assert.equal(await cached(), '0')
  await until(async () => (await cached()) !== '0', 'what it computed is known')
})

test('an engine that publishes where nobody else can listen serves without events', async (t) => {
  const endpoint = { enable_kv_cache_events: true, publisher: 'zmq', endpoint: 'ipc:///tmp/events', topic: '' }
  const answers: Readonly<Record<string, object>> = {
    '/health': {},
    '/v1/models': { data: [{ id: model, owned_by: 'vllm', parent: null, max_model_len: 4096 }] },
    '/kv_event_sources': { 0: endpoint },
  }
  const server = createServer((request, response) => {
    const answer = request.method === 'GET' ? answers[request.url ?? ''] : { choices: [] }
    response.writeHead(answer === undefined ? 404 : 200, { 'content-type': 'application/json' })
    response.end(JSON.stringify(answer ?? {}))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  const fleet = await fleetFor(t, {
    workers: 0,
    urls: [`http://127.0.0.1:${(server.address() as AddressInfo).port}`],
  })
  assert.deepEqual(
    (await views(fleet)).map(({ engine, state, events }) => [engine, state, events.state]),
    [['vllm', 'healthy', 'absent']],
  )
  assert(fleet.log.some(({ message }) => message === 'cannot listen to what the engine publishes'))
  assert.equal((await fleet.chat('Hi')).status, 200)
})
