import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test, type TestContext } from 'node:test'
import { hashOfKey } from '../../src/admission/api-keys.ts'
import type { CommandIo } from '../../src/commands/command.ts'
import { replay } from '../../src/commands/replay.ts'
import type { ReplayResult } from '../../src/replay/summary.ts'
import { command } from '../support/command.ts'
import { fleetFor, type FleetOptions } from '../support/fleet.ts'
import { until } from '../support/until.ts'

const folder = mkdtempSync(join(tmpdir(), 'warmroute-real-time-'))
after(() => rmSync(folder, { recursive: true, force: true }))

/** Sessions of four kinds, each with a long beginning, which grow by ten blocks a turn. */
function traceOf(sessions: number, turns: number): string {
  const lines: object[] = [{ format: 'warmroute-trace', block_tokens: 16 }]
  for (let session = 0; session < sessions; session++) {
    for (let turn = 0; turn < turns; turn++) {
      const kind = 1_000 * (session % 4)
      const own = 10_000 + 1_000 * session
      const blocks = [[kind, kind + 39], ...(turn === 0 ? [] : [[own, own + 10 * turn - 1]])]
      const lengths = { prompt_tokens: 16 * (40 + 10 * turn) + 5, output_tokens: 24 }
      lines.push({ session: `s${session}`, ...(turn === 0 ? {} : { think_ms: 400 }), ...lengths, blocks })
    }
  }
  const path = join(folder, `${sessions}-${turns}.jsonl`)
  writeFileSync(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(''))
  return path
}

interface Ran {
  readonly code: number
  readonly out: string
  readonly error: string
}

interface RunOptions {
  readonly environment?: CommandIo['environment']
  readonly ended?: Promise<string>
  readonly onProgress?: (text: string) => void
}

async function run(argv: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const told = { out: '', error: '' }
  const code = await replay.run(argv, {
    out: (text) => (told.out += text),
    error: (text) => (told.error += `${text}\n`),
    ...{ environment: options.environment ?? process.env, ended: options.ended ?? new Promise(() => undefined) },
    onHangup: () => undefined,
    ...(options.onProgress === undefined ? {} : { progress: options.onProgress }),
  })
  return { code, ...told }
}

/** By policy, from JSON. */
function resultsIn({ out }: Ran): Map<string, ReplayResult> {
  const { played } = JSON.parse(out) as { played: { policy: string; runs: ReplayResult[] }[] }
  return new Map(played.map(({ policy, runs }) => [policy, runs[0] as ReplayResult]))
}

test('a trace finds over HTTP what it finds in virtual time, under each policy', async () => {
  const setting = ['--workers', '3', '--cache-blocks', '500', '--users', '8', '--seeds', '1', '--json']
  const argv = [traceOf(10, 3), '--policies', 'kv-aware,round-robin', ...setting]
  const virtual = resultsIn(await run(argv))
  const real = resultsIn(await run([...argv, '--real-time', '--speed', '5']))
  for (const policy of ['kv-aware', 'round-robin']) {
    const [one, other] = [real.get(policy), virtual.get(policy)]
    assert.ok(one !== undefined && other !== undefined)
    assert.deepEqual([one.requests, one.timedOut, one.refused, one.failed], [other.requests, 0, 0, 0])
    assert.ok(Math.abs(one.hitRatio - other.hitRatio) < 0.06, `${policy}: ${one.hitRatio}, ${other.hitRatio}`)
    assert.ok(one.ttftMs.mean >= other.ttftMs.p50 / 2 && one.itlMs.mean > 0 && one.balance >= 1)
  }
  assert.ok((real.get('kv-aware')?.hitRatio ?? 0) > (real.get('round-robin')?.hitRatio ?? 1) + 0.05)
})

/** Engines as fast as time, behind a router in this process. */
function running(t: TestContext, options: FleetOptions = {}) {
  return fleetFor(t, { workers: 2, ...options })
}

test('a router that runs already is played against by its URL, with its model and a key', async (t) => {
  const apiKeys = [{ id: 'player', hash: hashOfKey('a-key') }]
  const fleet = await running(t, { config: { apiKeys } })
  const argv = [traceOf(6, 2), '--real-time', `${fleet.publicUrl}/v1/`, '--policies', 'mine', '--speed', '4', '--json']
  await assert.rejects(run(argv), { code: 'UPSTREAM_INVALID', message: /answers 401/ })
  const ran = await run([...argv, '--api-key-env', 'A_KEY'], { environment: { A_KEY: 'a-key' } })
  const result = resultsIn(ran).get('mine')
  assert.deepEqual([ran.code, result?.requests, result?.failed], [0, 12, 0])
  assert.ok((result?.hitRatio ?? 0) > 0.3 && !Number.isFinite(result?.balance))
  const served = (await fleet.decisions()).map(({ promptTokens }) => promptTokens)
  assert.deepEqual([...new Set(served)].sort(), [645, 805])
  assert.ok(!ran.error.includes('a-key') && !ran.out.includes('a-key'))
})

