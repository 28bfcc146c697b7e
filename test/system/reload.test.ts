import assert from 'node:assert/strict'
import { copyFileSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { connect } from 'node:tls'
import { fileURLToPath } from 'node:url'
import { hashOfKey } from '../../src/admission/api-keys.ts'
import { checkConfig } from '../../src/config/load.ts'
import type { Config } from '../../src/config/schema.ts'
import { startSimulators } from '../../src/simulator/simulate.ts'
import { loadTokenizer } from '../../src/tokenize/tokenizer.ts'
import { command, servedUrls } from '../support/command.ts'
import { configOf, demoTokenizer, fleetFor, model, postTo, prose, type Fleet } from '../support/fleet.ts'
import { scriptedEngine } from '../support/scripted-engine.ts'
import { until } from '../support/until.ts'

/** A router whose config a test may change. */
async function reloadable(
  t: TestContext,
  first: object,
): Promise<{ fleet: Fleet; take: (next: object) => Promise<string> }> {
  let given = first
  const load = (): Config => configOf({ config: given }, [])
  const fleet = await fleetFor(t, { workers: 0, config: first, source: { file: null, load } })
  return {
    fleet,
    take: async (next) => {
      given = next
      return fleet.router.reload()
    },
  }
}

const pool = (urls: readonly string[], more: object = {}): object => ({
  model,
  tokenizer: demoTokenizer,
  workers: urls.map((url) => ({ url })),
  ...more,
})

async function simulators(t: TestContext, workers: number): Promise<readonly string[]> {
  const tokenizer = await loadTokenizer({ path: demoTokenizer })
  const started = await startSimulators({
    workers,
    model,
    tokenizer,
    engine: { stepBaseMs: 1, decodeMsPerRequest: 0.1, prefillTokensPerSecond: 100_000 },
  })
  t.after(() => started.stop())
  return started.urls
}

test('a hundred reloads under load lose no request', { timeout: 120_000 }, async (t) => {
  const urls = await simulators(t, 3)
  const [a = '', b = '', c = ''] = urls
  const configs = [
    { pools: [pool([a, b])] },
    { pools: [pool([a, b, c])], timeouts: { connectMs: 4000 } },
    { pools: [pool([c], { aliases: ['also'] })] },
    { pools: [{ ...pool([]), workers: urls.map((url) => ({ url, blockSize: 16, labels: { zone: 'x' } })) }] },
    { pools: [pool([b, c], { profile: 'round-robin' })], health: { intervalMs: 50, timeoutMs: 2000, failures: 3 } },
    { pools: [{ ...pool([]), workers: urls.map((url) => ({ url, blockSize: 16, apiKey: 'changed-key' })) }] },
  ]
  const { fleet, take } = await reloadable(t, configs[0] ?? {})
  let ended = false
  let requests = 0
  const clients = Array.from({ length: 4 }, async (_, client) => {
    for (let turn = 0; !ended; turn++) {
      const stream = turn % 2 === 0
      const answer = await fleet.chat(prose(`client ${client} turn ${turn}`, 20), { stream })
      const text = await answer.text()
      assert.equal(answer.status, 200, text)
      assert.match(text, stream ? /data: \[DONE\]\n\n$/ : /"finish_reason":"length"/)
      requests++
    }
  })
  // A client that fails must end the test at once.
  const failed = Promise.all(clients)
  for (let reload = 1; reload <= 100; reload++) {
    assert.equal(await Promise.race([take(configs[reload % configs.length] ?? {}), failed]), 'applied')
    const before = requests
    // Some follow at once, others find those before them settled.
    if (reload % 4 === 0) await Promise.race([until(() => requests > before + 6, 'requests go on'), failed])
  }
  ended = true
  await failed
  assert.ok(requests > 50, `${requests} requests`)
  await take({ pools: [pool([a])] })
  await until(async () => (await fleet.workers()).length === 1, 'those who left are gone', 10_000)
  await until(async () => !(await fleet.metricsText()).includes(b), 'and no series names them')
  t.diagnostic(`${requests} requests over 100 reloads`)
})

test('workers of the file come and go with it; one that leaves ends its streams', async (t) => {
  const finish: (() => void)[] = []
  const engines = await Promise.all(
    ['one', 'two'].map(() =>
      scriptedEngine(t, (_request, response) => {
        response.writeHead(200, { 'content-type': 'text/event-stream' })
        response.write('data: 1\n\n')
        finish.push(() => response.end('data: [DONE]\n\n'))
      }),
    ),
  )
  const [one = '', two = ''] = engines.map(({ url }) => url)
  const { fleet, take } = await reloadable(t, { pools: [pool([one])] })
  const text = (await fleet.chat('Hi', { stream: true })).text()
  assert.equal(await take({ pools: [pool([two])] }), 'applied')
  await until(
    async () => (await fleet.workers()).some(({ id, state }) => id === two && state === 'healthy'),
    'two is up',
  )
  await until(
    async () => (await fleet.workers()).some(({ id, state }) => id === one && state === 'draining'),
    'one leaves',
  )
  const other = await fleet.chat('Hi', { stream: true })
  assert.equal(other.headers.get('x-warmroute-worker'), two)
  for (const end of finish) end()
  await other.text()
  assert.equal(await text, 'data: 1\n\ndata: [DONE]\n\n', 'the stream was not cut')
  await until(async () => (await fleet.workers()).map(({ id }) => id).join() === two, 'one is gone')
})

test('pools, their names and their profiles follow the file', async (t) => {
  const [url = ''] = await simulators(t, 1)
  const other = await scriptedEngine(
    t,
    (_request, response) => void response.writeHead(200, { 'content-type': 'application/json' }).end('{}'),
    'second',
  )
  const { fleet, take } = await reloadable(t, { pools: [pool([url], { aliases: ['old-name'] })] })
  const status = async (name: string): Promise<number> => {
    const answer = await fleet.chat('Hi', { model: name })
    await answer.text()
    return answer.status
  }
  assert.equal(await status('old-name'), 200)
  assert.equal(await status('second'), 404)
  const second = { model: 'second', workers: [{ url: other.url }] }
  await take({ pools: [pool([url], { aliases: ['new-name'], profile: 'random' }), second] })
  await until(async () => (await fleet.workers()).every(({ state }) => state === 'healthy'), 'the second pool is up')
  assert.deepEqual(await Promise.all(['old-name', 'new-name', model, 'second'].map(status)), [404, 200, 200, 200])
  assert.equal((await fleet.decisions()).find(({ pool }) => pool === model)?.profile, 'random')
  await take({ pools: [pool([url])] })
  assert.deepEqual(await Promise.all(['new-name', model, 'second'].map(status)), [404, 200, 404])
  await until(async () => (await fleet.workers()).length === 1, 'its worker is gone')
})

test('labels, headers and keys change as the worker runs, which keeps what is known of its cache', async (t) => {
  const [url = ''] = await simulators(t, 1)
  const { fleet, take } = await reloadable(t, { pools: [pool([url])] })
  await (await fleet.chat(prose('kept', 60))).text()
  await until(async () => ((await fleet.workers())[0]?.map.blocks.gpu ?? 0) > 0, 'its events have come')
  const blocks = (await fleet.workers())[0]?.map.blocks.gpu
  const changed = { url, labels: { zone: 'b' }, headers: { 'X-Team': 'blue' }, apiKey: 'other-key' }
  assert.equal(await take({ pools: [{ ...pool([]), workers: [changed] }] }), 'applied')
  const [worker, ...more] = await fleet.workers()
  assert.equal(more.length, 0)
  assert.equal(worker?.map.blocks.gpu, blocks)
  assert.deepEqual((worker as unknown as { labels: object }).labels, { zone: 'b' })
})

test('orders of operators outlive reloads, and go with the worker', async (t) => {
  const [a = '', b = ''] = await simulators(t, 2)
  const { fleet, take } = await reloadable(t, { pools: [pool([a, b])] })
  const order = (method: string, id: string, body?: object): Promise<Response> =>
    fetch(`${fleet.adminUrl}/admin/workers?id=${encodeURIComponent(id)}`, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
  const states = async (): Promise<string[]> => (await fleet.workers()).map(({ id, state }) => `${id} ${state}`)
  await order('PATCH', a, { state: 'draining' })
  await order('DELETE', b)
  await until(async () => (await fleet.workers()).length === 1, 'the deleted one is gone')
  const changed = { pools: [{ ...pool([b]), workers: [{ url: a, blockSize: 16 }, { url: b }] }] }
  assert.equal(await take(changed), 'applied')
  await until(
    async () => (await states()).join() === `${a} draining` && (await fleet.workers())[0]?.blockSize === 16,
    'another worker in the place of the drained one is drained too, and the deleted one stays away',
  )
  await take({ pools: [pool([])] })
  await take({ pools: [pool([a, b])] })
  await until(
    async () => (await states()).sort().join() === [`${a} healthy`, `${b} healthy`].sort().join(),
    'named anew, both are back',
  )
})

test('options that need a restart are named, and the others are taken over', async (t) => {
  const [url = ''] = await simulators(t, 1)
  const { fleet, take } = await reloadable(t, { pools: [pool([url])] })
  const next = {
    pools: [pool([url], { aliases: ['more'] })],
    keys: { secret: 'a-secret-of-sixteen' },
    decisions: { kept: 7 },
  }
  assert.equal(await take(next), 'applied')
  const lines = fleet.log.filter(({ message }) => message === 'changed options wait for a restart')
  assert.deepEqual(
    lines.map(({ level, fields }) => [level, fields['options']]),
    [['warn', ['keys.secret', 'decisions.kept']]],
  )
  assert.ok(!JSON.stringify(fleet.log).includes('a-secret-of'), 'values are not logged')
  assert.equal((await fleet.chat('Hi', { model: 'more' })).status, 200)
  assert.equal(await take(next), 'unchanged')
})

test('a config that is not good changes nothing at all', async (t) => {
  const [url = ''] = await simulators(t, 1)
  const { fleet, take } = await reloadable(t, { pools: [pool([url])] })
  const bad: [object, RegExp][] = [
    [
      { pools: [pool([url], { aliases: ['bad'], profile: 'nearest' })] },
      /pools\[0\]\.profile: unknown policy "nearest"/,
    ],
    [{ pools: [pool([url], { aliases: ['bad'], tokenizer: './none' })] }, /tokenizer/],
    [{ pools: [pool([url], { aliases: ['bad'] }), { model: 'x', tokenizer: './none', workers: [] }] }, /tokenizer/],
    [{ pools: [pool([url, 'ftp://x'], { aliases: ['bad'] })] }, /neither http nor https/],
    [{ pools: [pool([url], { aliases: ['bad'] })], plugins: ['./none.ts'] }, /cannot load/],
  ]
  for (const [given, pattern] of bad) {
    const before = fleet.log.length
    assert.equal(await take(given), 'failed')
    const told = fleet.log.slice(before).filter(({ level }) => level === 'error')
    assert.equal(told.length, 1)
    assert.match(String(told[0]?.fields['fault']), pattern)
    assert.doesNotMatch(String(told[0]?.fields['fault']), /\n +at /)
    assert.equal(await fleet.metric('config_last_reload_success'), 0)
  }
  assert.equal((await fleet.chat('Hi', { model: 'bad' })).status, 404)
  assert.equal((await fleet.chat('Hi')).status, 200)
  assert.equal(await fleet.metric('config_reloads_total', { result: 'failed' }), bad.length)
  assert.equal(await take({ pools: [pool([url])], load: { staleMs: 4000 } }), 'applied')
  assert.equal(await fleet.metric('config_last_reload_success'), 1)
})

test('a good tokenizer in the place of another is taken over', async (t) => {
  const [url = ''] = await simulators(t, 1)
  const { fleet, take } = await reloadable(t, { pools: [{ model, workers: [{ url }] }] })
  const promptTokens = async (): Promise<number> => {
    await (await fleet.chat('Hi')).text()
    return (await fleet.decisions(1))[0]?.blocks ?? -1
  }
  assert.equal((await fleet.decisions(1)).length, 0)
  await promptTokens()
  assert.equal((await fleet.decisions(1))[0]?.fallback, 'no_tokenizer')
  assert.equal(await take({ pools: [pool([url])] }), 'applied')
  await promptTokens()
  assert.notEqual((await fleet.decisions(1))[0]?.fallback, 'no_tokenizer')
})

test(
  'serve takes over its file on SIGHUP and when it changes, and keeps the old one when the new is bad',
  { timeout: 60_000 },
  async (t) => {
    const [url = ''] = await simulators(t, 1)
    const path = mkdtempSync(join(tmpdir(), 'warmroute-'))
    t.after(() => rmSync(path, { recursive: true }))
    const file = join(path, 'config.yaml')
    const write = (aliases: string, watch: boolean): void => {
      writeFileSync(
        `${file}.new`,
        `listen: { port: 0 }\nadmin: { port: 0 }\nreload: { watch: ${watch}, pollMs: 20 }\npools:\n  - { model: demo, aliases: ${aliases}, tokenizer: '${demoTokenizer}', workers: [{ url: '${url}' }] }\n`,
      )
      renameSync(`${file}.new`, file)
    }
    const status = (publicUrl: string, name: string): Promise<number> =>
      postTo(`${publicUrl}/v1/chat/completions`, {
        model: name,
        max_tokens: 1,
        messages: [{ role: 'user', content: 'Hi' }],
      }).then(async (answer) => {
        await answer.text()
        return answer.status
      })
    for (const watch of [false, true]) {
      write('[first]', watch)
      const running = command(t, ['serve', '--config', file])
      const { publicUrl } = await servedUrls(running)
      const reload = (): void => {
        if (!watch) running.child.kill('SIGHUP')
      }
      await until(async () => (await status(publicUrl, 'first')) === 200, 'it serves')
      write('[second]', watch)
      reload()
      await until(async () => (await status(publicUrl, 'second')) === 200, 'the new name is served')
      write('[third', watch)
      reload()
      await until(() => running.out().includes('config not reloaded'), 'the fault is told')
      assert.match(running.out(), /config\.yaml:\d+:\d+: not valid YAML/)
      assert.equal(await status(publicUrl, 'second'), 200)
      write('[third]', watch)
      reload()
      await until(async () => (await status(publicUrl, 'third')) === 200, 'the mended one is taken over')
      running.child.kill('SIGTERM')
      assert.equal(await running.exited, 0)
    }
  },
)

test('check-config’s own examples stay good: a pool may have no workers yet', () => {
  assert.deepEqual(checkConfig({ pools: [{ model: 'm' }] }).pools[0]?.workers, [])
})

test('renewed certificates are shown from the next reload on, though the config is the same', async (t) => {
  const path = mkdtempSync(join(tmpdir(), 'warmroute-'))
  t.after(() => rmSync(path, { recursive: true }))
  const tls = { cert: join(path, 'tls.crt'), key: join(path, 'tls.key') }
  const fixture = (name: string): string => fileURLToPath(new URL(`../fixtures/tls/${name}`, import.meta.url))
  const write = (cert: string, key: string): void => {
    copyFileSync(fixture(cert), tls.cert)
    copyFileSync(fixture(key), tls.key)
  }
  write('server.pem', 'server.key')
  const config = { listen: { port: 0, tls }, pools: [{ model }] }
  const { fleet, take } = await reloadable(t, config)
  const shown = (): Promise<string> =>
    new Promise((resolve, reject) => {
      const socket = connect({
        port: Number(new URL(fleet.publicUrl).port),
        host: '127.0.0.1',
        rejectUnauthorized: false,
      })
      socket.on('error', reject).on('secureConnect', () => {
        resolve(socket.getPeerCertificate().serialNumber)
        socket.destroy()
      })
    })
  const first = await shown()
  write('renewed.pem', 'renewed.key')
  assert.equal(await shown(), first, 'not before the reload')
  assert.equal(await take(config), 'unchanged')
  const second = await shown()
  assert.notEqual(second, first)
  write('server.pem', 'renewed.key')
  assert.equal(await take(config), 'failed', 'a key of another certificate')
  assert.equal(await shown(), second)
})

test('a key that is taken off the list is refused from then on', async (t) => {
  const engine = await scriptedEngine(
    t,
    (_request, response) => void response.writeHead(200, { 'content-type': 'application/json' }).end('{}'),
  )
  const pools = [{ model, workers: [{ url: engine.url }] }]
  const keys = (...names: readonly string[]): object[] => names.map((name) => ({ id: name, hash: hashOfKey(name) }))
  const { fleet, take } = await reloadable(t, { pools, apiKeys: keys('old', 'lasting') })
  const status = async (key: string): Promise<number> =>
    (await fleet.chat('Hi', {}, { headers: { authorization: `Bearer ${key}` } })).status
  const all = (): Promise<number[]> => Promise.all(['old', 'lasting', 'new'].map(status))
  assert.deepEqual(await all(), [200, 200, 401])
  assert.equal(await take({ pools, apiKeys: keys('lasting', 'new') }), 'applied')
  assert.deepEqual(await all(), [401, 200, 200])
})
