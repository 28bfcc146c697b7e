import assert from 'node:assert/strict'
import { get, request as httpRequest } from 'node:http'
import { connect } from 'node:net'
import { test } from 'node:test'
import { RouterError } from '../../src/errors.ts'
import { openAi } from '../../src/protocol/openai.ts'
import { fleetFor, model, prose } from '../support/fleet.ts'
import { scriptedEngine } from '../support/scripted-engine.ts'
import { until } from '../support/until.ts'

const quantile = (values: readonly number[], share: number): number =>
  [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))] ?? 0

/** Milliseconds between the chunks of a stream, as a plain client sees them. */
function gapsOf(url: string, body: object): Promise<number[]> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      `${url}/v1/chat/completions`,
      { method: 'POST', headers: { 'content-type': 'application/json' } },
      (response) => {
        const gaps: number[] = []
        let lastMs = performance.now()
        response.on('data', () => {
          const nowMs = performance.now()
          gaps.push(nowMs - lastMs)
          lastMs = nowMs
        })
        response.on('end', () => resolve(gaps.slice(1)))
        response.on('error', reject)
      },
    )
    request.on('error', reject)
    request.end(JSON.stringify(body))
  })
}

test('a stream of small chunks keeps its pace: nothing gathers or delays them', async (t) => {
  const fleet = await fleetFor(t, { workers: 1, engine: { stepBaseMs: 3 } })
  const direct: number[] = []
  const routed: number[] = []
  // Interleaved, so that whatever else the machine does falls on both alike.
  for (let round = 0; round < 3; round++) {
    const body = { model, messages: [{ role: 'user', content: `Round ${round}` }], max_tokens: 120, stream: true }
    direct.push(...(await gapsOf(fleet.worker(0).url, body)))
    routed.push(...(await gapsOf(fleet.publicUrl, body)))
  }
  const added = (share: number): number => quantile(routed, share) - quantile(direct, share)
  t.diagnostic(
    `added to the gaps of a stream: p50 ${added(0.5).toFixed(2)} ms, p99 ${added(0.99).toFixed(2)} ms, largest ${added(1).toFixed(2)} ms`,
  )
  assert.ok(routed.length > 0.8 * direct.length, `${routed.length} chunks of ${direct.length} came one by one`)
  assert.ok(added(0.5) < 5, `${added(0.5)} ms at the median`)
  // Delayed acknowledgements would add 40 ms to every gap.
  assert.ok(added(0.99) < 25, `${added(0.99)} ms at p99`)
})

test('an answer’s head and first event go out as they come, and the stream’s headers are the engine’s', async (t) => {
  let finish = (): void => undefined
  const engine = await scriptedEngine(t, (_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache' })
    response.write('data: 1\n\n')
    finish = () => response.end('data: [DONE]\n\n')
  })
  const fleet = await fleetFor(t, { workers: 0, urls: [engine.url] })
  const answer = await fleet.chat('Hi', { stream: true })
  assert.equal(answer.headers.get('content-type'), 'text/event-stream; charset=utf-8')
  assert.equal(answer.headers.get('cache-control'), 'no-cache')
  assert.equal(answer.headers.get('content-encoding'), null)
  assert.equal(answer.headers.get('content-length'), null)
  const reader = answer.body!.getReader()
  assert.equal(Buffer.from((await reader.read()).value as Uint8Array).toString(), 'data: 1\n\n')
  finish()
  assert.equal(Buffer.from((await reader.read()).value as Uint8Array).toString(), 'data: [DONE]\n\n')
  assert.equal((await reader.read()).done, true)
})

test('odd streams pass byte for byte up to their end mark; without one the client is told that the answer is cut', async (t) => {
  const note = openAi.deathNote(new RouterError('UPSTREAM_DIED', 'The worker ended its answer before it was complete'))
  const streams: readonly (readonly [string, string?])[] = [
    [': hello\n\ndata: {"a":"é"}\r\n\r\n:\n\ndata: [DONE]\n\n'],
    ['data: 1\r\rdata: 2\r\r', `data: 1\r\rdata: 2\r\r${note}`],
    ['event: x\nid: 5\ndata: 1\n\ndata: no blank line at the end', `event: x\nid: 5\ndata: 1\n\n${note}`],
    ['data: 1\n\ndata: [DONE]\n\ndata: [DONE]\n\nrest', 'data: 1\n\ndata: [DONE]\n\n'],
    ['data: {"text":"data: [DONE]"}\n\ndata:[DONE]\n\n'],
    [`data: ${'x'.repeat(300_000)}\n\ndata: [DONE]\n\n`],
  ]
  let at = 0
  const engine = await scriptedEngine(t, (_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    const bytes = Buffer.from(streams[at]?.[0] ?? '')
    const step = bytes.length > 1000 ? 50_000 : 1
    let sent = 0
    const next = (): void => {
      if (sent >= bytes.length) response.end()
      else response.write(bytes.subarray(sent, (sent += step)), () => setImmediate(next))
    }
    next()
  })
  const fleet = await fleetFor(t, { workers: 0, urls: [engine.url] })
  for (at = 0; at < streams.length; at++) {
    const answer = await fleet.chat('Hi', { stream: true })
    const [sent, expected = sent] = streams[at] ?? []
    assert.deepEqual(Buffer.from(await answer.arrayBuffer()).toString(), expected)
  }
  await fleet.settled()
})

