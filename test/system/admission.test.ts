import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hashOfKey } from '../../src/admission/api-keys.ts'
import { fleetFor, model, type Fleet } from '../support/fleet.ts'
import { scriptedEngine } from '../support/scripted-engine.ts'
import { until } from '../support/until.ts'

const answer = JSON.stringify({ choices: [], usage: { prompt_tokens: 1, completion_tokens: 7 } })
const onePerWorker = { saturation: { requestsPerWorker: 1 } }

function ask(fleet: Fleet, key: string | null, more: object = {}, signal?: AbortSignal): Promise<Response> {
  return fleet.chat('Hi', more, {
    headers: key === null ? {} : { authorization: `Bearer ${key}` },
    ...(signal === undefined ? {} : { signal }),
  })
}

async function errorOf(response: Response): Promise<{ code: string; type: string }> {
  return ((await response.json()) as { error: { code: string; type: string } }).error
}

test('with keys configured, a request needs one, and only what it may use exists for it', async (t) => {
  const apiKeys = [
    { id: 'team-a', hash: hashOfKey('key-a'), models: [model] },
    { id: 'team-b', hash: hashOfKey('key-b'), models: ['other'] },
  ]
  const engine = await scriptedEngine(t, (_received, response) => response.end(answer))
  const fleet = await fleetFor(t, { workers: 0, urls: [engine.url], config: { apiKeys, expose: 'keys' } })
  for (const key of [null, 'key-c', '']) {
    const refused = await ask(fleet, key)
    assert.equal(refused.status, 401)
    assert.deepEqual([(await errorOf(refused)).code], ['authentication_failed'])
  }
  const served = await ask(fleet, 'key-a')
  assert.equal(served.status, 200)
  assert.equal(served.headers.get('x-warmroute-worker'), engine.url, 'a key makes a client trusted')
  assert.equal(engine.received[0]?.headers.authorization, undefined, 'the router’s key is nothing to the engine')
  const other = await fleet.post(
    '/v1/messages',
    { model, max_tokens: 1, messages: [{ role: 'user', content: 'Hi' }] },
    { headers: { 'x-api-key': 'key-b' } },
  )
  assert.equal(other.status, 403)
  assert.equal(((await other.json()) as { error: { type: string } }).error.type, 'permission_error')
  const asTeamB = { headers: { authorization: 'Bearer key-b' } }
  const tokenized = await fleet.post('/tokenize', { model, prompt: 'Hi' }, asTeamB)
  assert.equal(tokenized.status, 403, 'its tokens are part of a model')
  const unknown = await fleet.post('/v1/completions', { model: 'none', prompt: 'Hi' }, asTeamB)
  const { error } = (await unknown.json()) as { error: { code: string; message: string } }
  assert.deepEqual([error.code, error.message.includes(`Known models: ${model}`)], ['model_not_found', false])
  const models = await fetch(`${fleet.publicUrl}/v1/models`, asTeamB)
  assert.deepEqual(((await models.json()) as { data: unknown[] }).data, [])
  assert.equal((await fetch(`${fleet.publicUrl}/v1/models`)).status, 401)
  assert.equal(engine.received.length, 1)
  assert.ok(!JSON.stringify(fleet.log).includes('key-'), 'keys are not logged')
})

test('a key over its limit gets 429 with retry-after, and sees in every answer what it has left', async (t) => {
  const apiKeys = [{ id: 'small', hash: hashOfKey('key'), requestsPerMinute: 2, tokensPerMinute: 10_000 }]
  const engine = await scriptedEngine(t, (_received, response) => response.end(answer))
  const fleet = await fleetFor(t, { workers: 0, urls: [engine.url], config: { apiKeys } })
  const first = await ask(fleet, 'key')
  assert.equal(first.headers.get('x-ratelimit-limit-requests'), '2')
  assert.equal(first.headers.get('x-ratelimit-remaining-requests'), '1')
  assert.equal(first.headers.get('x-ratelimit-limit-tokens'), '10000')
  await ask(fleet, 'key')
  const refused = await ask(fleet, 'key')
  assert.equal(refused.status, 429)
  const seconds = Number(refused.headers.get('retry-after'))
  assert.ok(seconds >= 1 && seconds <= 30, `${seconds} s`)
  assert.equal((await errorOf(refused)).code, 'rate_limited')
  assert.equal(engine.received.length, 2)
  assert.equal(await fleet.metric('rate_limited_total', { key: 'small', limit: 'requests' }), 1)
})

