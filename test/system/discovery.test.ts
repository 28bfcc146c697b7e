import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { RouterError } from '../../src/errors.ts'
import { checkConfig } from '../../src/config/load.ts'
import { dnsServer } from '../support/dns-server.ts'
import { configOf, fleetFor, model, type Fleet } from '../support/fleet.ts'
import { scriptedEngine, type Script } from '../support/scripted-engine.ts'
import { until } from '../support/until.ts'

const prompt: Script = (_request, response) =>
  void response.writeHead(200, { 'content-type': 'application/json' }).end('{}')

const ids = async (fleet: Fleet): Promise<string> =>
  (await fleet.workers())
    .map(({ id }) => id)
    .sort()
    .join()

test('engines behind a DNS name come and go with its records, and stay when the name or its server is lost', async (t) => {
  const engines = await Promise.all([scriptedEngine(t, prompt), scriptedEngine(t, prompt)])
  const [first = '', second = ''] = engines.map(({ url }) => url)
  const services = (urls: readonly string[]) =>
    urls.map((url) => ({ type: 'SRV' as const, port: Number(new URL(url).port), target: 'host.test' }))
  const server = await dnsServer(t, {
    'host.test': [{ type: 'A', address: '127.0.0.1' }],
    'engines.test': services([first]),
  })
  const dns = { name: 'engines.test', type: 'SRV', intervalMs: 20, timeoutMs: 100, servers: [server.address] }
  const fleet = await fleetFor(t, {
    workers: 0,
    config: { pools: [{ model, discovery: { dns, worker: { labels: { found: 'yes' } } } }] },
  })
  await until(async () => (await ids(fleet)) === first, 'the first is found')
  assert.deepEqual(((await fleet.workers())[0] as unknown as { labels: object }).labels, { found: 'yes' })
  server.names.set('engines.test', services([first, second]))
  await until(async () => (await ids(fleet)) === [first, second].sort().join(), 'the second is found')
  for (const lost of ['NXDOMAIN', 'SERVFAIL', [], 'silence'] as const) {
    const before = await fleet.metric('discovery_errors_total', { pool: model })
    server.names.set('engines.test', lost)
    await until(
      async () => (await fleet.metric('discovery_errors_total', { pool: model })) > before,
      'the loss is seen',
    )
    assert.equal(await ids(fleet), [first, second].sort().join())
    assert.equal((await fleet.chat('Hi')).status, 200)
  }
  const lost = fleet.log.filter(({ message }) => message.startsWith('discovery failed'))
  assert.equal(lost.length, 1, 'one line for one loss')
  server.names.set('engines.test', services([second]))
  await until(async () => (await ids(fleet)) === second, 'the first is gone')
  assert.equal(fleet.log.filter(({ message }) => message === 'discovery works again').length, 1)
  assert.ok((await fleet.metric('discovery_age_seconds', { pool: model })) < 5)
})

test('engines listed in a file come and go with it', async (t) => {
  const engines = await Promise.all([scriptedEngine(t, prompt), scriptedEngine(t, prompt)])
  const [first = '', second = ''] = engines.map(({ url }) => url)
  const path = mkdtempSync(join(tmpdir(), 'warmroute-'))
  t.after(() => rmSync(path, { recursive: true }))
  const file = { path: join(path, 'engines.yaml'), pollMs: 10 }
  writeFileSync(file.path, `- ${first}\n`)
  let given: object = { pools: [{ model, discovery: { file } }] }
  const fleet = await fleetFor(t, {
    workers: 0,
    config: given,
    source: { file: null, load: () => configOf({ config: given }, []) },
  })
  await until(async () => (await ids(fleet)) === first, 'the first is found')
  writeFileSync(file.path, `- ${first}\n- { url: '${second}', labels: { zone: b } }\n`)
  await until(async () => (await ids(fleet)) === [first, second].sort().join(), 'the second is found')
  writeFileSync(file.path, `- { urk: '${second}' }\n`)
  await until(async () => (await fleet.metric('discovery_errors_total')) === 1, 'the bad list is refused')
  assert.equal(await ids(fleet), [first, second].sort().join())
  rmSync(file.path)
  await until(async () => (await fleet.metric('discovery_errors_total')) === 2, 'the missing list is refused')
  assert.equal(await ids(fleet), [first, second].sort().join())
  given = { pools: [{ model, workers: [{ url: first }] }] }
  assert.equal(await fleet.router.reload(), 'applied')
  await until(
    async () => (await ids(fleet)) === first,
    'without a discovery what it found leaves, what the config names stays',
  )
})