test('requests that time out or are refused miss the SLO, and are told apart', async (t) => {
  const fleet = await running(t, { workers: 1, config: { retries: { attempts: 0 }, outliers: { failures: 1000 } } })
  const slo = ['--slo-ttft', '60000', '--slo-itl', '60000']
  const argv = [traceOf(4, 1), '--real-time', fleet.publicUrl, '--speed', '100', '--json', ...slo]
  const outcomes = async (...more: string[]) => {
    const ran = await run([...argv, ...more])
    const { timedOut, refused, failed, inSlo, ttftMs } = resultsIn(ran).get('as it runs') as ReplayResult
    return { ran, told: { timedOut, refused, failed, inSlo, mean: ttftMs.mean } }
  }
  const paths = ['/v1/completions']
  fleet.worker(0).fault({ kind: 'hang', count: 1, paths })
  const hung = await outcomes('--timeout', '1', '--users', '1')
  assert.deepEqual({ ...hung.told, mean: 0 }, { timedOut: 1, refused: 0, failed: 0, inSlo: 0.75, mean: 0 })
  assert.ok(hung.told.mean >= 250, 'who gave up counts with the time waited')
  await until(() => fleet.worker(0).counters?.running === 0, 'the engine is let go')
  fleet.worker(0).fault({ kind: 'status', status: 503, paths })
  const refused = await outcomes()
  assert.deepEqual(refused.told, { timedOut: 0, refused: 4, failed: 0, inSlo: 0, mean: 0 })
  assert.match(refused.ran.error, /4 × HTTP 503: /)
  fleet.worker(0).fault({ kind: 'cut', afterEvents: 3, paths })
  const broken = await outcomes()
  assert.deepEqual(broken.told, { timedOut: 0, refused: 0, failed: 4, inSlo: 0, mean: 0 })
})

test('what the router refuses is told in its own words', async () => {
  const argv = [traceOf(4, 1), '--real-time', '--workers', '1', '--cache-blocks', '500', '--policies', 'clairvoyant']
  await assert.rejects(run(argv), { code: 'CONFIG_INVALID', message: /clairvoyant/ })
})

test('prompts are played that are so long that the router reads them on a thread of its own', async () => {
  const path = join(folder, 'long.jsonl')
  const first = { session: 'a', prompt_tokens: 40_000, output_tokens: 8, blocks: [[0, 2_499]] }
  const second = { ...first, think_ms: 10, prompt_tokens: 40_100 }
  const head = { format: 'warmroute-trace', block_tokens: 16 }
  writeFileSync(path, [head, first, second].map((line) => `${JSON.stringify(line)}\n`).join(''))
  const setting = ['--workers', '1', '--cache-blocks', '4000', '--calibration', 'h100-8b', '--seeds', '1', '--json']
  const ran = await run([path, '--real-time', '--speed', '4', '--policies', 'kv-aware', ...setting])
  const result = resultsIn(ran).get('kv-aware')
  assert.deepEqual([result?.requests, result?.failed], [2, 0], ran.error)
  assert.ok((result?.hitRatio ?? 0) > 0.49)
})

test('Ctrl-C ends a run with what was played, and the engines and the router with it', async () => {
  let isUnderWay: (signal: string) => void = () => undefined
  const ended = new Promise<string>((resolve) => (isUnderWay = resolve))
  const onProgress = (text: string): void => {
    if (text.includes('5 requests')) isUnderWay('SIGINT')
  }
  const argv = [
    traceOf(16, 3),
    '--real-time',
    '--workers',
    '2',
    '--cache-blocks',
    '500',
    '--users',
    '2',
    '--seeds',
    '2',
  ]
  const ran = await run([...argv, '--policies', 'round-robin', '--json'], { ended, onProgress })
  assert.equal(ran.code, 130)
  assert.match(ran.error, /ended early/)
  const { requests, complete } = resultsIn(ran).get('round-robin') as ReplayResult
  assert.ok(requests >= 5 && requests < 16 * 3 && !complete, String(requests))
})

test(
  'engines and router end with a replay that is killed',
  { skip: !existsSync(childrenFile(process.pid)) },
  async (t) => {
    const argv = [traceOf(16, 3), '--real-time', '--workers', '1', '--cache-blocks', '500', '--users', '1']
    const killed = command(t, ['replay', ...argv])
    const childrenOf = (pid: number): number[] =>
      readFileSync(childrenFile(pid), 'utf8').split(' ').filter(Boolean).map(Number)
    const { pid = 0 } = killed.child
    await until(() => childrenOf(pid).length === 2, 'both are started', 15_000)
    const children = childrenOf(pid)
    killed.child.kill('SIGKILL')
    const isGone = (child: number): boolean => {
      try {
        process.kill(child, 0)
        return false
      } catch {
        return true
      }
    }
    await until(() => children.every(isGone), 'both have ended', 15_000)
  },
)

/** Where Linux tells a process's children. */
function childrenFile(pid: number): string {
  return `/proc/${pid}/task/${pid}/children`
}
