import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { CommandIo } from '../../src/commands/command.ts'
import { replay } from '../../src/commands/replay.ts'

const folder = mkdtempSync(join(tmpdir(), 'replay-'))
const agentic = fileURLToPath(new URL('../fixtures/traces/agentic_sessions.jsonl', import.meta.url))

function file(name: string, text: string): string {
  const path = join(folder, name)
  writeFileSync(path, text)
  return path
}

const line = (atMs: number, first: number): object => ({
  ...{ at_ms: atMs, prompt_tokens: 160, output_tokens: 20 },
  blocks: [
    [0, 4],
    [first, first + 4],
  ],
})
const head = { format: 'warmroute-trace', block_tokens: 16 }
const lines = [head, ...Array.from({ length: 60 }, (_, i) => line(i * 40, 100 + 10 * (i % 7)))]
const trace = file('trace.jsonl', lines.map((row) => `${JSON.stringify(row)}\n`).join(''))

interface Ran {
  readonly code: number
  readonly out: string
  readonly error: string
  readonly progress: string
}

/** What the small trace is played with. */
const caches = ['--cache-blocks', '60']

async function run(argv: readonly string[], ended: Promise<string> = new Promise(() => undefined)): Promise<Ran> {
  const told = { out: '', error: '', progress: '' }
  const io: CommandIo = {
    out: (text) => (told.out += text),
    error: (text) => (told.error += text),
    progress: (text) => (told.progress += text),
    ...{ environment: {}, ended, onHangup: () => undefined },
  }
  const code = await replay.run(argv, io)
  return { code, ...told }
}

test('policies are compared in a table, with progress on a terminal', async () => {
  const { code, out, progress } = await run([
    trace,
    ...caches,
    '--workers',
    '2',
    '--seeds',
    '2',
    '--policies',
    'kv-aware,random,oracle',
  ])
  assert.equal(code, 0)
  const [first, ...rows] = out.split('\n')
  assert.match(first ?? '', /^policy +rate +in SLO .*TTFT p90 ms/)
  assert.deepEqual(
    rows.map((row) => row.split(' ')[0]),
    ['kv-aware', 'random', 'oracle'],
  )
  assert.match(progress, /6 of 6 runs/)
})

test('equal options print equal figures, whatever the threads', async () => {
  const one = await run([trace, ...caches, '--seeds', '3', '--csv', '--threads', '1'])
  const three = await run([trace, ...caches, '--seeds', '3', '--csv', '--threads', '3'])
  assert.equal(three.out, one.out)
  assert.equal(one.out.trim().split('\n').length, 1 + 3 * 3)
})

test('what is found is also written as a page of its own, as JSON and as CSV', async () => {
  const out = join(folder, 'out')
  await run([trace, ...caches, '--rate', '1,2,4', '--seeds', '2', '--policies', 'kv-aware,round-robin', '--out', out])
  const page = readFileSync(join(out, 'index.html'), 'utf8')
  assert.match(page, /<svg/)
  assert.doesNotMatch(page, /<script|https?:\/\/(?!www\.w3\.org)/)
  const { played } = JSON.parse(readFileSync(join(out, 'results.json'), 'utf8')) as { played: { load: number }[] }
  assert.deepEqual(
    played.map(({ load }) => load),
    [1, 2, 4, 1, 2, 4],
  )
  assert.match(readFileSync(join(out, 'results.csv'), 'utf8'), /^policy,rate,seed,in SLO/)
})

test('the highest load of each policy is found, and what it saves told', async () => {
  const { out } = await run([
    trace,
    ...caches,
    '--workers',
    '2',
    '--seeds',
    '1',
    '--find-limit',
    '--policies',
    'kv-aware,round-robin',
  ])
  assert.match(out, /kv-aware keeps 95 % within the SLO up to [\d.]+ times the recorded rate/)
  assert.match(out, /round-robin keeps .*for the same load kv-aware needs -?\d+ % fewer GPUs/)
})

test('a fault is played, and changes the figures', async () => {
  const argv = [trace, ...caches, '--workers', '2', '--seeds', '1', '--csv', '--policies', 'kv-aware']
  const healthy = await run(argv)
  const slow = await run([...argv, '--fault', 'slow:worker=0,at=0.5,factor=9', '--fault', 'scale-out:workers=1,at=1'])
  assert.notEqual(slow.out, healthy.out)
})

test('each policy is played with each set-up of tiers', async () => {
  const setups = ['--tiers', 'GPU only:', '--tiers', 'and DRAM:host=400', '--tiers', 'and a store:shared=400,node=2']
  const { out } = await run([trace, ...caches, '--workers', '2', '--policies', 'kv-aware', '--seeds', '1', ...setups])
  const rows = out.split('\n')
  assert.match(rows[0] ?? '', /GB from host +GB from disk +GB from the shared store/)
  assert.deepEqual(
    rows.slice(1).map((row) => row.split(/ {2,}/)[0]),
    ['kv-aware, GPU only', 'kv-aware, and DRAM', 'kv-aware, and a store'],
  )
})

