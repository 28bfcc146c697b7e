import assert from 'node:assert/strict'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test, type TestContext } from 'node:test'
import { WorkerConnections } from '../../src/workers/connect.ts'
import { createEngineHttp, type ExchangeOptions } from '../../src/workers/engine-http.ts'

const options: ExchangeOptions = {
  method: 'POST',
  headers: { authorization: 'Bearer key' },
  timeoutMs: 5000,
  limitBytes: 1000,
  signal: new AbortController().signal,
}

async function rigFor(t: TestContext, listener: RequestListener) {
  const server = createServer(listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const http = createEngineHttp(new WorkerConnections())
  t.after(async () => {
    await http.close()
    server.closeAllConnections()
    server.close()
  })
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/events`
  return {
    exchange: (more: Partial<ExchangeOptions> = {}) => http.exchange(url, { ...options, ...more }),
    server,
  }
}

test('a whole answer comes with its status and bytes, whatever the status', async (t) => {
  const { exchange } = await rigFor(t, (request, response) => {
    response.statusCode = request.method === 'GET' ? 405 : 200
    response.end(`${request.method} ${request.headers.authorization ?? ''}`)
  })
  const posted = await exchange()
  assert.ok(posted.kind === 'answer')
  assert.deepEqual([posted.status, Buffer.from(posted.bytes).toString()], [200, 'POST Bearer key'])
  const got = await exchange({ method: 'GET' })
  assert.ok(got.kind === 'answer')
  assert.equal(got.status, 405)
})

test('an answer that does not come whole is lost: broken off, too late, too large, or no longer wanted', async (t) => {
  const { exchange } = await rigFor(t, (request, response) => {
    switch (request.headers['x-case']) {
      case 'broken':
        response.writeHead(200, { 'content-length': '100' })
        response.write('half')
        setImmediate(() => response.destroy())
        return
      case 'large':
        response.end('x'.repeat(2000))
        return
      default:
    }
  })
  const inCase = (name: string, more: Partial<ExchangeOptions> = {}) =>
    exchange({ headers: { 'x-case': name }, ...more })
  assert.equal((await inCase('broken')).kind, 'lost')
  assert.deepEqual(await inCase('large'), { kind: 'lost', reason: 'an answer of more than 1000 bytes' })
  assert.deepEqual(await inCase('late', { timeoutMs: 30 }), { kind: 'lost', reason: 'no answer within 30 ms' })
  const ended = new AbortController()
  const unwanted = inCase('late', { signal: ended.signal })
  ended.abort()
  assert.equal((await unwanted).kind, 'lost')
})

test('a request that was never sent is told apart, and a port on which nobody listens from a name that is not known', async (t) => {
  const { exchange, server } = await rigFor(t, (_request, response) => response.end())
  await new Promise((resolve) => server.close(resolve))
  assert.deepEqual(await exchange(), { kind: 'unreached', refused: true })
  const http = createEngineHttp(new WorkerConnections())
  t.after(() => http.close())
  assert.deepEqual(await http.exchange('http://engine.invalid/events', options), { kind: 'unreached', refused: false })
})
