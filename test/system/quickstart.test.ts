import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { test, type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { until } from '../support/until.ts'

interface Run {
  readonly child: ChildProcess
  readonly output: () => string
  readonly code: Promise<number | null>
}

function quickstart(t: TestContext, ...args: string[]): Run {
  const script = fileURLToPath(new URL('../../scripts/quickstart.ts', import.meta.url))
  const child = spawn(process.execPath, [script, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => (output += text))
  const code = once(child, 'close').then(([status]) => status as number | null)
  t.after(async () => {
    if (child.exitCode === null) child.kill('SIGKILL')
    await code
  })
  return { child, output: () => output, code }
}

/** The rows of the printed comparison: hits in percent, mean time to first token in ms, requests. */
function tableOf(output: string) {
  const row = /^ {2}(\S+) +([\d.]+) % +(\d+) ms +(\d+) ms +(\d+) ms +([\d ]+)$/gm
  return new Map(
    [...output.matchAll(row)].map(([, policy = '', hits, mean, , , requests = '']) => [
      policy,
      {
        hits: Number(hits),
        meanMs: Number(mean),
        requests: requests.split(' ').reduce((sum, count) => sum + Number(count), 0),
      },
    ]),
  )
}

test('--once plays the workload under each policy, shows that kv-aware won, and ends with code 0', async (t) => {
  const run = quickstart(t, '--once', '--quick', '--port', '0')
  assert.equal(await run.code, 0, run.output())
  const table = tableOf(run.output())
  assert.deepEqual([...table.keys()], ['kv-aware', 'least-loaded', 'round-robin'])
  const router = table.get('kv-aware')
  for (const other of ['least-loaded', 'round-robin'].map((policy) => table.get(policy))) {
    assert(router !== undefined && other !== undefined)
    assert(router.hits > other.hits + 5, run.output())
    assert(router.meanMs < other.meanMs, run.output())
    assert.equal(router.requests, other.requests)
  }
  assert.match(run.output(), /kv-aware +48 \/ 48 requests/)
})

test('without --once it keeps serving, on free ports where its own are taken, until it is interrupted', async (t) => {
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  t.after(() => taken.close())
  const { port } = taken.address() as AddressInfo
  const run = quickstart(t, '--quick', '--port', String(port))
  await until(() => run.output().includes('Try:') || run.child.exitCode !== null, 'it serves', 60_000)
  assert.match(run.output(), new RegExp(`port ${port} or ${port + 1} is taken`))
  const [, publicUrl = ''] = /public +(http:\S+)/.exec(run.output()) ?? []
  const [, request = ''] = /-d '(.*)'/.exec(run.output()) ?? []
  const answer = await fetch(`${publicUrl}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: request,
  })
  assert.match(await answer.text(), /"delta":\{"content":" [a-z]+"\}[^]*data: \[DONE\]/)
  const [, decisionsUrl = ''] = /curl '(http:\S+decisions\?limit=1)'/.exec(run.output()) ?? []
  assert.match(await (await fetch(decisionsUrl)).text(), /"profile": ?"kv-aware"/)
  run.child.kill('SIGINT')
  assert.equal(await run.code, 0, run.output())
  await assert.rejects(fetch(publicUrl))
})

test('an interrupted demonstration ends at once, with code 130', async (t) => {
  const run = quickstart(t, '--port', '0')
  await until(() => /\d+ \/ \d+ requests/.test(run.output()), 'it plays', 30_000)
  run.child.kill('SIGINT')
  assert.equal(await run.code, 130, run.output())
  assert.match(run.output(), /before the comparison was complete/)
})

test('--help tells the options; a wrong one is refused with the usage', async (t) => {
  const help = quickstart(t, '--help')
  assert.equal(await help.code, 0)
  for (const option of ['--once', '--quick', '--port']) assert(help.output().includes(option))
  const wrong = quickstart(t, '--twice')
  assert.equal(await wrong.code, 1)
  assert.match(wrong.output(), /quickstart: .*--twice[^]*Usage:/)
  assert.equal(await quickstart(t, '--port', 'http').code, 1)
})
