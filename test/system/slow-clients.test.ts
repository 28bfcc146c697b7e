import assert from 'node:assert/strict'
import { connect, type Socket } from 'node:net'
import { test } from 'node:test'
import { fleetFor, model } from '../support/fleet.ts'
import { scriptedEngine } from '../support/scripted-engine.ts'
import { until } from '../support/until.ts'

/** Milliseconds of so many requests one after the other, sorted. */
async function timed(count: number, once: () => Promise<unknown>): Promise<number[]> {
  const samplesMs: number[] = []
  for (let i = 0; i < count; i++) {
    const startMs = performance.now()
    await once()
    samplesMs.push(performance.now() - startMs)
  }
  return samplesMs.sort((a, b) => a - b)
}

test('five hundred clients that send a byte a second are cut at the limit, and a healthy one never notices', async (t) => {
  const engine = await scriptedEngine(t, (_request, response) =>
    response.writeHead(200, { 'content-type': 'application/json' }).end('{}'),
  )
  const fleet = await fleetFor(t, {
    workers: 0,
    urls: [engine.url],
    worker: { blockSize: 16 },
    config: { timeouts: { headersMs: 2000, requestMs: 2500 } },
  })
  const healthy = async (): Promise<void> => {
    const answer = await fleet.chat('Hi')
    assert.equal(answer.status, 200, await answer.text())
  }
  await timed(50, healthy)
  const alone = await timed(200, healthy)

  const { hostname, port } = new URL(fleet.publicUrl)
  const slow: { socket: Socket; text: string; closed: boolean }[] = []
  const body = JSON.stringify({ model, messages: [{ role: 'user', content: 'x'.repeat(1000) }] })
  const bytes = [
    `POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-long: ${'x'.repeat(1000)}`,
    `POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
  ]
  const startMs = performance.now()
  for (let i = 0; i < 500; i++) {
    const entry = { socket: connect(Number(port), hostname), text: '', closed: false }
    slow.push(entry)
    entry.socket.on('error', () => undefined)
    entry.socket.on('data', (chunk) => (entry.text += chunk.toString('latin1')))
    entry.socket.on('close', () => (entry.closed = true))
    // Half of them have sent their whole head by now and go on with the body.
    entry.socket.write((bytes[i % 2] as string).slice(0, i % 2 === 0 ? 20 : 100))
  }
  let sent = 100
  const drip = setInterval(() => {
    sent++
    for (const [i, { socket }] of slow.entries()) socket.write((bytes[i % 2] as string).slice(sent, sent + 1))
  }, 1000)
  t.after(() => {
    clearInterval(drip)
    for (const { socket } of slow) socket.destroy()
  })
  await until(() => slow.every(({ socket }) => !socket.connecting), 'all are connected')
  const beside = await timed(200, healthy)
  await until(() => slow.every(({ closed }) => closed), 'all are cut', 8000)
  assert.ok(performance.now() - startMs < 8000)
  for (const { text } of slow) {
    assert.match(text, /^HTTP\/1\.1 408 /)
    assert.match(text, /"code":"request_timeout"/)
  }
  assert.equal(await fleet.metric('refused_at_door_total', { reason: 'request_timeout' }), 500)
  const p99 = (samples: readonly number[]): number => samples[Math.floor(samples.length * 0.99)] ?? 0
  t.diagnostic(`p99 ${p99(alone).toFixed(1)} ms alone, ${p99(beside).toFixed(1)} ms beside 500 slow clients`)
  // A busy machine may stretch a few milliseconds by more than a factor of 2.
  assert.ok(p99(beside) < Math.max(2 * p99(alone), 50), `${p99(beside)} ms beside, ${p99(alone)} ms alone`)
  await until(async () => (await fleet.metric('request_body_bytes')) === 0, 'no byte of theirs is held')
})
