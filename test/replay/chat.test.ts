import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { ReplayFault } from '../../src/replay/faults.ts'
import { oraclePolicy, replay, type ReplayOptions, type ReplayRun } from '../../src/replay/replay.ts'
import type { RouterOptions } from '../../src/replay/router.ts'
import { summary } from '../../src/replay/summary.ts'
import { chatTrace } from '../../src/replay/traces/chat.ts'
import { blockIds, sharedRuns } from '../../src/replay/traces/trace.ts'
import type { ChatWorkloadOptions } from '../../src/simulator/workload.ts'

const small: Partial<ChatWorkloadOptions> = {
  conversations: 16,
  systemPrompts: 4,
  turns: 4,
  systemPromptWords: 1_200,
  userWords: [150, 500],
  outputTokens: [10, 40],
}

async function play(policy: string, seed: number, more: Partial<ReplayOptions> = {}): Promise<Played> {
  const run = await replay({ trace: chatTrace({ ...small, seed }), workers: 3, engine: {}, policy, seed, ...more })
  const { hitRatio, agreement, ttftMs } = summary(run)
  return { ...run, hitRatio, agreement, meanTtftMs: ttftMs.mean }
}

interface Played extends ReplayRun {
  readonly hitRatio: number
  readonly agreement: number
  readonly meanTtftMs: number
}

test('prompts share a system prompt’s full blocks, turns what was said before, and nothing else', () => {
  const { sessions } = chatTrace({ ...small, systemPrompts: 2, systemPromptWords: 100, seed: 3 })
  const common = Math.floor(100 / 16)
  let shared = 0
  for (const one of sessions) {
    for (const other of sessions) {
      const [first, second] = [one.requests.at(-1), other.requests.at(-1)]
      assert.ok(first !== undefined && second !== undefined)
      if (one === other) continue
      const blocks = sharedRuns(first.blocks, second.blocks)
      assert.ok(blocks === 0 || blocks === common, String(blocks))
      if (blocks > 0) shared++
      else assert.equal(new Set([...blockIds(first.blocks), ...blockIds(second.blocks)]).size, ids(first) + ids(second))
    }
    for (const [turn, request] of one.requests.entries()) {
      assert.equal(ids(request), Math.ceil(request.promptTokens / 16))
      const before = one.requests[turn - 1]
      if (before === undefined) continue
      assert.ok(request.promptTokens >= before.promptTokens + before.outputTokens + 150)
      assert.equal(sharedRuns(before.blocks, request.blocks), ids(before))
    }
  }
  assert.ok(shared > 0)
})

const ids = ({ blocks }: { readonly blocks: Uint32Array }): number => blockIds(blocks).length

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length

for (const policy of ['kv-aware', 'power-of-two', oraclePolicy]) {
  test(`${policy}: equal seeds give equal results to the last bit`, async () => {
    const [first, second, other] = await Promise.all([play(policy, 7), play(policy, 7), play(policy, 8)])
    assert.deepEqual(second, first)
    assert.notDeepEqual(other.meanTtftMs, first.meanTtftMs)
  })
}

test('the policy’s own randomness comes from the seed', async () => {
  const trace = chatTrace({ ...small, seed: 1 })
  const workers = async (seed: number) => (await play('random', seed, { trace })).rows.map(({ worker }) => worker)
  assert.deepEqual(await workers(1), await workers(1))
  assert.notDeepEqual(await workers(2), await workers(1))
})

test('kv-aware has more hits and sooner first tokens than round-robin, and is near the oracle', async () => {
  const seeds = [1, 2, 3, 4, 5]
  const over = async (policy: string) => {
    const runs = await Promise.all(seeds.map((seed) => play(policy, seed)))
    return { ttftMs: mean(runs.map((run) => run.meanTtftMs)), hits: mean(runs.map((run) => run.hitRatio)) }
  }
  const [oracle, router, rotating] = [await over(oraclePolicy), await over('kv-aware'), await over('round-robin')]
  assert(router.hits > rotating.hits + 0.1, `hits: ${router.hits}, round-robin ${rotating.hits}`)
  assert(router.ttftMs < 0.8 * rotating.ttftMs, `mean TTFT: ${router.ttftMs}, round-robin ${rotating.ttftMs}`)
  assert(router.ttftMs < 1.1 * oracle.ttftMs, `mean TTFT: ${router.ttftMs}, oracle ${oracle.ttftMs}`)
})

