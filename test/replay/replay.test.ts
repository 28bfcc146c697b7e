import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { oraclePolicy, replay, type ReplayOptions, type ReplayRun } from '../../src/replay/replay.ts'
import { readTrace } from '../../src/replay/traces/read.ts'
import { hitBounds } from '../../src/replay/bounds.ts'
import { summary } from '../../src/replay/summary.ts'
import { RunBuilder, type Trace, type TraceRequest } from '../../src/replay/traces/trace.ts'
import { seededRandom } from '../../src/simulator/random.ts'

const fixture = (name: string): string => fileURLToPath(new URL(`../fixtures/traces/${name}`, import.meta.url))
const agentic = await readTrace(fixture('agentic_sessions.jsonl'), { mostSessions: 40 })
const mooncake = await readTrace(fixture('mooncake_conversation.jsonl'), { mostSessions: 300 })

/** Sessions of a few hundred tokens that share a beginning and grow turn by turn; some lose their last blocks on the way. */
function growing(sessions: number, seed: number): Trace {
  const random = seededRandom(seed)
  let nextId = 100
  return {
    ...{ name: 'growing', format: 'plain', blockTokens: 16 },
    sessions: Array.from({ length: sessions }, (_, index) => {
      let ids = Array.from({ length: 8 }, (_, i) => i)
      const requests = Array.from({ length: 1 + random.below(6) }, (_, turn): TraceRequest => {
        if (random.below(4) === 0) ids = ids.slice(0, -1 - random.below(2))
        for (let added = random.below(12); added >= 0; added--) ids = [...ids, nextId++]
        const blocks = new RunBuilder()
        for (const id of ids) blocks.add(id)
        const promptTokens = ids.length * 16 + random.below(16)
        const thinkMs = turn === 0 ? 0 : random.exponential(200)
        return { thinkMs, recordedMs: 0, promptTokens, outputTokens: 1 + random.below(90), blocks: blocks.done() }
      })
      return { id: String(index), startMs: null, requests, commonBlocks: 8 }
    }),
  }
}

function play(trace: Trace, more: Partial<ReplayOptions> = {}): Promise<ReplayRun> {
  const engine = { blockSize: 16, capacityBlocks: 400, maxBatchedTokens: 128 }
  return replay({ trace, workers: 3, engine, policy: 'kv-aware', seed: 1, ...more })
}

const large: Partial<ReplayOptions> = {
  engine: { blockSize: 64, capacityBlocks: 12_000, prefillTokensPerSecond: 16_000, maxModelLength: 700_000 },
  load: { users: 12, thinkCapMs: 2_000, durationMs: 60_000, warmUpMs: 10_000, mostTokens: 600_000 },
}

for (const policy of ['kv-aware', 'round-robin', oraclePolicy]) {
  test(`${policy}: passing over steps changes nothing, to the last bit`, async () => {
    for (const seed of [1, 2, 3]) {
      const trace = growing(30, seed)
      const whole = await play(trace, { policy, seed })
      assert.deepEqual(await play(trace, { policy, seed, stepByStep: true }), whole)
    }
    const recorded = await play(agentic, { ...large, policy })
    assert.ok(recorded.rows.length > 20, String(recorded.rows.length))
    assert.deepEqual(await play(agentic, { ...large, policy, stepByStep: true }), recorded)
  })
}

test('equal seeds give equal bits, other seeds other users', async () => {
  const [one, same, other] = [
    await play(agentic, large),
    await play(agentic, large),
    await play(agentic, { ...large, seed: 2 }),
  ]
  assert.deepEqual(same, one)
  assert.notDeepEqual(other.rows[0]?.visit.session.id, one.rows[0]?.visit.session.id)
})

test('with one worker every policy gives the same times', async () => {
  const times = async (policy: string) =>
    (await play(growing(12, 5), { workers: 1, policy })).rows.map((row) => row.ttftMs)
  const oracle = await times(oraclePolicy)
  for (const policy of ['kv-aware', 'round-robin', 'least-loaded']) assert.deepEqual(await times(policy), oracle)
})

test('each session is played once, turn by turn, each turn after its pause', async () => {
  const trace = growing(20, 7)
  const { rows, complete } = await play(trace)
  assert.equal(complete, true)
  assert.equal(
    rows.length,
    trace.sessions.reduce((sum, { requests }) => sum + requests.length, 0),
  )
  for (const { id, requests } of trace.sessions) {
    const own = rows.filter(({ visit }) => visit.session.id === id)
    assert.deepEqual(
      own.map(({ turn }) => turn),
      requests.map((_, turn) => turn),
    )
    for (const [turn, row] of own.entries()) {
      const before = own[turn - 1]
      if (before !== undefined) assert.equal(row.sentMs, before.endedMs + (requests[turn]?.thinkMs ?? NaN))
    }
  }
})