test('policies come from files, too: parts of a config and plugins', async () => {
  const plugin = file(
    'first.mjs',
    `export const first = { kind: 'picker', type: 'always-first', description: 'x', parameters: { type: 'object', properties: {} },
      create: () => ({ pick: (request, fleet, match, totals, keep) => keep.indexOf(1) }) }`,
  )
  const config = file('parts.yaml', 'mine:\n  first: { picker: { type: always-first } }\nprofile: random\n')
  const policies = `${config}#mine.first,${config}`
  const { out } = await run([
    trace,
    ...caches,
    '--plugin',
    plugin,
    '--policies',
    policies,
    '--workers',
    '2',
    '--seeds',
    '1',
    '--csv',
  ])
  const [first, second] = out.trim().split('\n').slice(1)
  assert.match(first ?? '', /^parts\.yaml#mine\.first,/)
  // All of the work on one of two.
  const balance = (row: string | undefined): number => Number(row?.split(',')[3 + 11])
  assert.equal(balance(first), 2)
  assert.ok(balance(second) < 2)
})

test('an end in the midst tells what was played until then', async () => {
  const argv = [
    agentic,
    '--users',
    '30',
    '--think-cap',
    '5',
    '--duration',
    '3000',
    '--seeds',
    '1',
    '--policies',
    'kv-aware',
  ]
  const { code, out, error } = await run(argv, Promise.resolve('SIGINT'))
  assert.equal(code, 130)
  assert.match(error, /ended early/)
  assert.match(out, /kv-aware \(cut short\)/)
})

test('faults of the command line are told before anything is played', async () => {
  const calibration = file('calibration.yaml', 'preset: standard\nstepBaseMs: 0\n')
  const cases: [argv: string[], message: RegExp][] = [
    [[], /one trace/],
    [[trace, '--users', '3'], /open loop: its load is --rate/],
    [[agentic, '--rate', '3'], /closed loop: its load is --users/],
    [[trace, '--workers', '0'], /--workers takes a whole number of at least 1, not "0"/],
    [[trace, '--seeds', 'many'], /--seeds takes/],
    [[trace, ...caches, '--policies', 'clairvoyant'], /"clairvoyant"/],
    [[trace, '--calibration', 'agentic'], /64 tokens do not divide/],
    [[trace, '--calibration', calibration], /"stepBaseMs" must be a number above 0/],
    [[trace, ...caches, '--plugin', join(folder, 'none.mjs')], /Cannot load the plugin/],
    [[trace, '--policies', `${calibration}#profile`], /no profile at "profile"/],
    [[trace, '--fault', 'flood:at=1'], /unknown kind "flood"\. Known: restart:worker=…,at=…,down=…/],
    [[trace, '--fault', 'slow:worker=1,at=3'], /--fault slow: "factor" must be a number/],
    [[trace, '--fault', 'slow:worker=8,at=3,factor=2'], /no worker 8; they are 0 to 7/],
    [[trace, '--fault', 'slow:worker=1,at=3,factr=2'], /--fault slow: unknown field "factr"/],
    [[trace, '--fault', 'foreign:rate=1,prompt=9,output=9,from=0,until=9,worker=8'], /no worker 8; they are 0 to 7/],
    [[trace, '--tiers', 'more:tape=9'], /--tiers more: "tape=9" is none of host=N/],
    [[trace, '--tiers', 'ssd:disk=9'], /a disk takes what leaves the host tier/],
    [[trace, '--cache-blocks', '9'], /60 of 60 requests are longer than a cache of 144 tokens.*nothing is left/],
    [[trace, '--speed', '2'], /--speed goes with --real-time/],
    [
      [trace, '--real-time', '--fault', 'slow:worker=0,at=3,factor=2'],
      /--fault is for virtual time, not for --real-time/,
    ],
    [[trace, '--real-time', '--find-limit'], /--find-limit is for virtual time/],
    [[trace, '--real-time', '--policies', 'kv-aware,oracle'], /"oracle" sees what no router sees/],
    [[trace, '--real-time', '--speed', '0'], /--speed is above 0/],
    [
      [trace, '--real-time', 'http://127.0.0.1:1', '--cache-blocks', '60'],
      /--cache-blocks is for engines that are started/,
    ],
    [[trace, '--real-time', 'http://127.0.0.1:1/v1'], /Nothing answers at http:\/\/127\.0\.0\.1:1\/v1\/models/],
    [[trace, '--real-time=ftp://there'], /takes an http\(s\) URL, not "ftp:\/\/there"/],
    [[trace, '--real-time', 'http://127.0.0.1:1', '--api-key-env', 'NONE'], /the environment has no NONE/],
    [[join(folder, 'none.jsonl')], /Cannot read the trace/],
  ]
  for (const [argv, message] of cases) await assert.rejects(run(argv), { message })
})
