import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import type { DecisionRecord } from '../../src/routing/decisions.ts'
import { loadTokenizer } from '../../src/tokenize/tokenizer.ts'
import { systemClock } from '../../src/zmtp/clock.ts'
import { PubSocket } from '../../src/zmtp/pub-socket.ts'
import { SubSocket } from '../../src/zmtp/sub-socket.ts'
import { demoTokenizer, fleetFor, model, prose, type Fleet } from '../support/fleet.ts'
import { scriptedEngine } from '../support/scripted-engine.ts'
import { until } from '../support/until.ts'
import { startSimulators } from '../../src/simulator/simulate.ts'

interface Usage {
  readonly usage: { readonly prompt_tokens_details: { readonly cached_tokens: number } }
}

async function cached(fleet: Fleet, text: string): Promise<{ worker: string; predicted: number; actual: number }> {
  const answer = await fleet.chat(text)
  const body = await answer.text()
  assert.equal(answer.status, 200, body)
  return {
    worker: answer.headers.get('x-warmroute-worker') ?? '',
    predicted: Number(answer.headers.get('x-warmroute-cached-tokens')),
    actual: (JSON.parse(body) as Usage).usage.prompt_tokens_details.cached_tokens,
  }
}

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'warmroute-'))
  t.after(() => rmSync(path, { recursive: true }))
  return path
}

test('a worker that tokenizes differently serves on without credit, and says so loudly', async (t) => {
  const chatTemplatePath = join(folder(t), 'other.jinja')
  writeFileSync(
    chatTemplatePath,
    `{%- for message in messages %}{{ '<|im_start|>' + message.role + '\\n\\n' + message.content + '<|im_end|>' }}{%- endfor %}`,
  )
  const tokenizer = await loadTokenizer({ path: demoTokenizer, chatTemplatePath })
  const other = await startSimulators({ workers: 1, model, tokenizer })
  t.after(() => other.stop())
  const same = await startSimulators({ workers: 1, model, tokenizer: await loadTokenizer({ path: demoTokenizer }) })
  t.after(() => same.stop())
  const fleet = await fleetFor(t, { workers: 0, urls: [...other.urls, ...same.urls] })
  await until(async () => (await fleet.workers())[0]?.degraded === 'tokenizer_differs', 'the difference is found')
  assert.equal((await fleet.workers())[1]?.degraded, undefined, 'a worker is what is distrusted, not its pool')
  const lines = fleet.log.filter(({ level, message }) => level === 'error' && message.includes('tokenizing differs'))
  assert.equal(lines.length, 1)
  assert.equal(lines[0]?.fields['worker'], other.urls[0])
  assert.equal(await fleet.metric('worker_degraded', { reason: 'tokenizer_differs' }), 1)
  assert.equal(await fleet.metric('tokenizer_probes_total', { result: 'different' }), 1)
  assert.equal(await fleet.metric('tokenizer_probes_total', { result: 'equal' }), 1)
  const served = new Set<string>()
  for (let request = 0; request < 6; request++) {
    const answer = await cached(fleet, prose(`differs ${request}`, 40))
    served.add(answer.worker)
    if (answer.worker === other.urls[0]) assert.equal(answer.predicted, 0)
  }
  assert.equal(served.size, 2, 'it still serves')
})