test('every request is served exactly once, turns in order, whatever the workload and the policy', async () => {
  const workload = fc.record({
    seed: fc.nat(),
    conversations: fc.integer({ min: 1, max: 12 }),
    turns: fc.integer({ min: 1, max: 4 }),
    systemPrompts: fc.integer({ min: 1, max: 3 }),
    systemPromptWords: fc.integer({ min: 1, max: 400 }),
    thinkMs: fc.constantFrom(0, 100),
    arrivalGapMs: fc.constantFrom(0, 50),
  })
  const policy = fc.constantFrom('kv-aware', 'round-robin', 'least-loaded', 'random', oraclePolicy)
  const workers = fc.integer({ min: 1, max: 4 })
  const capacityBlocks = fc.constantFrom(150, 4_096)
  await fc.assert(
    fc.asyncProperty(workload, policy, workers, capacityBlocks, async (options, policy, workers, capacityBlocks) => {
      const trace = chatTrace({ userWords: [5, 200], outputTokens: [1, 30], ...options })
      const { rows } = await replay({ trace, workers, engine: { capacityBlocks }, policy, seed: options.seed })
      assert.equal(rows.length, trace.sessions.flatMap(({ requests }) => requests).length)
      for (const { id, requests } of trace.sessions) {
        const own = rows.filter(({ visit }) => visit.session.id === id)
        assert.deepEqual(
          own.map(({ turn }) => turn),
          requests.map((_, turn) => turn),
        )
        assert(own.every(({ sentMs }, turn) => turn === 0 || sentMs > (own[turn - 1]?.sentMs ?? Infinity)))
      }
      for (const row of rows) assert(row.ttftMs > 0 && row.cachedTokens < row.promptTokens)
    }),
    { numRuns: 25 },
  )
})

test('with room for everything the map never promises what the engine does not have', async () => {
  const { rows, agreement } = await play('kv-aware', 3)
  for (const { predictedCachedTokens, cachedTokens } of rows) assert(predictedCachedTokens <= cachedTokens)
  assert(agreement > 0.97)
})

test('one conversation after another, every prediction is what the engine finds', async () => {
  const trace = chatTrace({ ...small, seed: 4, arrivalGapMs: 60_000, thinkMs: 50 })
  const { rows, agreement, hitRatio } = await play('round-robin', 4, { trace })
  for (const { predictedCachedTokens, cachedTokens } of rows) assert.equal(predictedCachedTokens, cachedTokens)
  assert.equal(agreement, 1)
  assert(hitRatio > 0.5)
})

test('where caches overflow, predictions follow the evictions', async () => {
  const { rows, agreement, hitRatio } = await play('kv-aware', 5, { engine: { capacityBlocks: 400 } })
  assert(hitRatio < (await play('kv-aware', 5)).hitRatio)
  assert(rows.some(({ predictedCachedTokens, cachedTokens }) => predictedCachedTokens !== cachedTokens))
  assert(agreement > 0.85, `agreement ${agreement}`)
})

test('events that come late cost hits', async () => {
  const prompt = await play('kv-aware', 6)
  const late = await play('kv-aware', 6, { router: { eventDelayMs: 60_000 } })
  assert(late.hitRatio < prompt.hitRatio - 0.1, `${late.hitRatio}, ${prompt.hitRatio}`)
  assert.equal(late.rows.length, prompt.rows.length)
})

