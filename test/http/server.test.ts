import assert from 'node:assert/strict'
import { connect, type Socket } from 'node:net'
import { test, type TestContext } from 'node:test'
import { doorFor } from '../support/door.ts'
import { rawRequest } from '../support/raw-http.ts'
import { until } from '../support/until.ts'

/** A connection that is written to step by step; keeps what it received. */
function open(t: TestContext, url: string): { socket: Socket; received: () => string; closed: () => boolean } {
  const { hostname, port } = new URL(url)
  const socket = connect(Number(port), hostname)
  let text = ''
  let closed = false
  socket.on('data', (chunk) => (text += chunk.toString('latin1')))
  socket.on('error', () => undefined)
  socket.on('close', () => (closed = true))
  t.after(() => socket.destroy())
  return { socket, received: () => text, closed: () => closed }
}

const head = (lines: readonly string[]): string => ['POST /echo HTTP/1.1', 'host: a', ...lines, '', ''].join('\r\n')
const codeOf = (text: string): unknown =>
  (JSON.parse(text.slice(text.indexOf('{'))) as { error: { code: string } }).error.code

test('a head that does not arrive in time is answered 408 in OpenAI’s form, and the connection closes', async (t) => {
  const door = await doorFor(t, { timeouts: { headersMs: 200, requestMs: 400 } })
  const startMs = performance.now()
  const slow = await rawRequest(door.url, 'POST /echo HTTP/1.1\r\nhost: a\r\nx-slow: ')
  assert.equal(slow.status, 408)
  assert.equal(codeOf(slow.body), 'request_timeout')
  assert.ok(performance.now() - startMs < 2500)
  assert.deepEqual(door.refused, ['request_timeout'])
})

test('a body that does not arrive in time is answered 408, and its bytes are given back', async (t) => {
  const door = await doorFor(t, { timeouts: { headersMs: 200, requestMs: 400 } })
  const slow = await rawRequest(door.url, `${head(['content-length: 100'])}{"half`)
  assert.equal(slow.status, 408)
  assert.equal(codeOf(slow.body), 'request_timeout')
  await until(() => door.bodies.heldBytes === 0, 'the bytes are given back')
  assert.deepEqual(
    door.log.filter(({ level }) => level === 'error'),
    [],
  )
})

test('a request that is broken behind a running answer cuts the connection and never mixes into that answer', async (t) => {
  const door = await doorFor(t, {
    routes: (app) => {
      app.post('/echo', (_request, reply) => {
        reply.hijack()
        reply.raw.writeHead(200, { 'content-type': 'text/plain' }).write('begun')
      })
    },
  })
  const client = open(t, door.url)
  client.socket.write(`${head(['content-length: 2'])}{}`)
  await until(() => client.received().includes('begun'), 'the answer has begun')
  client.socket.write('garbage\r\n\r\n')
  await until(client.closed, 'the connection is closed')
  assert.doesNotMatch(client.received(), /HTTP\/1\.1 400/)
})

test('pipelined requests are answered in their order', async (t) => {
  const door = await doorFor(t)
  const one = (body: string): string => `${head([`content-length: ${body.length}`])}${body}`
  const last = `${head(['content-length: 3', 'connection: close'])}abc`
  const { head: first, body } = await rawRequest(door.url, one('') + one('a') + one('ab') + last)
  assert.deepEqual(
    [...(first + body).matchAll(/"bytes":(\d)/g)].map(([, bytes]) => bytes),
    ['0', '1', '2', '3'],
  )
})

test('a broken request behind whole ones leaves their answers alone', async (t) => {
  const door = await doorFor(t)
  const whole = `${head(['content-length: 2'])}ab`
  const broken = head(['transfer-encoding: chunked']) + 'zz\r\n'
  const { head: first, body } = await rawRequest(door.url, whole + whole + broken)
  const statuses = [...`${first}\r\n\r\n${body}`.matchAll(/HTTP\/1\.1 (\d{3})/g)].map(([, status]) => status)
  assert.deepEqual(statuses, ['200', '200', '400'])
})

test('a body over the limit is refused by its length, and by its bytes where it has no length', async (t) => {
  const door = await doorFor(t, { limits: { bodyBytes: 10_000 } })
  const promised = await rawRequest(door.url, head(['content-length: 10001']) + 'x'.repeat(10_001))
  assert.equal(promised.status, 413)
  assert.match(promised.head, /^connection: close$/im)
  assert.equal(codeOf(promised.body), 'body_too_large')
  const chunk = `${(4096).toString(16)}\r\n${'x'.repeat(4096)}\r\n`
  const chunked = await rawRequest(door.url, head(['transfer-encoding: chunked']) + chunk.repeat(4) + '0\r\n\r\n')
  assert.equal(chunked.status, 413)
  assert.equal(door.bodies.heldBytes, 0)
  const fits = await rawRequest(door.url, head(['content-length: 10000', 'connection: close']) + 'x'.repeat(10_000))
  assert.match(fits.body, /"bytes":10000/)
})

