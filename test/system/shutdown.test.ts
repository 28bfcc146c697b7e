import assert from 'node:assert/strict'
import { request as httpRequest } from 'node:http'
import { test, type TestContext } from 'node:test'
import { startSimulators } from '../../src/simulator/simulate.ts'
import { loadTokenizer } from '../../src/tokenize/tokenizer.ts'
import { command, servedUrls, type RunningCommand } from '../support/command.ts'
import { demoTokenizer, fleetFor, model, postTo } from '../support/fleet.ts'
import { scriptedEngine } from '../support/scripted-engine.ts'
import { until } from '../support/until.ts'

interface Streams {
  readonly running: RunningCommand
  readonly publicUrl: string
  readonly adminUrl: string
  /** Each stream's text, or null where it was cut. */
  readonly ends: Promise<(string | null)[]>
  readonly ended: () => number
}

/** A router as a process of its own, with streams under way that take about `seconds`. */
async function streaming(t: TestContext, count: number, seconds: number): Promise<Streams> {
  const tokens = 20
  const simulators = await startSimulators({
    workers: 2,
    model,
    tokenizer: await loadTokenizer({ path: demoTokenizer }),
    engine: { stepBaseMs: (seconds * 1000) / tokens, decodeMsPerRequest: 0, prefillTokensPerSecond: 1e6 },
  })
  t.after(() => simulators.stop())
  const running = command(t, ['serve', '--port', '0', '--admin-port', '0', '--worker-urls', ...simulators.urls])
  const { publicUrl, adminUrl } = await servedUrls(running)
  await until(
    async () => (await (await fetch(`${adminUrl}/metrics`)).text()).match(/state="healthy"} 1/g)?.length === 2,
    'both workers are healthy',
    15_000,
  )
  let begun = 0
  let ended = 0
  const streams = Array.from({ length: count }, async () => {
    const answer = await postTo(`${publicUrl}/v1/chat/completions`, {
      model,
      stream: true,
      max_tokens: tokens,
      messages: [{ role: 'user', content: 'Hi' }],
    })
    assert.equal(answer.status, 200)
    begun++
    const text = await answer.text().catch(() => null)
    ended++
    return text
  })
  const ends = Promise.all(streams)
  await Promise.race([until(() => begun === count, 'all streams have begun', 20_000), ends])
  return { running, publicUrl, adminUrl, ends, ended: () => ended }
}

test(
  'SIGTERM under 200 streams: not ready, no new work, every stream ends whole, exit 0',
  { timeout: 90_000 },
  async (t) => {
    const { running, publicUrl, adminUrl, ends, ended } = await streaming(t, 200, 5)
    running.child.kill('SIGTERM')
    await until(async () => (await fetch(`${adminUrl}/readyz`)).status === 503, 'it is no longer ready')
    await until(
      () =>
        fetch(`${publicUrl}/health`, { headers: { connection: 'close' } }).then(
          () => false,
          () => true,
        ),
      'new connections are refused',
    )
    assert.ok(ended() < 200, 'streams are under way')
    const texts = await ends
    const whole = texts.filter((text) => text?.endsWith('data: [DONE]\n\n'))
    assert.equal(whole.length, 200)
    assert.equal(await running.exited, 0)
  },
)

test('a second signal, whichever it is, ends the process at once', { timeout: 60_000 }, async (t) => {
  const { running, adminUrl, ends } = await streaming(t, 5, 60)
  running.child.kill('SIGTERM')
  await until(async () => (await fetch(`${adminUrl}/readyz`)).status === 503, 'it drains')
  running.child.kill('SIGINT')
  assert.equal(await running.exited, 130)
  assert.deepEqual(await ends, [null, null, null, null, null])
})

test('requests that wait for room, and those that come on open connections, get 503 while draining', async (t) => {
  let finish = (): void => undefined
  const engine = await scriptedEngine(t, (_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.write('data: 1\n\n')
    finish = () => response.end('data: [DONE]\n\n')
  })
  const fleet = await fleetFor(t, {
    workers: 0,
    urls: [engine.url],
    config: { admission: { saturation: { requestsPerWorker: 1 } }, shutdown: { graceMs: 20_000 } },
  })
  const first = (await fleet.chat('Hi', { stream: true })).text()
  const queued = fleet.chat('Hi')
  await until(async () => (await fleet.metric('admission_queued_requests')) === 1, 'one waits')
  // A client whose head is there before the end begins, and whose body comes after.
  const late = httpRequest(`${fleet.publicUrl}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', expect: '100-continue' },
  })
  const lateStatus = new Promise<number>((resolve, reject) => {
    late.on('error', reject).on('response', (response) => {
      response.resume()
      resolve(response.statusCode ?? 0)
    })
  })
  await new Promise<void>((resolve) => late.on('continue', resolve).flushHeaders())
  const stopping = fleet.router.stop()
  const refused = await queued
  assert.equal(refused.status, 503)
  assert.match(await refused.text(), /"code":"draining"/)
  assert.ok(refused.headers.has('retry-after'))
  late.end('{"model":"demo","messages":[{"role":"user","content":"Hi"}]}')
  assert.equal(await lateStatus, 503)
  finish()
  assert.equal(await first, 'data: 1\n\ndata: [DONE]\n\n')
  await stopping
})