test('a router that hears what others send to a worker gives it less, and is sooner', async () => {
  const others: ReplayFault = {
    ...{ kind: 'foreign', worker: 0, requestsPerSecond: 12, promptTokens: 1_500, outputTokens: 40 },
    ...{ fromMs: 0, untilMs: 20_000 },
  }
  const over = async (loadIntervalMs: number) => {
    const runs = await Promise.all(
      [1, 2, 3].map((seed) => play('kv-aware', seed, { faults: [others], router: { loadIntervalMs } })),
    )
    return {
      share: mean(runs.map(({ rows }) => rows.filter(({ worker }) => worker === 0).length / rows.length)),
      ttftMs: mean(runs.map(({ meanTtftMs }) => meanTtftMs)),
      rows: runs[0]?.rows.length,
    }
  }
  const [heard, deaf] = [await over(500), await over(1e9)]
  assert.ok(heard.share < deaf.share - 0.03, `${heard.share}, ${deaf.share}`)
  assert.ok(heard.ttftMs < deaf.ttftMs, `${heard.ttftMs}, ${deaf.ttftMs}`)
  assert.equal(heard.rows, (await play('kv-aware', 1)).rows.length, 'what others sent is not among the results')
})

test('most of what events tell of workers can be concluded from what they are sent', async () => {
  const over = async (more: Partial<ReplayOptions>) => {
    const runs = await Promise.all([1, 2, 3].map((seed) => play('kv-aware', seed, more)))
    return { ttftMs: mean(runs.map((run) => run.meanTtftMs)), hits: mean(runs.map((run) => run.hitRatio)) }
  }
  const rotating = mean(await Promise.all([1, 2, 3].map(async (seed) => (await play('round-robin', seed)).meanTtftMs)))
  const exact = await over({})
  for (const withoutEvents of [1, 3]) {
    for (const capacityBlocks of [8_192, 600]) {
      const engine = { capacityBlocks }
      const told = capacityBlocks === 8_192 ? exact : await over({ engine })
      const concluded = await over({ router: { withoutEvents }, engine })
      assert.ok(
        concluded.hits > told.hits - 0.05,
        `${withoutEvents}, ${capacityBlocks}: ${concluded.hits}, ${told.hits}`,
      )
      assert.ok(concluded.ttftMs < 1.15 * told.ttftMs, `${withoutEvents}, ${capacityBlocks}: ${concluded.ttftMs}`)
      if (capacityBlocks === 8_192) assert.ok(concluded.ttftMs < 0.8 * rotating)
    }
  }
})

test('an unknown policy is refused by name', async () => {
  await assert.rejects(play('clairvoyant', 1), { code: 'CONFIG_INVALID', message: /"clairvoyant".*kv-aware/ })
})

test('replicas that hear each other at once decide as one router, to the last bit', async () => {
  for (const withoutEvents of [0, 3]) {
    const one = await play('kv-aware', 7, { router: { withoutEvents } })
    const replicas = { count: 8, delayMs: 0, shareMs: 0 }
    const eight = await play('kv-aware', 7, { router: { withoutEvents, replicas } })
    const times = ({ rows }: ReplayRun): number[] => rows.map(({ ttftMs }) => ttftMs)
    assert.deepEqual(times(eight), times(one))
    // The very first request may be thrown to another one of equal workers.
    assert.deepEqual(eight.busyMs.toSorted(), one.busyMs.toSorted())
  }
})

test('a burst through eight replicas that hear each other a little later finds nearly what it finds through one', async () => {
  const seeds = [1, 2, 3]
  const over = async (router: RouterOptions) => {
    const runs = await Promise.all(
      seeds.map((seed) => play('kv-aware', seed, { trace: chatTrace({ ...small, seed, arrivalGapMs: 5 }), router })),
    )
    return mean(runs.map(({ hitRatio }) => hitRatio))
  }
  for (const withoutEvents of [0, 3]) {
    const one = await over({ withoutEvents })
    const shared = await over({ withoutEvents, replicas: { count: 8, delayMs: 1, shareMs: 1 } })
    const alone = await over({ withoutEvents, replicas: { count: 8, delayMs: null, shareMs: 1 } })
    assert.ok(shared > 0.98 * one, `${shared} through eight, ${one} through one`)
    assert.ok(alone < shared, `${alone} where they say nothing, ${shared} where they do`)
  }
})
