import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { Agent, request as httpRequest } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import type { CommandIo } from '../../src/commands/command.ts'
import { serve } from '../../src/commands/serve.ts'
import { RouterError } from '../../src/errors.ts'
import { startRouter } from '../../src/main.ts'
import { command, servedUrls } from '../support/command.ts'
import { collectingLog, configOf, demoTokenizer, fleetFor, model, postTo } from '../support/fleet.ts'
import { scriptedEngine } from '../support/scripted-engine.ts'
import { until } from '../support/until.ts'

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'warmroute-'))
  t.after(() => rmSync(path, { recursive: true }))
  return path
}

const status = (url: string): Promise<number | 'refused'> =>
  fetch(url, { headers: { connection: 'close' } }).then(
    (answer) => answer.status,
    () => 'refused' as const,
  )

test('a router with no healthy worker is ready, unless it is told to wait for one', async (t) => {
  for (const [readiness, expected] of [
    ['started', 200],
    ['anyWorker', 503],
  ] as const) {
    const fleet = await fleetFor(t, { workers: 0, config: { readiness } })
    assert.equal(await status(`${fleet.adminUrl}/readyz`), expected)
    assert.equal(await status(`${fleet.publicUrl}/health`), expected)
    assert.equal(await status(`${fleet.adminUrl}/healthz`), 200)
  }
})

test('the router is not ready before its first health checks are done', async (t) => {
  let answerHealth = (): void => undefined
  const { createServer } = await import('node:http')
  const slow = createServer((request, response) => {
    if (request.url === '/health') answerHealth = () => response.end()
    else response.writeHead(404).end()
  })
  await new Promise<void>((resolve) => slow.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    slow.closeAllConnections()
    slow.close()
  })
  const { port } = slow.address() as { port: number }
  const free = async (): Promise<number> => {
    const probe = createServer()
    await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve))
    const { port } = probe.address() as { port: number }
    await new Promise((resolve) => probe.close(resolve))
    return port
  }
  const admin = await free()
  const config = configOf({ config: { admin: { port: admin }, health: { timeoutMs: 5000 } } }, [
    `http://127.0.0.1:${port}`,
  ])
  const starting = startRouter(config, { log: collectingLog([]) })
  await until(async () => (await status(`http://127.0.0.1:${admin}/readyz`)) === 503, 'the admin port answers')
  answerHealth()
  const router = await starting
  assert.equal(await status(`${router.adminUrl}/readyz`), 200)
  await router.stop()
})

test('stopping lets a running stream finish, refuses what is new, and says so first', async (t) => {
  let finish = (): void => undefined
  const engine = await scriptedEngine(t, (_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.write('data: 1\n\n')
    finish = () => response.end('data: [DONE]\n\n')
  })
  const fleet = await fleetFor(t, { workers: 0, urls: [engine.url], config: { shutdown: { graceMs: 10_000 } } })
  const streaming = await fleet.chat('Hi', { stream: true })
  const text = streaming.text()
  // A second client keeps an idle connection open, as pools do.
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  t.after(() => agent.destroy())
  const kept = (path: string): Promise<number> =>
    new Promise((resolve, reject) => {
      httpRequest(fleet.publicUrl + path, { agent }, (response) => {
        response.resume().on('end', () => resolve(response.statusCode ?? 0))
      })
        .on('error', reject)
        .end()
    })
  assert.equal(await kept('/health'), 200)
  const startMs = performance.now()
  let stopped = false
  const stopping = fleet.router.stop().then(() => (stopped = true))
  assert.equal(await status(`${fleet.adminUrl}/readyz`), 503)
  await until(async () => (await status(`${fleet.publicUrl}/health`)) === 'refused', 'new connections are refused')
  assert.equal(stopped, false)
  finish()
  assert.equal(await text, 'data: 1\n\ndata: [DONE]\n\n')
  await stopping
  assert.ok(performance.now() - startMs < 5000, 'a kept connection does not hold up the end')
  assert.equal(await status(`${fleet.adminUrl}/healthz`), 'refused')
})

test('an answer that outlives the grace time is cut', async (t) => {
  const engine = await scriptedEngine(t, (_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.write('data: 1\n\n')
  })
  const fleet = await fleetFor(t, { workers: 0, urls: [engine.url], config: { shutdown: { graceMs: 200 } } })
  const text = (await fleet.chat('Hi', { stream: true })).text()
  const cut = assert.rejects(text)
  await fleet.router.stop()
  await cut
  await until(() => engine.open() === 0, 'the engine is told')
})

test('a port that is taken is one clear error, and nothing stays behind', async (t) => {
  const fleet = await fleetFor(t)
  const port = Number(new URL(fleet.publicUrl).port)
  for (const config of [{ listen: { port } }, { admin: { port } }]) {
    await assert.rejects(
      startRouter(configOf({ config }, fleet.simulators.urls), { log: collectingLog([]) }),
      (error: unknown) => {
        assert.ok(error instanceof RouterError)
        assert.equal(error.code, 'PORT_IN_USE')
        assert.match(error.message, new RegExp(`127\\.0\\.0\\.1:${port}`))
        return true
      },
    )
  }
})

