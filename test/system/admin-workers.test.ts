import assert from 'node:assert/strict'
import type { ServerResponse } from 'node:http'
import { test } from 'node:test'
import { demoTokenizer, fleetFor, model, type Fleet, type WorkerView } from '../support/fleet.ts'
import { scriptedEngine } from '../support/scripted-engine.ts'
import { until } from '../support/until.ts'

interface Answer {
  readonly status: number
  readonly workers: readonly (WorkerView & { readonly labels: Record<string, string>; readonly leaving?: true })[]
  readonly error?: { readonly message: string; readonly code: string; readonly type: string }
}

async function admin(fleet: Fleet, method: string, query: string, body?: unknown): Promise<Answer> {
  const answer = await fetch(`${fleet.adminUrl}/admin/workers${query}`, {
    method,
    headers: { 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  })
  return { status: answer.status, ...((await answer.json()) as Omit<Answer, 'status'>) }
}

const named = (id: string): string => `?id=${encodeURIComponent(id)}`
const ids = async (fleet: Fleet): Promise<string[]> => (await fleet.workers()).map(({ id }) => id)

async function served(fleet: Fleet, requests = 6): Promise<Set<string>> {
  const found = new Set<string>()
  for (let request = 0; request < requests; request++) {
    const answer = await fleet.chat(`request ${request}`)
    assert.equal(answer.status, 200, await answer.text())
    found.add(answer.headers.get('x-warmroute-worker') ?? '')
  }
  return found
}

/** Answers everything at once. */
function prompt(response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'application/json' }).end('{}')
}

test('a worker that is added gets requests, and none once it is removed', async (t) => {
  const first = await scriptedEngine(t, (_request, response) => prompt(response))
  const second = await scriptedEngine(t, (_request, response) => prompt(response))
  const fleet = await fleetFor(t, { workers: 0, urls: [first.url], pool: { profile: 'round-robin' } })
  const added = await admin(fleet, 'POST', '', { pool: model, url: second.url, labels: { zone: 'b' } })
  assert.equal(added.status, 201, added.error?.message)
  assert.deepEqual(
    added.workers.map(({ id, labels }) => [id, labels]),
    [[second.url, { zone: 'b' }]],
  )
  await until(async () => (await fleet.workers()).every(({ state }) => state === 'healthy'), 'the new one is up')
  assert.deepEqual(await served(fleet), new Set([first.url, second.url]))
  const removed = await admin(fleet, 'DELETE', named(second.url))
  assert.equal(removed.status, 202)
  await until(async () => (await ids(fleet)).length === 1, 'it is gone')
  assert.deepEqual(await served(fleet), new Set([first.url]))
  assert.equal((await admin(fleet, 'DELETE', named(second.url))).status, 404)
  assert.equal((await admin(fleet, 'POST', '', { pool: model, url: second.url })).status, 201, 'it may come back')
})

test('a worker that is added without a pool joins that of the model that it serves', async (t) => {
  const fleet = await fleetFor(t)
  const same = await scriptedEngine(t, (_request, response) => prompt(response))
  const other = await scriptedEngine(t, (_request, response) => prompt(response), 'other')
  for (const { url } of [same, other]) assert.equal((await admin(fleet, 'POST', '', { url })).status, 201)
  await until(async () => (await fleet.workers()).length === 3, 'both joined')
  const pools = new Map((await fleet.workers()).map((view) => [view.id, (view as unknown as { pool: string }).pool]))
  assert.equal(pools.get(same.url), model)
  assert.equal(pools.get(other.url), 'other')
})

test('what is wrong with a worker is told as the config tells it', async (t) => {
  const fleet = await fleetFor(t)
  const [known = ''] = fleet.simulators.urls
  const cases: [unknown, number, RegExp][] = [
    ['{', 400, /not valid JSON/],
    [{}, 400, /"url" is missing/],
    [{ url: 'ftp://x' }, 400, /neither http nor https/],
    [{ url: 'http://x', rank: 2 }, 400, /unknown option "rank"; did you mean "ranks"\?/],
    [{ url: 'http://x', pool: 'none' }, 404, /no pool "none"/],
    [{ url: `${known}/`, pool: model }, 409, /in the fleet already/],
  ]
  for (const [body, status, pattern] of cases) {
    const answer = await admin(fleet, 'POST', '', body)
    assert.equal(answer.status, status, JSON.stringify(body))
    assert.match(answer.error?.message ?? '', pattern)
  }
  for (const method of ['PATCH', 'DELETE']) {
    const body = method === 'PATCH' ? { state: 'draining' } : undefined
    assert.equal((await admin(fleet, method, named('http://nobody:1'), body)).status, 404)
    assert.equal((await admin(fleet, method, '', body)).status, 400)
  }
  const change = await admin(fleet, 'PATCH', named(known), { state: 'drained' })
  assert.match(change.error?.message ?? '', /"drained" is not one of active, draining/)
  assert.equal((await ids(fleet)).length, 1)
})

