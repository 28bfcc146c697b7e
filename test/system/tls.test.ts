import assert from 'node:assert/strict'
import { copyFileSync, mkdtempSync, readFileSync } from 'node:fs'
import { request, type RequestOptions } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { TLSSocket } from 'node:tls'
import { fileURLToPath } from 'node:url'
import { checkConfig } from '../../src/config/load.ts'
import { RouterError } from '../../src/errors.ts'
import { renewedCertificates } from '../../src/http/listener.ts'
import { startRouter } from '../../src/main.ts'
import { WorkerConnections } from '../../src/workers/connect.ts'
import { createEngineHttp } from '../../src/workers/engine-http.ts'
import { doorFor } from '../support/door.ts'
import { collectingLog, configOf, demoTokenizer, fleetFor, model, postTo } from '../support/fleet.ts'
import { rawRequest } from '../support/raw-http.ts'
import { scriptedEngine, type Script } from '../support/scripted-engine.ts'
import { until } from '../support/until.ts'

const file = (name: string): string => fileURLToPath(new URL(`../fixtures/tls/${name}`, import.meta.url))
const pem = (name: string): Buffer => readFileSync(file(name))
const serverTls = { cert: file('server.pem'), key: file('server.key') }

interface Answer {
  readonly status: number
  readonly body: string
  /** Serial number of the certificate that the server showed. */
  readonly serial: string
}

function ask(url: string, options: RequestOptions & { body?: string }): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { agent: false, ...options }, (answer) => {
      assert.ok(answer.socket instanceof TLSSocket)
      const { serialNumber } = answer.socket.getPeerCertificate()
      let body = ''
      answer.on('data', (chunk) => (body += String(chunk)))
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, body, serial: serialNumber }))
    })
    sent.on('error', reject)
    sent.end(options.body)
  })
}

const echo = { method: 'POST', path: '/echo', body: 'abc', ca: pem('ca.pem') }

test('a port with a certificate speaks TLS, and nothing else', async (t) => {
  const door = await doorFor(t, { tls: serverTls })
  assert.deepEqual((await ask(door.url, echo)).body, '{"bytes":3}')
  await assert.rejects(ask(door.url, { ...echo, ca: pem('other-ca.pem') }), /self-signed|unable to verify|issuer/i)
  const plain = await rawRequest(door.url, 'POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n').catch(
    () => null,
  )
  assert.ok(plain === null || plain.status === 0, 'plain HTTP gets no answer')
})

test('with a client CA only clients with a certificate of it are let in', async (t) => {
  const door = await doorFor(t, { tls: { ...serverTls, clientCa: file('ca.pem') } })
  const as = (name: string): Promise<Answer> =>
    ask(door.url, { ...echo, cert: pem(`${name}.pem`), key: pem(`${name}.key`) })
  assert.equal((await as('client')).status, 200)
  await assert.rejects(as('stranger'))
  await assert.rejects(ask(door.url, echo))
})

test('a renewed certificate is shown to new connections, and a broken one changes nothing', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'warmroute-tls-'))
  const tls = { cert: join(folder, 'tls.crt'), key: join(folder, 'tls.key') }
  const write = (name: string): void => {
    copyFileSync(file(`${name}.pem`), tls.cert)
    copyFileSync(file(`${name}.key`), tls.key)
  }
  write('server')
  const door = await doorFor(t, { tls })
  const before = (await ask(door.url, echo)).serial
  write('renewed')
  renewedCertificates(door.app.server, tls)()
  const after = (await ask(door.url, echo)).serial
  assert.notEqual(after, before)
  copyFileSync(file('server.key'), tls.key)
  assert.throws(
    () => renewedCertificates(door.app.server, tls),
    (error) => error instanceof RouterError && error.code === 'CONFIG_INVALID',
  )
  assert.throws(
    () => renewedCertificates(door.app.server, { ...tls, cert: join(folder, 'none') }),
    (error) => error instanceof RouterError && error.code === 'CONFIG_UNREADABLE',
  )
  assert.equal((await ask(door.url, echo)).serial, after)
})

const answering: Script = (_request, response) =>
  response.writeHead(200, { 'content-type': 'application/json' }).end('{}')

/** An engine that speaks TLS and lets in clients that `ca.pem` vouches for. */
function strictEngine(t: TestContext): ReturnType<typeof scriptedEngine> {
  return scriptedEngine(t, answering, model, {
    cert: pem('server.pem'),
    key: pem('server.key'),
    ca: pem('ca.pem'),
    requestCert: true,
    rejectUnauthorized: true,
  })
}