test('serve runs as a process of its own, logs one line a request, and ends with 0 on SIGTERM', async (t) => {
  const fleet = await fleetFor(t, { workers: 2 })
  const running = command(
    t,
    ['serve', '--port', '0', '--worker-urls', ...fleet.simulators.urls, '--model-path', demoTokenizer],
    {
      environment: { WARMROUTE_EXPOSE: 'all' },
    },
  )
  const { publicUrl, adminUrl } = await servedUrls(running)
  assert.equal(await status(`${adminUrl}/readyz`), 200)
  const answer = await postTo(
    `${publicUrl}/v1/chat/completions`,
    { model, messages: [{ role: 'user', content: 'Hi' }], max_tokens: 2 },
    { headers: { 'x-request-id': 'logged' } },
  )
  assert.equal(answer.status, 200, await answer.text())
  assert.ok(answer.headers.get('x-warmroute-worker'))
  running.child.kill('SIGTERM')
  assert.equal(await running.exited, 0)
  const lines = running
    .out()
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
  const own = lines.filter(({ requestId }) => requestId === 'logged')
  assert.equal(own.length, 1)
  assert.equal(own[0]?.['msg'], 'request')
  assert.ok(JSON.stringify(own[0]).length <= 600)
  assert.match(running.error(), /SIGTERM: draining/)
})

test('serve ends with 1 and one clear line where it cannot start', async (t) => {
  const fleet = await fleetFor(t)
  const path = folder(t)
  const twoPools = join(path, 'two.yaml')
  writeFileSync(
    twoPools,
    `listen: { port: 0 }\npools:\n  - { model: a, workers: [{ url: '${fleet.simulators.urls[0] ?? ''}' }] }\n  - { model: b, tokenizer: ./none, workers: [{ url: 'http://127.0.0.1:9' }] }\n`,
  )
  const cases: [string[], RegExp][] = [
    [
      ['serve', '--port', new URL(fleet.publicUrl).port, '--worker-urls', 'http://127.0.0.1:9'],
      /Cannot listen on 127\.0\.0\.1:\d+/,
    ],
    [['serve', '--prot', '80'], /--prot.*did you mean --port\?/],
    [['serve'], /no workers/],
    [
      ['serve', '--port', '0', '--worker-urls', 'http://127.0.0.1:9', '--policy', 'nearest'],
      /unknown policy "nearest"/,
    ],
    [['serve', '--port', '0', '--worker-urls', 'http://127.0.0.1:9', '--model-path', path], /tokenizer\.json/],
    [['serve', '--config', twoPools], /tokenizer/],
    [['serve', '--config', join(path, 'none.yaml')], /Cannot read the config file/],
  ]
  const io: CommandIo = {
    out: () => undefined,
    error: () => undefined,
    environment: {},
    ended: new Promise(() => undefined),
    onHangup: () => undefined,
  }
  for (const [[, ...argv], pattern] of cases) {
    await assert.rejects(
      serve.run(argv, io),
      (error: unknown) => error instanceof RouterError && pattern.test(error.message),
    )
  }
  // That the process ends although parts of it have been started can only be seen from outside.
  for (const [argv, pattern] of [cases[0], cases[5]] as typeof cases) {
    const running = command(t, argv)
    await until(() => running.child.exitCode !== null, 'the process ends', 30_000)
    assert.equal(await running.exited, 1)
    assert.match(running.error(), pattern)
    assert.doesNotMatch(running.error(), /^ +at /m)
  }
})

test('check-config prints what will run, or one line a fault', async (t) => {
  const path = folder(t)
  const good = join(path, 'good.yaml')
  writeFileSync(
    good,
    `pools:\n  - model: demo\n    workers: [{ url: 'http://user:secret@127.0.0.1:8000', apiKey: hidden-key }]\nkeys: { secret: very-secret-secret }\n`,
  )
  const bad = join(path, 'bad.yaml')
  writeFileSync(
    bad,
    `listen: { prot: 8080 }\nlimits: { bodyBytes: many }\npools:\n  - { model: demo, profile: nearest, workers: [{ url: 'ftp://x' }] }\n`,
  )
  const broken = join(path, 'broken.yaml')
  writeFileSync(broken, 'pools:\n  - model: demo\n   workers: [\n')
  const policy = join(path, 'policy.yaml')
  writeFileSync(policy, `pools:\n  - { model: demo, profile: nearest, workers: [{ url: 'http://x' }] }\n`)
  const [first, second, third, fourth, help, all, unknown] = [
    ['check-config', good],
    ['check-config', bad],
    ['check-config', broken],
    ['check-config', policy],
    ['serve', '--help'],
    ['--help'],
    ['sevre'],
  ].map((argv) => command(t, argv))
  assert.equal(await first?.exited, 0, first?.error())
  assert.match(first?.out() ?? '', /port: 8080/)
  assert.doesNotMatch(first?.out() ?? '', /secret@|hidden-key|very-secret/)
  assert.equal(await second?.exited, 1)
  assert.match(second?.error() ?? '', /listen: unknown option "prot"; did you mean "port"\?/)
  assert.match(second?.error() ?? '', /limits\.bodyBytes/)
  assert.equal(await third?.exited, 1)
  assert.match(third?.error() ?? '', /broken\.yaml:\d+:\d+: not valid YAML/)
  assert.equal(await fourth?.exited, 1)
  assert.match(fourth?.error() ?? '', /unknown policy "nearest"/)
  assert.equal(await help?.exited, 0)
  assert.match(help?.out() ?? '', /--worker-urls X….*WARMROUTE_WORKER_URLS/)
  assert.equal(await all?.exited, 0)
  assert.match(all?.out() ?? '', /serve.*\n.*check-config/)
  assert.equal(await unknown?.exited, 2)
  assert.match(unknown?.error() ?? '', /did you mean "serve"/)
  for (const running of [second, third, fourth]) assert.doesNotMatch(running?.error() ?? '', /^ +at /m)
})