test('a drained worker gets no new requests and ends those that it has', async (t) => {
  let finish = (): void => undefined
  const slow = await scriptedEngine(t, (_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.write('data: 1\n\n')
    finish = () => response.end('data: [DONE]\n\n')
  })
  const fleet = await fleetFor(t, { workers: 0, urls: [slow.url] })
  const text = (await fleet.chat('Hi', { stream: true })).text()
  const drained = await admin(fleet, 'PATCH', named(slow.url), { state: 'draining', labels: { why: 'upgrade' } })
  assert.deepEqual(
    drained.workers.map(({ state, labels }) => [state, labels]),
    [['draining', { why: 'upgrade' }]],
  )
  assert.equal((await fleet.chat('Hi')).status, 503)
  assert.equal(await fleet.metric('worker_state', { worker: slow.url, state: 'draining' }), 1)
  finish()
  assert.equal(await text, 'data: 1\n\ndata: [DONE]\n\n')
  assert.deepEqual(await ids(fleet), [slow.url], 'it stays until it is removed')
  await admin(fleet, 'PATCH', named(slow.url), { state: 'active' })
  const again = await fleet.chat('Hi', { stream: true })
  assert.equal(again.status, 200)
  finish()
  await again.text()
})

test('a removed worker is gone once its last stream has ended, and then its series are too', async (t) => {
  let finish = (): void => undefined
  const engine = await scriptedEngine(t, (_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.write('data: 1\n\n')
    finish = () => response.end('data: [DONE]\n\n')
  })
  const fleet = await fleetFor(t, { workers: 1 })
  await admin(fleet, 'PATCH', named(fleet.simulators.urls[0] ?? ''), { state: 'draining' })
  await admin(fleet, 'POST', '', { pool: model, url: engine.url })
  await until(async () => (await fleet.workers())[1]?.state === 'healthy', 'the engine is up')
  const text = (await fleet.chat('Hi', { stream: true })).text()
  const removed = await admin(fleet, 'DELETE', named(engine.url))
  assert.equal(removed.workers[0]?.leaving, true)
  assert.equal((await admin(fleet, 'PATCH', named(engine.url), { state: 'active' })).status, 409)
  assert.equal((await ids(fleet)).length, 2)
  finish()
  assert.equal(await text, 'data: 1\n\ndata: [DONE]\n\n')
  await until(async () => (await ids(fleet)).length === 1, 'it is gone')
  await until(async () => !(await fleet.metricsText()).includes(engine.url), 'no series names it')
})

test('force does not wait: what had not begun is served elsewhere, what had begun is told of the end', async (t) => {
  const stuck = await scriptedEngine(t, (request, response) => {
    if (request.body.includes('"stream":true')) {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.write('data: 1\n\n')
    }
  })
  const other = await scriptedEngine(t, (_request, response) => prompt(response))
  const fleet = await fleetFor(t, { workers: 0, urls: [stuck.url] })
  const streaming = (await fleet.chat('Hi', { stream: true })).text()
  const waiting = fleet.chat('Hi')
  await until(() => stuck.open() === 2, 'both are under way')
  await admin(fleet, 'POST', '', { pool: model, url: other.url })
  await until(async () => (await fleet.workers())[1]?.state === 'healthy', 'the other is up')
  await admin(fleet, 'DELETE', `${named(stuck.url)}&force=1`)
  assert.match(await streaming, /^data: 1\n\n.*taken out of service|^data: 1\n\n.*"error"/s)
  const answer = await waiting
  assert.equal(answer.status, 200)
  assert.equal(answer.headers.get('x-warmroute-worker'), other.url)
  await until(async () => (await ids(fleet)).length === 1, 'it is gone')
  await until(() => stuck.open() === 0, 'its connections are closed')
})

