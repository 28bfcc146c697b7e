import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hashOfKey } from '../../src/admission/api-keys.ts'
import { printedConfig } from '../../src/config/print.ts'
import { configOf, fleetFor, model, postTo } from '../support/fleet.ts'
import { scriptedEngine } from '../support/scripted-engine.ts'

const clientKey = 'client-key-Zk3vQ9xW7mPLANTED'
const adminKey = 'admin-key-Hq8bN2tR5yPLANTED'
const engineKey = 'engine-key-Jw6cM4uS1zPLANTED'
const prompt = 'My diary says PLANTED and that nobody else may read it'
const planted = /PLANTED|diary/

test('no prompt and no key is in the log, the metrics, the decisions or the printed config', async (t) => {
  const failing = { now: false }
  const engine = await scriptedEngine(t, (_request, response) => {
    if (failing.now) response.socket?.destroy()
    else response.writeHead(200, { 'content-type': 'application/json' }).end('{"usage":{"prompt_tokens":3}}')
  })
  const options = {
    worker: { blockSize: 16, apiKey: engineKey, headers: { 'x-secret': engineKey } },
    config: {
      log: { level: 'debug' },
      apiKeys: [{ id: 'team-a', hash: hashOfKey(clientKey) }],
      admin: { port: 0 },
    },
  }
  const fleet = await fleetFor(t, { workers: 0, urls: [engine.url], ...options })
  const messages = [{ role: 'user', content: prompt }]
  const send = async (
    body: unknown,
    key: string | null = clientKey,
    path = '/v1/chat/completions',
  ): Promise<number> => {
    const headers: Record<string, string> = {
      'x-request-id': prompt,
      'x-warmroute-explain': '1',
      ...(key === null ? {} : { authorization: `Bearer ${key}` }),
    }
    const answer = await postTo(fleet.publicUrl + path, body, { headers })
    await answer.text()
    return answer.status
  }
  assert.equal(await send({ model, messages }), 200)
  assert.equal(await send({ model, messages, stream: true }), 200)
  assert.equal(await send({ model, prompt }, clientKey, '/v1/completions'), 200)
  assert.equal(await send({ model, messages, user: prompt, session_id: prompt }), 200)
  assert.equal(await send({ model, messages }, 'wrong-key-PLANTED'), 401)
  assert.equal(await send({ model, messages }, null), 401)
  assert.equal(await send(`{"model":"${model}","messages":[{"role":"user","content":"${prompt}"}`), 400)
  assert.equal(await send(`{"model":"${model}","x":${prompt}}`), 400)
  assert.equal(await send({ model, messages: prompt }), 400)
  assert.equal(await send({ model, messages: [{ role: 'user', content: prompt, 'x-y': { [prompt]: 1 } }] }), 200)
  assert.equal(await send({ model, messages }, clientKey, `/v1/none?key=${clientKey}`), 404)
  failing.now = true
  assert.equal(await send({ model, messages }), 502)
  assert.notEqual((await fleet.explain({ model, messages })).status, 500)

  assert.doesNotMatch(JSON.stringify(fleet.log), planted)
  assert.doesNotMatch(await fleet.metricsText(), planted)
  for (const path of ['/admin/decisions', '/admin/workers', '/admin/map'])
    assert.doesNotMatch(JSON.stringify(await fleet.admin(path)), planted, path)
  const config = configOf(
    { ...options, config: { ...options.config, admin: { port: 0, keyHash: hashOfKey(adminKey) } } },
    [engine.url],
  )
  const printed = printedConfig(config)
  assert.doesNotMatch(printed, planted)
  assert.doesNotMatch(printed, /[0-9a-f]{64}/, 'not even the hashes')
})

test('a key for the router stays at the router', async (t) => {
  const engine = await scriptedEngine(t, (_request, response) =>
    response.writeHead(200, { 'content-type': 'application/json' }).end('{}'),
  )
  const fleet = await fleetFor(t, {
    workers: 0,
    urls: [engine.url],
    worker: { blockSize: 16 },
    config: { apiKeys: [{ id: 'team-a', hash: hashOfKey(clientKey) }] },
  })
  for (const headers of [{ authorization: `Bearer ${clientKey}` }, { 'x-api-key': clientKey }]) {
    const answer = await fleet.chat('Hi', {}, { headers: headers })
    assert.equal(answer.status, 200)
    assert.doesNotMatch(JSON.stringify(engine.received.at(-1)?.rawHeaders), planted)
  }
})

test('a request from a trusted proxy bears its way to the engine, one from anyone else only its own', async (t) => {
  const engine = await scriptedEngine(t, (_request, response) =>
    response.writeHead(200, { 'content-type': 'application/json' }).end('{}'),
  )
  for (const [trustedProxies, expected] of [
    [['127.0.0.0/8'], '203.0.113.9, 127.0.0.1'],
    [[], '127.0.0.1'],
  ] as const) {
    const fleet = await fleetFor(t, {
      workers: 0,
      urls: [engine.url],
      worker: { blockSize: 16 },
      config: { forwarded: { trustedProxies } },
    })
    const answer = await fleet.chat('Hi', {}, { headers: { 'x-forwarded-for': '203.0.113.9' } })
    assert.equal(answer.status, 200)
    assert.equal(answer.headers.get('x-warmroute-worker'), null, 'a proxy on loopback is no client on loopback')
    assert.equal(engine.received.at(-1)?.headers['x-forwarded-for'], expected)
  }
})
