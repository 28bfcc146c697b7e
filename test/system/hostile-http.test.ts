import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fleetFor, model, type Fleet } from '../support/fleet.ts'
import { rawRequest } from '../support/raw-http.ts'
import { scriptedEngine, type ScriptedEngine } from '../support/scripted-engine.ts'
import type { TestContext } from 'node:test'

const path = '/v1/chat/completions'
const body = JSON.stringify({ model, messages: [{ role: 'user', content: 'Hi' }] })

/** One scripted engine that answers `{}`, behind a router. */
async function behind(t: TestContext, config: object = {}): Promise<{ fleet: Fleet; engine: ScriptedEngine }> {
  const engine = await scriptedEngine(t, (_request, response) =>
    response.writeHead(200, { 'content-type': 'application/json' }).end('{}'),
  )
  const fleet = await fleetFor(t, { workers: 0, urls: [engine.url], worker: { blockSize: 16 }, config })
  return { fleet, engine }
}

/** A request with these header lines and body bytes; `connection: close`, so that an answer ends the reading. */
function post(lines: readonly string[], bytes: string): string {
  return [
    `POST ${path} HTTP/1.1`,
    'host: a',
    'connection: close',
    'content-type: application/json',
    ...lines,
    '',
    bytes,
  ].join('\r\n')
}

const length = `content-length: ${body.length}`
const chunk = `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`

/** Name, bytes, and the statuses that may come; 0: the connection just closes. */
const hostile: [string, string, readonly number[]][] = [
  ['a length and chunks', post([length, 'transfer-encoding: chunked'], chunk), [400]],
  ['two equal lengths', post([length, length], body), [400]],
  ['two differing lengths', post([length, 'content-length: 2'], body), [400]],
  ['an encoding named xchunked', post(['transfer-encoding: xchunked'], chunk), [400]],
  ['a space before the colon', post(['transfer-encoding : chunked'], chunk), [400]],
  ['a chunk size that ends in LF alone', post(['transfer-encoding: chunked'], chunk.replace('\r\n', '\n')), [400]],
  ['lines that end in LF alone', post([length], body).replaceAll('\r\n', '\n'), [400]],
  ['a folded header', post([length, 'x-folded: a\r\n b'], body), [400]],
  ['no host', post([length], body).replace('host: a\r\n', ''), [400]],
  ['two hosts', post([length, 'host: b'], body), [400]],
  ['a length below 0', post(['content-length: -1'], body), [400]],
  ['a length of 24 digits', post(['content-length: 100000000000000000000000'], body), [400, 413]],
  ['a NUL in a header', post([length, 'x-nul: a\0b'], body), [400]],
  ['a header of 17 KiB', post([length, `x-long: ${'x'.repeat(17 * 1024)}`], body), [431]],
  ['3,000 headers', post([length, ...Array.from({ length: 3000 }, () => 'a:b')], body), [431]],
  ['a whole URL in the request line', post([length], body).replace(path, `http://other.example${path}`), [400]],
  ['CONNECT', 'CONNECT other.example:443 HTTP/1.1\r\nhost: other.example:443\r\n\r\n', [0, 400, 404, 405]],
  ['the HTTP/2 preface', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', [400, 505]],
  ['a TLS hello', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', [400]],
]

test('hostile requests are refused, none with 2xx, and none reaches an engine', async (t) => {
  const { fleet, engine } = await behind(t)
  for (const [name, bytes, statuses] of hostile) {
    await t.test(name, async () => {
      const answer = await rawRequest(fleet.publicUrl, Buffer.from(bytes, 'latin1'))
      assert.ok(statuses.includes(answer.status), `${answer.status}: ${answer.body}`)
      if (answer.status !== 0) {
        assert.match(answer.head, /^content-type: application\/json$/im)
        assert.ok((JSON.parse(answer.body) as { error: { code: string } }).error.code)
      }
    })
  }
  assert.equal(engine.received.length, 0)
  const good = await rawRequest(fleet.publicUrl, post([length], body))
  assert.equal(good.status, 200, good.body)
  const chunked = await rawRequest(fleet.publicUrl, post(['transfer-encoding: chunked'], chunk))
  assert.equal(chunked.status, 200, chunked.body)
  assert.deepEqual(
    engine.received.map((received) => received.body.toString()),
    [body, body],
  )
})

test('a request to upgrade is answered as the plain request that it is, and nothing of it goes on', async (t) => {
  const { fleet, engine } = await behind(t)
  for (const lines of [
    ['upgrade: h2c', 'http2-settings: AAMAAABkAARAAAAAAAIAAAAA'],
    ['upgrade: websocket', 'sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=='],
  ]) {
    const bytes = post([length, ...lines], body).replace('connection: close', 'connection: upgrade, close')
    const answer = await rawRequest(fleet.publicUrl, bytes)
    assert.equal(answer.status, 200, answer.body)
    assert.equal(engine.received.at(-1)?.headers.upgrade, undefined)
    assert.equal(engine.received.at(-1)?.headers.connection, 'keep-alive')
  }
})

test('request ids that could break a line or a log are replaced', async (t) => {
  const { fleet, engine } = await behind(t)
  for (const id of ['x'.repeat(8192), 'a\rb', 'a;b', 'a"b', '{"level":"error"}', '%0d%0aset-cookie:a=1', '']) {
    const before = engine.received.length
    const answer = await rawRequest(fleet.publicUrl, post([length, `x-request-id: ${id}`], body))
    if (id.includes('\r')) {
      assert.equal(answer.status, 400, 'a bare CR ends nothing and is no header')
      assert.equal(engine.received.length, before)
      continue
    }
    assert.equal(answer.status, 200, answer.body)
    const given = /^x-request-id: (.*)$/im.exec(answer.head)?.[1] ?? ''
    assert.match(given, /^[A-Za-z0-9._-]{8,64}$/)
    assert.equal(engine.received.at(-1)?.headers['x-request-id'], given)
    assert.doesNotMatch(answer.head, /set-cookie/i)
  }
  const split = await rawRequest(fleet.publicUrl, post([length, 'x-request-id: a\r\nset-cookie: b=1'], body))
  assert.equal(split.status, 200)
  assert.doesNotMatch(split.head, /set-cookie/i)
})
