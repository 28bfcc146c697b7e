import assert from 'node:assert/strict'
import { createServer, type Socket } from 'node:net'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { fleetFor, model, postTo } from '../support/fleet.ts'
import { rawEngine } from '../support/raw-engine.ts'
import { scriptedEngine } from '../support/scripted-engine.ts'

const json = 'content-type: application/json\r\n'
const good = `HTTP/1.1 200 OK\r\n${json}content-length: 2\r\n\r\n{}`

/** Name, what the engine sends, and the status that the client gets; a bad answer is tried elsewhere first. */
const answers: [string, (socket: Socket) => void, number][] = [
  ['a head of 1 MB in one header', (socket) => socket.write(`HTTP/1.1 200 OK\r\nx: ${'x'.repeat(1 << 20)}`), 502],
  [
    'a head without an end',
    (socket) => {
      const more = (): void => {
        if (!socket.destroyed && socket.write('x-more: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n'.repeat(200)))
          setImmediate(more)
        else socket.once('drain', more)
      }
      socket.write('HTTP/1.1 200 OK\r\n')
      more()
    },
    502,
  ],
  [
    '101',
    (socket) => socket.write('HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n'),
    502,
  ],
  ['100, which nobody asked for', (socket) => socket.write(`HTTP/1.1 100 Continue\r\n\r\n${good}`), 502],
  [
    'early hints before the answer',
    (socket) => socket.write(`HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n${good}`),
    200,
  ],
  ['no HTTP', (socket) => socket.end('SSH-2.0-OpenSSH_9.6\r\n'), 502],
  [
    'two lengths',
    (socket) => socket.write(`HTTP/1.1 200 OK\r\n${json}content-length: 2\r\ncontent-length: 3\r\n\r\n{}`),
    502,
  ],
  ['a status of 999', (socket) => socket.write(`HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n`), 502],
]

test('an answer that is none, or none for clients, is a 502, and the router goes on', async (t) => {
  for (const [name, answer, status] of answers) {
    await t.test(name, async (t) => {
      const engine = await rawEngine(t, answer)
      const fleet = await fleetFor(t, { workers: 0, urls: [engine.url], worker: { blockSize: 16 } })
      const before = process.memoryUsage().rss
      const got = await fleet.chat('Hi', {}, { signal: AbortSignal.timeout(5000) })
      const text = await got.text()
      assert.equal(got.status, status, text)
      if (status !== 200)
        assert.ok((JSON.parse(text) as { error: { code: string } }).error.code.startsWith('upstream_'))
      // A broken connection may have been a stale one: it is tried once more.
      assert.ok(engine.requests() <= 2, String(engine.requests()))
      assert.ok(process.memoryUsage().rss - before < 100 * 1024 * 1024)
      assert.equal((await fetch(`${fleet.publicUrl}/v1/models`)).status, 200)
    })
  }
})

test('headers of an answer cannot add lines to the client’s', async (t) => {
  const engine = await rawEngine(t, (socket) =>
    socket.write(`HTTP/1.1 200 OK\r\n${json}x-engine: a\rset-cookie: evil=1\r\ncontent-length: 2\r\n\r\n{}`),
  )
  const fleet = await fleetFor(t, { workers: 0, urls: [engine.url], worker: { blockSize: 16 } })
  const answer = await fleet.chat('Hi')
  assert.equal(answer.headers.get('set-cookie'), null)
  await answer.text()
})

test('a redirect is not followed', async (t) => {
  let reached = 0
  const elsewhere = createServer((socket) => {
    reached++
    socket.destroy()
  })
  await new Promise<void>((resolve) => elsewhere.listen(0, '127.0.0.1', resolve))
  t.after(() => elsewhere.close())
  const target = `http://127.0.0.1:${(elsewhere.address() as AddressInfo).port}/`
  for (const status of [301, 302, 303, 307, 308]) {
    const engine = await scriptedEngine(t, (_request, response) =>
      response.writeHead(status, { location: target }).end(),
    )
    const fleet = await fleetFor(t, { workers: 0, urls: [engine.url], worker: { blockSize: 16 } })
    const answer = await fleet.chat('Hi')
    assert.equal(answer.status, 502)
    assert.equal(answer.headers.get('location'), null)
    assert.match(await answer.text(), /"upstream_invalid"/)
  }
  assert.equal(reached, 0)
})

test('no address in a body is ever called: only the engine gets the request', async (t) => {
  let reached = 0
  const canary = createServer((socket) => {
    reached++
    socket.destroy()
  })
  await new Promise<void>((resolve) => canary.listen(0, '127.0.0.1', resolve))
  t.after(() => canary.close())
  const own = `http://127.0.0.1:${(canary.address() as AddressInfo).port}`
  const engine = await scriptedEngine(t, (_request, response) =>
    response.writeHead(200, { 'content-type': 'application/json' }).end('{}'),
  )
  const fleet = await fleetFor(t, { workers: 0, urls: [engine.url], worker: { blockSize: 16 } })
  const bodies: object[] = []
  for (const url of [`${own}/a.png`, 'http://169.254.169.254/latest/meta-data/', 'file:///etc/passwd']) {
    const image = [{ type: 'image_url', image_url: { url } }]
    bodies.push({ model, messages: [{ role: 'user', content: image }] })
    bodies.push({ model, messages: [{ role: 'user', content: 'Hi' }], base_url: url, api_base: url, backend: url })
    bodies.push({
      model,
      messages: [{ role: 'user', content: 'Hi' }],
      chat_template: url,
      kv_transfer_params: { remote_host: '169.254.169.254', remote_port: 80 },
    })
  }
  let posted = 0
  for (const body of bodies) {
    const headers = { 'x-override-bootstrap-host': own, 'x-forwarded-host': new URL(own).host, 'x-backend': own }
    const answer = await postTo(`${fleet.publicUrl}/v1/chat/completions`, body, { headers })
    await answer.text()
    if (answer.status === 200) posted++
    else assert.ok(answer.status === 400, String(answer.status))
  }
  assert.equal(reached, 0)
  assert.equal(engine.received.length, posted)
  assert.ok(posted >= 6)
})
