import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { ReplayFault } from '../../src/replay/faults.ts'
import { recovery } from '../../src/replay/recovery.ts'
import { oraclePolicy, replay, type ReplayOptions, type ReplayRun } from '../../src/replay/replay.ts'
import { summary } from '../../src/replay/summary.ts'
import { readTrace } from '../../src/replay/traces/read.ts'

const path = fileURLToPath(new URL('../fixtures/traces/agentic_sessions.jsonl', import.meta.url))
const trace = await readTrace(path, { mostSessions: 60 })
const faultMs = 60_000

function play(faults: readonly ReplayFault[], more: Partial<ReplayOptions> = {}): Promise<ReplayRun> {
  return replay({
    ...{ trace, workers: 4, policy: 'kv-aware', seed: 1, faults, timeoutMs: 60_000 },
    engine: { blockSize: 64, capacityBlocks: 14_000, prefillTokensPerSecond: 16_000, maxModelLength: 896_000 },
    load: { users: 16, thinkCapMs: 3_000, durationMs: 120_000, warmUpMs: 20_000, mostTokens: 800_000 },
    ...more,
  })
}

const before = ({ rows }: ReplayRun) => rows.filter(({ endedMs }) => endedMs < faultMs)
const sentAfter = (run: ReplayRun, ms: number) => run.rows.filter(({ sentMs }) => sentMs >= ms)

test('nothing changes before a fault, and equal faults give equal bits', async () => {
  const healthy = await play([])
  const faults: ReplayFault[] = [
    { kind: 'restart', worker: 1, atMs: faultMs, downMs: 10_000 },
    { kind: 'slow', worker: 2, atMs: faultMs + 5_000, factor: 3 },
    { kind: 'router-restart', atMs: faultMs + 10_000, keptBatches: 1_000 },
  ]
  for (const policy of ['kv-aware', oraclePolicy]) {
    const [one, two] = [await play(faults, { policy }), await play(faults, { policy })]
    assert.deepEqual(two, one)
    if (policy === 'kv-aware') assert.deepEqual(before(one), before(healthy))
    assert.deepEqual(await play(faults, { policy, stepByStep: true }), one)
  }
})

test('an engine that restarts gets nothing while it is down, and every request is answered all the same', async () => {
  const run = await play([{ kind: 'restart', worker: 1, atMs: faultMs, downMs: 15_000 }], { timeoutMs: 1e9 })
  const down = run.rows.filter(({ sentMs }) => sentMs >= faultMs && sentMs < faultMs + 15_000)
  assert.ok(down.length > 5)
  assert.ok(down.every(({ worker }) => worker !== 1))
  assert.ok(
    sentAfter(run, faultMs + 15_000).some(({ worker }) => worker === 1),
    'it comes back',
  )
  assert.ok(run.rows.every(({ outcome }) => outcome === 'answered'))
  // What was on its way there took longer, since it was sent again.
  const caught = run.rows.filter(({ sentMs, endedMs }) => sentMs < faultMs && endedMs > faultMs)
  assert.ok(caught.length > 0)
  const ids = run.rows.map(({ visit, turn }) => `${visit.session.id}/${visit.copy}/${turn}`)
  assert.equal(new Set(ids).size, ids.length, 'and no request is counted twice')
})

test('an engine that restarts holds nothing of what it held', async () => {
  const run = await play([{ kind: 'restart', worker: 0, atMs: faultMs, downMs: 1_000 }], { workers: 2 })
  const [first] = sentAfter(run, faultMs + 1_000).filter(({ worker }) => worker === 0)
  assert.equal(first?.cachedTokens, 0)
  assert.equal(first.predictedCachedTokens, 0)
})

test('a worker that became slow gets less', async () => {
  const share = (run: ReplayRun): number => {
    const rows = sentAfter(run, faultMs + 20_000)
    return rows.filter(({ worker }) => worker === 2).length / rows.length
  }
  const slow = await play([{ kind: 'slow', worker: 2, atMs: faultMs, factor: 4 }])
  assert.ok(share(slow) < share(await play([])), `${share(slow)}`)
})

test('workers that join serve from then on', async () => {
  const run = await play([{ kind: 'scale-out', workers: 2, atMs: faultMs }])
  assert.ok(before(run).every(({ worker }) => worker < 4))
  assert.deepEqual([...new Set(sentAfter(run, faultMs).map(({ worker }) => worker))].sort(), [0, 1, 2, 3, 4, 5])
  assert.equal(run.busyMs.length, 6)
})

test('a router that begins anew finds again what engines tell once more', async () => {
  const predicted = async (keptBatches: number) => {
    const run = await play([{ kind: 'router-restart', atMs: faultMs, keptBatches }])
    const rows = sentAfter(run, faultMs).slice(0, 20)
    return rows.reduce((sum, { predictedCachedTokens }) => sum + predictedCachedTokens, 0)
  }
  const [cold, warm] = [await predicted(0), await predicted(1_000_000)]
  assert.ok(warm > 2 * cold, `${warm}, ${cold}`)
})

test('lost events cost next to nothing, replayed or not', async () => {
  const hits = async (faults: readonly ReplayFault[]) => summary(await play(faults)).hitRatio
  const all = await hits([])
  for (const repair of ['replay', 'forget'] as const) {
    const some = await hits([{ kind: 'lost-events', share: 0.05, repair }])
    assert.ok(some > all - 0.02, `${repair}: ${some}, ${all}`)
  }
})

test('requests of others drive out what is cached, and are not among the results', async () => {
  const faults: ReplayFault[] = [
    {
      kind: 'foreign',
      requestsPerSecond: 0.3,
      promptTokens: 20_000,
      outputTokens: 10,
      fromMs: 20_000,
      untilMs: 120_000,
    },
  ]
  const [alone, among] = [await play([]), await play(faults)]
  assert.ok(summary(among).hitRatio < summary(alone).hitRatio)
  assert.ok(among.rows.every(({ promptTokens }) => promptTokens > 0))
  assert.ok(summary(among).busy > summary(alone).busy)
})

test('a request without a first token in time is given up, counts as a miss, and its session goes on', async () => {
  const run = await play([], { timeoutMs: 2_000, workers: 2, policy: 'round-robin' })
  const given = run.rows.filter(({ outcome }) => outcome === 'timed out')
  assert.ok(given.length > 0)
  assert.ok(given.every(({ ttftMs, sentMs, endedMs }) => ttftMs === 2_000 && Math.abs(endedMs - sentMs - 2_000) < 1e-6))
  assert.ok(run.rows.every(({ ttftMs }) => ttftMs <= 2_000))
  const { inSlo, timedOut, requests } = summary(run, { slo: { ttftMs: 1e9, ttftMsPer1kTokens: 0, itlMs: 1e9 } })
  assert.equal(inSlo, (requests - timedOut) / requests)
  const [first] = given
  assert.ok(run.rows.some(({ visit, turn }) => visit === first?.visit && turn === first.turn + 1))
})

test('misses after a fault are counted beyond the usual, until they are usual again', () => {
  const requests = new Array<number>(20).fill(100)
  const misses = requests.map((_, window) => (window >= 10 && window < 13 ? 52 : 2))
  const options = { faultMs: 100_000, wellFromMs: 20_000, untilMs: 200_000 }
  assert.deepEqual(recovery([{ windowMs: 10_000, requests, misses }], options), {
    excessMisses: 150,
    recoveredMs: 30_000,
  })
  const worse = { windowMs: 10_000, requests, misses: misses.map((count, window) => (window >= 10 ? 52 : count)) }
  assert.equal(recovery([worse], options).recoveredMs, Infinity)
})