test('a worker that does not finish in time is cut', async (t) => {
  const stuck = await scriptedEngine(t, (_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.write('data: 1\n\n')
  })
  const fleet = await fleetFor(t, { workers: 0, urls: [stuck.url], config: { shutdown: { drainWorkerMs: 200 } } })
  const streaming = (await fleet.chat('Hi', { stream: true })).text()
  const startMs = performance.now()
  await admin(fleet, 'DELETE', named(stuck.url))
  assert.match(await streaming, /"error"/)
  assert.ok(performance.now() - startMs >= 190, 'not before')
  await until(async () => (await ids(fleet)).length === 0, 'it is gone')
})

test('an id may name one rank, or all ranks behind a URL', async (t) => {
  const fleet = await fleetFor(t, {
    workers: 1,
    simulators: { worker: { ranks: 2 } },
    pool: { tokenizer: demoTokenizer },
  })
  const [url = ''] = fleet.simulators.urls
  assert.equal((await admin(fleet, 'PATCH', named(`${url}#1`), { state: 'draining' })).workers.length, 1)
  assert.deepEqual(
    (await fleet.workers()).map(({ state }) => state),
    ['healthy', 'draining'],
  )
  assert.equal((await admin(fleet, 'PATCH', named(url), { state: 'active' })).workers.length, 2)
  assert.equal((await admin(fleet, 'DELETE', named(`${url}#1`))).status, 202)
  await until(async () => (await ids(fleet)).join() === `${url}#0`, 'one rank is left')
  assert.deepEqual(await served(fleet, 2), new Set([`${url}#0`]))
  assert.equal((await admin(fleet, 'DELETE', named(url))).status, 202)
  await until(async () => (await ids(fleet)).length === 0, 'none is left')
})

test('an engine that serves another model than its pool gets nothing, until it serves the right one', async (t) => {
  const wrong = await scriptedEngine(t, (_request, response) => prompt(response), 'another')
  const fleet = await fleetFor(t)
  await admin(fleet, 'POST', '', { pool: model, url: wrong.url })
  await until(async () => (await fleet.workers())[1]?.degraded === 'wrong_model', 'it is found out')
  await served(fleet)
  assert.equal(wrong.received.length, 0)
  assert.equal((await fleet.workers())[1]?.state, 'unhealthy')
  wrong.model = model
  await until(async () => (await fleet.workers())[1]?.state === 'healthy', 'it is let in')
  assert.notEqual((await fleet.workers())[1]?.degraded, 'wrong_model')
  const told = fleet.log.filter(({ level, message }) => level === 'error' && message.includes('does not serve'))
  assert.equal(told.length, 1, 'said once')
})

test('workers and pools that come and go leave nothing behind', { timeout: 60_000 }, async (t) => {
  const fleet = await fleetFor(t, { config: { limits: { workers: 3 } } })
  const engine = await scriptedEngine(t, (_request, response) => prompt(response), 'passing')
  const cycle = async (): Promise<void> => {
    assert.equal((await admin(fleet, 'POST', '', { url: engine.url })).status, 201)
    await until(
      async () => (await fleet.workers()).some(({ id, state }) => id === engine.url && state === 'healthy'),
      'up',
    )
    assert.equal((await (await fleet.chat('Hi', { model: 'passing' })).text()).length, 2)
    assert.equal((await admin(fleet, 'DELETE', named(engine.url))).status, 202)
    await until(async () => (await ids(fleet)).length === 1, 'gone')
    assert.equal((await fleet.chat('Hi', { model: 'passing' })).status, 404, 'the pool that was formed for it is gone')
  }
  const series = async (): Promise<string[]> =>
    (await fleet.metricsText())
      .split('\n')
      .filter((line) => line.startsWith('warmroute_') && !/_(nodejs|process)_/.test(line))
      .map((line) => line.slice(0, line.lastIndexOf(' ')))
  const timers = (): number => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length
  await cycle()
  const before = { series: (await series()).filter((line) => !line.includes(engine.url)), timers: timers() }
  // More often than the fleet has places.
  for (let turn = 0; turn < 12; turn++) await cycle()
  await until(async () => !(await fleet.metricsText()).includes(engine.url), 'no series names it')
  assert.deepEqual(await series(), before.series)
  await until(() => timers() <= before.timers + 2, 'no timer is left')
})