test('a sender that goes on after its refusal sees the answer, and is cut off after a while', async (t) => {
  const door = await doorFor(t, { limits: { bodyBytes: 10_000 }, timeouts: { lingerMs: 200 } })
  const client = open(t, door.url)
  client.socket.write(head(['content-length: 1000000000']))
  const sending = setInterval(() => client.socket.write('x'.repeat(100)), 5)
  t.after(() => clearInterval(sending))
  await until(client.closed, 'the connection is closed', 3000)
  assert.match(client.received(), /^HTTP\/1\.1 413 /)
  assert.equal(codeOf(client.received()), 'body_too_large')
})

test('bodies fill one budget; over it requests get 503 with retry-after, and there is room again when answers end', async (t) => {
  let release = (): void => undefined
  const door = await doorFor(t, {
    limits: { bodyBytes: 8000, bodiesBytes: 10_000 },
    routes: (app) => {
      app.post('/held', async () => {
        await new Promise<void>((resolve) => (release = resolve))
        return {}
      })
      app.post('/echo', () => ({ ok: true }))
    },
  })
  const send = (path: string): Promise<Response> => fetch(door.url + path, { method: 'POST', body: 'x'.repeat(6000) })
  const held = send('/held')
  await until(() => door.bodies.heldBytes === 6000, 'the first body is held')
  const refused = await send('/echo')
  assert.equal(refused.status, 503)
  assert.equal(refused.headers.get('retry-after'), '1')
  assert.equal(codeOf(await refused.text()), 'bodies_over_budget')
  release()
  assert.equal((await held).status, 200)
  await until(() => door.bodies.heldBytes === 0, 'the first body is given back')
  assert.equal((await send('/echo')).status, 200)
})

test('a client that leaves with half a body behind gives its bytes back', async (t) => {
  const door = await doorFor(t)
  const client = open(t, door.url)
  client.socket.write(head(['content-length: 100000']) + 'x'.repeat(50_000))
  await until(() => door.bodies.heldBytes === 50_000, 'half of the body is held')
  client.socket.destroy()
  await until(() => door.bodies.heldBytes === 0, 'it is given back')
  assert.deepEqual(
    door.log.filter(({ level }) => level === 'error'),
    [],
  )
})

test('a compressed body is refused before a byte of it is read', async (t) => {
  const door = await doorFor(t)
  const client = open(t, door.url)
  client.socket.write(head(['content-length: 1000', 'content-encoding: gzip']))
  await until(() => client.received().includes('"error"'), 'the answer has come')
  assert.match(client.received(), /^HTTP\/1\.1 415 /)
  const plain = await rawRequest(
    door.url,
    `${head(['content-length: 2', 'content-encoding: Identity', 'connection: close'])}{}`,
  )
  assert.equal(plain.status, 200)
})

test('100-continue is sent to who may send its body, and a refusal to who may not', async (t) => {
  const door = await doorFor(t, { limits: { bodyBytes: 10_000 } })
  const expecting = (more: readonly string[]): ReturnType<typeof open> => {
    const client = open(t, door.url)
    client.socket.write(head(['expect: 100-continue', ...more]))
    return client
  }
  const good = expecting(['content-length: 4'])
  await until(() => good.received().startsWith('HTTP/1.1 100 Continue'), 'it is told to go on')
  good.socket.write('body')
  await until(() => good.received().includes('"bytes":4'), 'it is answered')
  for (const [more, status] of [
    [['content-length: 10001'], 413],
    [['content-length: 4', 'content-encoding: gzip'], 415],
  ] as const) {
    const bad = expecting(more)
    await until(() => bad.received().includes('"error"'), 'it is refused')
    assert.match(bad.received(), new RegExp(`^HTTP/1.1 ${status} `))
    assert.doesNotMatch(bad.received(), /100 Continue/)
  }
  const other = await rawRequest(door.url, head(['expect: a-miracle', 'content-length: 4', 'connection: close']))
  assert.equal(other.status, 400)
  assert.equal(codeOf(other.body), 'header_invalid')
})

test('an unknown path is refused before its body is read', async (t) => {
  const door = await doorFor(t)
  const client = open(t, door.url)
  client.socket.write('POST /none HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n')
  await until(() => client.received().includes('path_not_found'), 'the answer has come')
  assert.match(client.received(), /^HTTP\/1\.1 404 /)
})

test('too many headers are refused with 431, and headers that must come once with 400', async (t) => {
  const door = await doorFor(t, { limits: { headers: 20 } })
  const many = await rawRequest(door.url, head(Array.from({ length: 21 }, (_, index) => `x${index}: 1`)))
  assert.equal(many.status, 431)
  assert.equal(codeOf(many.body), 'headers_too_large')
  for (const name of ['host', 'content-type', 'Authorization', 'x-api-key']) {
    const twice = await rawRequest(door.url, head([`${name}: a`, `${name.toUpperCase()}: b`, 'connection: close']))
    assert.equal(twice.status, 400, name)
    assert.equal(codeOf(twice.body), 'header_invalid')
  }
})

test('connections over the limit are closed at once, and counted', async (t) => {
  const door = await doorFor(t, { limits: { connections: 2 } })
  const first = [open(t, door.url), open(t, door.url)]
  await until(() => first.every(({ socket }) => !socket.connecting), 'two are connected')
  for (const client of first) client.socket.write(`${head(['content-length: 2'])}{}`)
  await until(() => first.every(({ received }) => received().includes('"bytes":2')), 'two are served')
  const third = open(t, door.url)
  await until(third.closed, 'the third is closed')
  assert.deepEqual(door.refused, ['connections'])
})