test('both ports and the way to an engine over TLS, with certificates on both sides', async (t) => {
  const engine = await strictEngine(t)
  const url = engine.url.replace('127.0.0.1', 'localhost')
  const config = checkConfig({
    listen: { port: 0, tls: serverTls },
    admin: { port: 0, tls: { ...serverTls, clientCa: file('ca.pem') } },
    pools: [
      {
        model,
        tokenizer: demoTokenizer,
        tls: { ca: file('ca.pem'), cert: file('client.pem'), key: file('client.key') },
        workers: [{ url, blockSize: 16 }],
      },
    ],
    tokenizer: { threads: 1 },
  })
  const router = await startRouter(config, { log: collectingLog([]) })
  t.after(() => router.stop())
  assert.match(router.publicUrl, /^https:/)
  const client = { ca: pem('ca.pem'), cert: pem('client.pem'), key: pem('client.key') }
  await until(
    async () => (await ask(`${router.adminUrl}/admin/workers`, client)).body.includes('"state":"healthy"'),
    'the engine is healthy',
  )
  const body = JSON.stringify({ model, messages: [{ role: 'user', content: 'Hi' }] })
  const path = '/v1/chat/completions'
  const answer = await ask(router.publicUrl, { method: 'POST', path, body, ca: pem('ca.pem') })
  assert.equal(answer.status, 200, answer.body)
  assert.equal(engine.received.length, 1)
})

test('an engine whose certificate the CA does not know is not spoken to, unless that is asked for', async (t) => {
  const engine = await strictEngine(t)
  const connections = new WorkerConnections()
  const http = createEngineHttp(connections)
  t.after(() => http.close())
  const client = { cert: file('client.pem'), key: file('client.key') }
  const reach = async (tls: Parameters<WorkerConnections['use']>[1]): Promise<number | null> => {
    connections.use(engine.url, tls)
    const own = createEngineHttp(connections)
    const answer = await own.ask(`${engine.url}/health`)
    await own.close()
    return answer?.status ?? null
  }
  assert.equal(await reach({ ...client, ca: file('ca.pem') }), 200)
  assert.equal(await reach({ ...client, ca: file('other-ca.pem') }), null, 'another authority')
  assert.equal(await reach(client), null, 'the authorities that Node knows')
  assert.equal(await reach(null), null, 'nothing configured')
  assert.equal(await reach({ ca: file('ca.pem') }), null, 'no certificate of our own')
  assert.equal(await reach({ ...client, ca: file('ca.pem'), serverName: 'engine.example' }), 200)
  assert.equal(await reach({ ...client, ca: file('ca.pem'), serverName: 'other.example' }), null, 'another name')
  assert.equal(await reach({ ...client, insecure: true }), 200)
})

test('files of a worker that are no certificate are refused, and what held before goes on', () => {
  const connections = new WorkerConnections()
  const code = (error: unknown): unknown => (error instanceof RouterError ? error.code : error)
  const url = 'https://engine.example'
  connections.use(url, { ca: file('ca.pem') })
  assert.throws(
    () => connections.use(url, { ca: file('none.pem') }),
    (error) => code(error) === 'CONFIG_UNREADABLE',
  )
  assert.throws(
    () => connections.use(url, { cert: file('client.pem'), key: file('server.key') }),
    (error) => code(error) === 'CONFIG_INVALID',
  )
  connections.renewed()()
})

test('an engine that an operator adds is spoken to with its own certificates, or its pool’s', async (t) => {
  const engine = await strictEngine(t)
  const tls = { ca: file('ca.pem'), cert: file('client.pem'), key: file('client.key') }
  const fleet = await fleetFor(t)
  const add = (given: object): Promise<Response> =>
    postTo(`${fleet.adminUrl}/admin/workers`, { pool: model, url: engine.url, blockSize: 16, ...given })
  const bad = await add({ tls: { ...tls, key: file('none.key') } })
  assert.equal(bad.status, 400)
  assert.match(await bad.text(), /tls\.key/)
  assert.equal((await add({ tls })).status, 201)
  await until(
    async () => (await fleet.workers()).every(({ state }) => state === 'healthy'),
    'the added engine is healthy',
  )
})

test('an engine of the fleet without a certificate that holds up is unhealthy, and never gets a request', async (t) => {
  const engine = await scriptedEngine(t, answering, model, { cert: pem('server.pem'), key: pem('server.key') })
  const good = await scriptedEngine(t, answering)
  const router = await startRouter(configOf({ worker: { blockSize: 16 } }, [engine.url, good.url]), {
    log: collectingLog([]),
  })
  t.after(() => router.stop())
  for (let i = 0; i < 4; i++) {
    const answer = await fetch(`${router.publicUrl}/v1/chat/completions`, {
      method: 'POST',
      body: JSON.stringify({ model, messages: [{ role: 'user', content: `Hi ${i}` }] }),
    })
    assert.equal(answer.status, 200)
  }
  assert.equal(engine.received.length, 0)
  assert.equal(good.received.length, 4)
})

test('a fleet’s admin port with a key answers 401 without it, but for the probes', async (t) => {
  const { hashOfKey } = await import('../../src/admission/api-keys.ts')
  const config = configOf({ config: { admin: { port: 0, keyHash: hashOfKey('secret-of-operators') } } }, [
    'http://127.0.0.1:9',
  ])
  const router = await startRouter(config, { log: collectingLog([]) })
  t.after(() => router.stop())
  const get = async (path: string, headers: Record<string, string> = {}): Promise<number> =>
    (await fetch(router.adminUrl + path, { headers })).status
  assert.equal(await get('/healthz'), 200)
  assert.equal(await get('/readyz'), 200)
  for (const path of ['/metrics', '/admin/workers', '/admin/decisions', '/none']) {
    assert.equal(await get(path), 401, path)
    assert.notEqual(await get(path, { authorization: 'Bearer secret-of-operators' }), 401, path)
  }
})