test('an address that another model’s engine took over gets no request', async (t) => {
  const engine = await scriptedEngine(t, prompt)
  const server = await dnsServer(t, { 'engines.test': [{ type: 'A', address: '127.0.0.1' }] })
  const dns = {
    name: 'engines.test',
    port: Number(new URL(engine.url).port),
    intervalMs: 20,
    servers: [server.address],
  }
  const fleet = await fleetFor(t, { workers: 0, config: { pools: [{ model, discovery: { dns } }] } })
  await until(async () => (await fleet.workers())[0]?.state === 'healthy', 'the engine is found')
  engine.model = 'another'
  // As a pod that is gone: the request breaks, and the next process at its address answers health checks as well.
  engine.script = (_request, response) => response.destroy()
  await (await fleet.chat('Hi')).text()
  engine.script = prompt
  await until(async () => (await fleet.workers())[0]?.degraded === 'wrong_model', 'it is found out')
  const before = engine.received.length
  for (let request = 0; request < 5; request++) assert.equal((await fleet.chat('Hi')).status, 503)
  assert.equal(engine.received.length, before)
})

test('a discovery that cannot work is a fault of the config', () => {
  const faultsOf = (discovery: object): string => {
    try {
      checkConfig({ pools: [{ model, discovery }] })
      return ''
    } catch (error) {
      assert.ok(error instanceof RouterError)
      return error.message
    }
  }
  assert.match(faultsOf({}), /pools\[0\]\.discovery: give one of "dns" and "file"/)
  assert.match(faultsOf({ dns: { name: 'x' } }), /"port" is missing/)
  assert.match(faultsOf({ dns: { name: 'x', port: 1, servers: ['dns.test'] } }), /"dns\.test" is not an IP address/)
  assert.match(faultsOf({ dns: { nam: 'x', port: 1 } }), /unknown option "nam"; did you mean "name"\?/)
  for (const server of ['10.0.0.1', '10.0.0.1:53', 'fd00::1', '[fd00::1]:53'])
    assert.equal(faultsOf({ dns: { name: 'x', port: 1, servers: [server] } }), '')
})

test('an engine that answers its health check but not what it serves gets nothing until it does', async (t) => {
  let models = 500
  const engine = createServer((request, response) => {
    const status = request.url === '/v1/models' ? models : request.url === '/health' ? 200 : 404
    response.writeHead(status, { 'content-type': 'application/json' }).end('{"data":[{"id":"demo"}]}')
  })
  await new Promise<void>((resolve) => engine.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    engine.closeAllConnections()
    engine.close()
  })
  const { port } = engine.address() as AddressInfo
  let given: object = { pools: [{ model }] }
  const fleet = await fleetFor(t, {
    workers: 0,
    config: given,
    source: { file: null, load: () => configOf({ config: given }, []) },
  })
  given = { pools: [{ model, workers: [{ url: `http://127.0.0.1:${port}` }] }] }
  await fleet.router.reload()
  await until(async () => (await fleet.workers()).length === 1, 'it is known')
  assert.equal((await fleet.chat('Hi')).status, 503)
  models = 200
  await until(async () => (await fleet.workers())[0]?.state === 'healthy', 'it is let in')
})