test('a worker without /tokenize is unverified, and credited', async (t) => {
  const [engine] = (await startedBehind(t)).urls
  const front = await scriptedEngine(t, (request, response) => {
    void fetch(`${engine ?? ''}${request.url}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: request.body.toString(),
    }).then(async (answer) => {
      response.writeHead(answer.status, { 'content-type': 'application/json' }).end(await answer.text())
    })
  })
  const { events, replay } = behind.eventEndpoints
  const fleet = await fleetFor(t, {
    workers: 0,
    urls: [front.url],
    worker: { blockSize: 16, events: { endpoint: events, replay } },
  })
  await until(
    async () => (await fleet.metric('tokenizer_probes_total', { result: 'unverified' })) === 1,
    'the probe is done',
  )
  const text = prose('unverified', 100)
  await cached(fleet, text)
  await until(async () => ((await fleet.workers())[0]?.map.blocks.gpu ?? 0) > 5, 'the events have come')
  const again = await cached(fleet, text)
  assert.ok(again.predicted > 50)
  assert.equal(again.predicted, again.actual)
  assert.equal((await fleet.workers())[0]?.degraded, undefined)
})

const behind = { eventEndpoints: { events: '', replay: '' } }
async function startedBehind(t: TestContext): Promise<{ urls: readonly string[] }> {
  const started = await startSimulators({ workers: 1, model, tokenizer: await loadTokenizer({ path: demoTokenizer }) })
  t.after(() => started.stop())
  const [worker] = started.workers
  if (worker !== undefined) behind.eventEndpoints = worker.eventEndpoints()
  return started
}

test('a worker whose predictions fail is routed by load only within 100 requests, and believed again when they come true', async (t) => {
  const [engine = ''] = (await startedBehind(t)).urls
  // An engine that finds what another salt or template would: nothing of what its events tell.
  let findsNothing = true
  const front = await scriptedEngine(t, (request, response) => {
    void fetch(engine + request.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: request.body.toString(),
    }).then(async (answer) => {
      const text = await answer.text()
      response.writeHead(answer.status, { 'content-type': 'application/json' })
      response.end(findsNothing ? text.replace(/"cached_tokens":\d+/, '"cached_tokens":0') : text)
    })
  })
  const { events, replay } = behind.eventEndpoints
  const worker = { blockSize: 16, events: { endpoint: events, replay } }
  const fleet = await fleetFor(t, { workers: 0, urls: [front.url], worker })
  const text = prose('believed', 100)
  await cached(fleet, text)
  await until(async () => ((await fleet.workers())[0]?.map.blocks.gpu ?? 0) > 5, 'the events have come')
  let requests = 0
  while ((await fleet.workers())[0]?.degraded === undefined && requests < 100) {
    await cached(fleet, text)
    requests++
  }
  assert.equal((await fleet.workers())[0]?.degraded, 'predictions_fail')
  const lines = fleet.log.filter(({ level, message }) => level === 'error' && message.includes('predictions'))
  assert.equal(lines.length, 1)
  assert.match(lines[0]?.message ?? '', /finds less cached than its events tell/)
  assert.equal(await fleet.metric('worker_degraded', { reason: 'predictions_fail' }), 1)
  assert.equal((await cached(fleet, text)).predicted, 0, 'it gets no credit')
  assert.equal((await fleet.decisions(1))[0]?.fallback, 'predictions_fail')
  findsNothing = false
  for (requests = 0; requests < 100 && (await fleet.workers())[0]?.degraded !== undefined; requests++)
    await cached(fleet, text)
  const again = await cached(fleet, text)
  assert.ok(again.predicted > 50)
  assert.equal(again.predicted, again.actual)
})

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

for (const topic of ['kv@engine-a', undefined]) {
  test(`an engine that dials in is known by its ${topic === undefined ? 'address' : 'topic'}`, async (t) => {
    const port = await freePort()
    const bind = `tcp://127.0.0.1:${port}`
    const fleet = await fleetFor(t, {
      workers: 1,
      awaitEvents: false,
      simulators: { worker: { topic: topic ?? '' } },
      worker: { events: { bind, ...(topic === undefined ? {} : { topic }) } },
    })
    // The engine listens; what it publishes is carried to the router, to which this connects as a dialling engine does.
    const publisher = new PubSocket({ clock: systemClock, random: Math.random })
    t.after(() => publisher.close())
    publisher.connect(bind)
    const listener = new SubSocket({
      clock: systemClock,
      random: Math.random,
      topics: [''],
      onMessage: (frames) => void publisher.send(frames),
    })
    t.after(() => listener.close())
    listener.connect(fleet.worker(0).eventEndpoints().events)
    await until(
      () => publisher.subscribers > 0 && (fleet.worker(0).publishers[0]?.subscribers ?? 0) > 0,
      'both are connected',
    )
    const text = prose('dialled', 100)
    await cached(fleet, text)
    await fleet.settled()
    const again = await cached(fleet, text)
    assert.ok(again.predicted > 50)
    assert.equal(again.predicted, again.actual)
    assert.equal((await fleet.workers())[0]?.events.state, 'live')
  })
}

for (const given of [{}, { ranks: 2 }]) {
  test(`each data-parallel rank is a worker (${'ranks' in given ? 'configured' : 'learned'})`, async (t) => {
    const fleet = await fleetFor(t, { workers: 1, simulators: { worker: { ranks: 2 } }, worker: given })
    const [url] = fleet.simulators.urls
    assert.deepEqual(
      (await fleet.workers()).map(({ id, rank }) => [id, rank]),
      [
        [`${url}#0`, 0],
        [`${url}#1`, 1],
      ],
    )
    const texts = Array.from({ length: 6 }, (_, index) => prose(`rank ${index}`, 60))
    const first = new Map<string, string>()
    for (const text of texts) {
      const { worker } = await cached(fleet, text)
      first.set(text, worker)
      await fleet.settled()
    }
    assert.equal(new Set(first.values()).size, 2, 'both ranks are used')
    const finished = fleet.worker(0).stats.map((stats) => stats.finished)
    assert.deepEqual(
      finished,
      [0, 1].map((rank) => [...first.values()].filter((worker) => worker === `${url}#${rank}`).length),
      'the engine ran each request on the rank that was chosen',
    )
    for (const text of texts) {
      const again = await cached(fleet, text)
      assert.equal(again.worker, first.get(text))
      assert.ok(again.predicted > 30)
      assert.equal(again.predicted, again.actual)
      await fleet.settled()
    }
  })
}

test('the rank is sent to a worker that is one of several, and to no other', async (t) => {
  const answer = (response: {
    writeHead: (status: number, headers: object) => { end: (text: string) => void }
  }): void => response.writeHead(200, { 'content-type': 'application/json' }).end('{}')
  const ranked = await scriptedEngine(t, (_request, response) => answer(response as never))
  const single = await scriptedEngine(t, (_request, response) => answer(response as never))
  const fleet = await fleetFor(t, {
    workers: 0,
    config: {
      pools: [{ model, profile: 'round-robin', workers: [{ url: ranked.url, ranks: 2 }, { url: single.url }] }],
    },
  })
  for (let request = 0; request < 3; request++)
    await (await fleet.chat('Hi', {}, { headers: { 'x-data-parallel-rank': '7' } })).text()
  assert.deepEqual(ranked.received.map(({ headers }) => headers['x-data-parallel-rank']).sort(), ['0', '1'])
  assert.deepEqual(
    single.received.map(({ headers }) => headers['x-data-parallel-rank']),
    [undefined],
  )
})

test('workers of different block sizes are each credited in their own', async (t) => {
  const tokenizer = await loadTokenizer({ path: demoTokenizer })
  const start = async (blockSize: number): Promise<string> => {
    const started = await startSimulators({ workers: 1, model, tokenizer, engine: { blockSize } })
    t.after(() => started.stop())
    return started.urls[0] ?? ''
  }
  const fleet = await fleetFor(t, {
    workers: 0,
    urls: [await start(16), await start(32)],
    pool: { profile: 'round-robin' },
  })
  assert.deepEqual(
    (await fleet.workers()).map(({ blockSize }) => blockSize),
    [16, 32],
  )
  const text = prose('sizes', 100)
  await cached(fleet, text)
  await cached(fleet, text)
  await until(async () => (await fleet.workers()).every(({ map }) => map.blocks.gpu > 2), 'the events have come')
  for (let turn = 0; turn < 2; turn++) {
    const again = await cached(fleet, text)
    assert.ok(again.actual > 50)
    assert.equal(again.predicted, again.actual)
  }
})

test('a worker without events gets no exact credit and serves', async (t) => {
  const fleet = await fleetFor(t, { workers: 2, simulators: { eventsPort: null } })
  const { predicted } = await cached(fleet, prose('no events', 60))
  assert.equal(predicted, 0)
  assert.deepEqual(
    (await fleet.workers()).map(({ events }) => events.state),
    ['absent', 'absent'],
  )
  const explained = (await (await fleet.explain({ model, prompt: 'Hi' })).json()) as DecisionRecord
  assert.deepEqual(
    explained.candidates.map(({ exact }) => exact),
    [false, false],
  )
})