test('a request waits while every worker is saturated, and goes on when there is room', async (t) => {
  const finish: (() => void)[] = []
  const engine = await scriptedEngine(t, (_received, response) => finish.push(() => response.end(answer)))
  const fleet = await fleetFor(t, { workers: 0, urls: [engine.url], config: { admission: onePerWorker } })
  const answers = [ask(fleet, null), ask(fleet, null), ask(fleet, null)]
  await until(async () => (await fleet.metric('admission_queued_requests')) === 2, 'two wait')
  for (let sent = 1; sent <= 3; sent++) {
    await until(() => finish.length === sent, 'the next one is sent')
    assert.equal(engine.open(), 1, 'one at a time')
    finish[sent - 1]?.()
  }
  for (const response of await Promise.all(answers)) assert.equal(response.status, 200)
  assert.equal(await fleet.metric('queue_wait_seconds_count'), 2)
})

test('a queued request whose client left is never sent', async (t) => {
  const finish: (() => void)[] = []
  const engine = await scriptedEngine(t, (_received, response) => finish.push(() => response.end(answer)))
  const fleet = await fleetFor(t, { workers: 0, urls: [engine.url], config: { admission: onePerWorker } })
  const first = ask(fleet, null)
  await until(() => finish.length === 1, 'the first one is sent')
  const leaving = new AbortController()
  const gone = ask(fleet, null, { user: 'gone' }, leaving.signal).catch(() => null)
  await until(async () => (await fleet.metric('admission_queued_requests')) === 1, 'the second one waits')
  leaving.abort()
  await gone
  await until(async () => (await fleet.metric('admission_queued_requests')) === 0, 'it is out of the queue')
  finish[0]?.()
  assert.equal((await first).status, 200)
  const third = ask(fleet, null)
  await until(() => finish.length === 2, 'the third one is sent')
  finish[1]?.()
  assert.equal((await third).status, 200)
  assert.ok(engine.received.every(({ body }) => !body.includes('"gone"')))
})

for (const [overloadStatus, type] of [
  [429, 'RateLimitError'],
  [503, 'ServiceUnavailableError'],
  [529, 'OverloadedError'],
] as const) {
  test(`a full queue and a wait that is over are answered with ${overloadStatus} and retry-after`, async (t) => {
    const finish: (() => void)[] = []
    const engine = await scriptedEngine(t, (_received, response) => finish.push(() => response.end(answer)))
    const admission = { ...onePerWorker, overloadStatus, queue: { requests: 1, timeoutMs: 300 } }
    const fleet = await fleetFor(t, { workers: 0, urls: [engine.url], config: { admission } })
    const first = ask(fleet, null)
    await until(() => finish.length === 1, 'the first one is sent')
    const second = ask(fleet, null)
    await until(async () => (await fleet.metric('admission_queued_requests')) === 1, 'the second one waits')
    const codes: string[] = []
    for (const refused of [await ask(fleet, null), await second]) {
      assert.equal(refused.status, overloadStatus)
      assert.ok(Number(refused.headers.get('retry-after')) >= 1)
      const error = await errorOf(refused)
      assert.equal(error.type, type)
      codes.push(error.code)
    }
    assert.deepEqual(codes, ['queue_full', 'queue_timeout'])
    finish[0]?.()
    assert.equal((await first).status, 200)
    assert.equal(engine.received.length, 1)
  })
}

test('the engine’s own queue makes requests wait, and its end lets them go', async (t) => {
  const fleet = await fleetFor(t, {
    workers: 1,
    engine: { maxRunningRequests: 1, stepBaseMs: 10 },
    config: { admission: { saturation: { waitingRequests: 2 }, queue: { timeoutMs: 60_000 } } },
  })
  await fleet.measured()
  const answers = Array.from({ length: 12 }, (_, index) =>
    fleet.chat(`request ${index}`, { max_tokens: 30, ignore_eos: true }),
  )
  for (const response of await Promise.all(answers)) assert.equal(response.status, 200)
  const later = Array.from({ length: 12 }, (_, index) => fleet.chat(`later ${index}`, { max_tokens: 30 }))
  for (const response of await Promise.all(later)) assert.equal(response.status, 200)
  assert.ok((await fleet.metric('queue_wait_seconds_count')) > 0, 'some waited in the router')
})