test('a client that reads slowly holds up its own engine stream only', async (t) => {
  const event = Buffer.from(`data: ${'x'.repeat(64 * 1024 - 8)}\n\n`)
  let written = 0
  let blocked = false
  const engine = await scriptedEngine(t, (request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    if (!request.body.includes('"slow"')) {
      response.end('data: [DONE]\n\n')
      return
    }
    const pump = (): void => {
      blocked = false
      while (written < 256 * 1024 * 1024) {
        written += event.length
        if (!response.write(event)) {
          blocked = true
          response.once('drain', pump)
          return
        }
      }
      response.end()
    }
    pump()
  })
  const fleet = await fleetFor(t, { workers: 0, urls: [engine.url] })
  const { hostname, port } = new URL(fleet.publicUrl)
  const body = JSON.stringify({ model, messages: [{ role: 'user', content: 'Hi' }], stream: true, user: 'slow' })
  const socket = connect(Number(port), hostname)
  t.after(() => socket.destroy())
  socket.write(`POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: ${body.length}\r\n\r\n${body}`)
  await new Promise((resolve) => socket.once('data', resolve))
  socket.pause()
  let before = -1
  await until(
    async () => {
      const still = blocked && written === before
      before = written
      // Others are served meanwhile.
      assert.equal((await fleet.chat('Hi', { stream: true })).status, 200)
      await new Promise((resolve) => setTimeout(resolve, 50))
      return still && written === before
    },
    'the engine is held up',
    10_000,
  )
  t.diagnostic(
    `added: ${Math.round(written / 1024 / 1024)} MiB were taken from the engine for a client that reads nothing`,
  )
  // Two socket pairs of kernel buffers; the rest would be memory of the router.
  assert.ok(written < 48 * 1024 * 1024, `${written} bytes were taken`)
  const held = written
  socket.resume()
  await until(() => written > held, 'the stream goes on once the client reads')
  socket.destroy()
  await until(
    async () => (await fleet.workers()).every(({ inFlight }) => inFlight.requests === 0) && engine.open() === 0,
    'all is over',
  )
})

test('no prompt text is in logs, decisions, metrics or any admin answer', async (t) => {
  const phrase = 'xylophone-quagmire-7731'
  const fleet = await fleetFor(t, { workers: 2, config: { timeouts: { firstTokenMs: 300 } } })
  const text = `${phrase} ${prose('secret', 60)}`
  for (const stream of [false, true]) await (await fleet.chat(text, { stream, user: phrase })).text()
  await (await fleet.post('/v1/completions', { model, prompt: [text, text], max_tokens: 1, cache_salt: phrase })).text()
  await (await fleet.chat(`${text} ${prose('long', 9000)}`)).text()
  await (await fleet.post('/tokenize', { model, prompt: text })).text()
  await (await fleet.explain({ model, prompt: text })).text()
  const refusals = [
    `{"model":"demo","messages":[{"role":"user","content":"${phrase}"}`,
    `{"model":"demo","messages":[{"role":"user","content":"${phrase}"}],"temperature":NaN}`,
    `{"model":"demo","messages":[{"role":"user","content":"${phrase}"}],"stream":"${phrase}"}`,
    `{"model":"demo","messages":"${phrase}"}`,
    `{"model":"demo","messages":[{"role":"${phrase}","content":{"${phrase}":1}}]}`,
  ]
  for (const body of refusals) await (await fleet.post('/v1/chat/completions', body)).text()
  fleet.worker(0).dieAfterTokens(1)
  fleet.worker(1).dieAfterTokens(1)
  for (const stream of [false, true]) await (await fleet.chat(text, { stream })).text()
  await fleet.worker(0).kill()
  await (await fleet.chat(text)).text()
  const places = {
    log: JSON.stringify(fleet.log),
    metrics: await fleet.metricsText(),
    decisions: JSON.stringify(await fleet.decisions()),
    workers: JSON.stringify(await fleet.workers()),
    map: JSON.stringify(await fleet.admin('/admin/map')),
  }
  for (const [name, content] of Object.entries(places)) {
    assert.ok(content.length > 20, name)
    assert.equal(content.includes('xylophone'), false, `${name} holds prompt text`)
    assert.equal(content.includes('quagmire'), false, `${name} holds prompt text`)
  }
  assert.ok(fleet.log.some(({ message }) => message === 'request'))
  assert.ok((await fleet.decisions()).length >= 5)
})

test('Nagle’s algorithm is off on both sides', async (t) => {
  // Seen from outside: many tiny events written at once each come within a delayed acknowledgement's time.
  const engine = await scriptedEngine(t, (_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    let sent = 0
    const next = (): void => {
      if (sent++ === 40) response.end('data: [DONE]\n\n')
      else response.write('data: 1\n\n', () => setTimeout(next, 1))
    }
    next()
  })
  const fleet = await fleetFor(t, { workers: 0, urls: [engine.url] })
  const gaps = await gapsOf(fleet.publicUrl, { model, messages: [{ role: 'user', content: 'Hi' }], stream: true })
  assert.ok(quantile(gaps, 0.5) < 20, `${quantile(gaps, 0.5)} ms between two events`)
  assert.ok(gaps.length > 20, `${gaps.length} of 40 events came by themselves`)
  await new Promise<void>((resolve) =>
    get(`${fleet.publicUrl}/health`, (response) => response.resume().on('end', resolve)),
  )
})