test('with room for everything a turn finds what the turns before left, answers included', async () => {
  const { rows } = await play(growing(1, 3), { workers: 1, engine: { blockSize: 16, capacityBlocks: 4_000 } })
  const [first, ...later] = rows
  assert.equal(first?.cachedTokens, 0)
  assert.ok(later.length > 1)
  for (const { cachedTokens, predictedCachedTokens } of later) {
    assert.ok(cachedTokens > 0)
    assert.equal(cachedTokens, predictedCachedTokens)
  }
})

test('what an answer left is found only where the next prompt goes on from it', async () => {
  const request = (ids: [first: number, count: number], promptTokens: number, outputTokens: number): TraceRequest => ({
    ...{ thinkMs: 0, recordedMs: 0, promptTokens, outputTokens, blocks: Uint32Array.from(ids) },
  })
  const found = async (second: [first: number, count: number]) => {
    const requests = [request([0, 4], 70, 60), request(second, 16 * 10 + 1, 1)]
    const sessions = [{ id: 's', startMs: null, commonBlocks: 0, requests }]
    const { rows } = await play({ name: 't', format: 'plain', blockTokens: 16, sessions }, { workers: 1 })
    return rows[1]?.cachedTokens
  }
  // 129 of 130 tokens were computed: eight blocks.
  assert.equal(await found([0, 10]), 8 * 16)
  assert.equal(await found([100, 10]), 0)
})

test('blocks of the trace may be larger than the engines’', async () => {
  const engine = { blockSize: 16, capacityBlocks: 60_000, prefillTokensPerSecond: 50_000 }
  const coarse = await play(mooncake, { engine: { ...engine, blockSize: 512, capacityBlocks: 60_000 / 32 } })
  const fine = await play(mooncake, { engine })
  const hits = ({ rows }: ReplayRun): number => rows.reduce((sum, { cachedTokens }) => sum + cachedTokens, 0)
  assert.equal(fine.rows.length, 300)
  assert.ok(hits(fine) > 0 && hits(fine) >= 0.95 * hits(coarse), `${hits(fine)}, ${hits(coarse)}`)
})

test('an open loop comes at its own times, faster where that is asked for', async () => {
  const engine = { blockSize: 512, capacityBlocks: 4_000, prefillTokensPerSecond: 50_000 }
  const sent = async (rate: number) =>
    (await play(mooncake, { engine, load: { rate } })).rows.map(({ sentMs }) => sentMs).toSorted((a, b) => a - b)
  const recorded = mooncake.sessions.map(({ startMs }) => startMs ?? NaN)
  assert.deepEqual(await sent(1), recorded)
  assert.deepEqual(
    await sent(2),
    recorded.map((ms) => ms / 2),
  )
})

test('a run that is ended early keeps what it has', async () => {
  const { rows, complete } = await play(growing(200, 7), { onProgress: ({ answered }) => answered < 300 })
  assert.equal(complete, false)
  assert.ok(rows.length >= 300 && rows.length < 600)
})

test('a run ends with its last answer, however patient the clients were', async () => {
  const impatient = await play(growing(20, 7))
  const patient = await play(growing(20, 7), { timeoutMs: 3_600_000 })
  assert.deepEqual(patient.rows, impatient.rows)
  assert.equal(patient.endedMs, patient.rows.at(-1)?.endedMs)
})

test('an unknown policy is refused by name', async () => {
  await assert.rejects(play(agentic, { policy: 'clairvoyant' }), { code: 'CONFIG_INVALID', message: /"clairvoyant"/ })
})

test('no routing finds more than an endless cache would, nor one worker more than the pooled cache', async () => {
  for (const trace of [growing(40, 3), mooncake]) {
    const blockSize = trace.blockTokens
    const engine = { blockSize, capacityBlocks: 400, prefillTokensPerSecond: 50_000 }
    const { rows } = await play(trace, { engine, workers: 1 })
    const { pooled, infinite } = hitBounds(rows, trace, 400 * blockSize)
    const { hitRatio } = summary({ rows, complete: true, busyMs: [1], endedMs: 1 })
    assert.ok(infinite >= hitRatio, `${infinite}, ${hitRatio}`)
    assert.ok(pooled <= infinite && pooled >= hitRatio - 0.01, `${pooled}, ${hitRatio}`)
    const endless = await play(trace, { engine: { ...engine, capacityBlocks: 100_000 }, workers: 1 })
    const found = summary({ ...endless, busyMs: [1] }).hitRatio
    const bounds = hitBounds(endless.rows, trace, Infinity)
    assert.ok(bounds.infinite >= found && bounds.infinite < found + 0.05, `${bounds.infinite}, ${found}`)
  }
})

test('a policy that refuses a request ends the replay, and is told by name', async () => {
  const filters = [{ type: 'label', parameters: { label: 'zone', value: 'a', required: true } }]
  await assert.rejects(play(growing(2, 1), { policy: { filters } }), {
    code: 'NO_SUITABLE_WORKER',
    message: /^"label" leaves no worker/,
  })
})
