// Engines of two kinds behind replicas that share one Redis: one that every replica may hear, and one that gives each event
// out once, so that a single replica must poll it.
import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { startRouter } from '../../src/main.ts'
import type { DecisionRecord } from '../../src/routing/decisions.ts'
import { sglang } from '../../src/simulator/flavours/sglang.ts'
import { trtllm, type TrtllmSettings } from '../../src/simulator/flavours/trtllm.ts'
import { startSimulators, type Simulators } from '../../src/simulator/simulate.ts'
import { loadTokenizer } from '../../src/tokenize/tokenizer.ts'
import {
  collectingLog,
  configOf,
  demoTokenizer,
  Fleet,
  model,
  postTo,
  prose,
  type LogLine,
  type WorkerView,
} from '../support/fleet.ts'
import { startRedis, type RedisServer } from '../support/redis-server.ts'
import { until } from '../support/until.ts'

const blockSize = 8
const engine = { blockSize, stepBaseMs: 1, decodeMsPerRequest: 0.1, prefillTokensPerSecond: 100_000 }

/** Two replicas before an SGLang engine and a TensorRT-LLM engine, in this order. */
async function twoKinds(
  t: TestContext,
  redis: RedisServer,
  settings: Partial<TrtllmSettings> = {},
): Promise<readonly [Fleet, Fleet]> {
  const tokenizer = await loadTokenizer({ path: demoTokenizer })
  const groups = await Promise.all(
    [sglang({ cacheReport: true }), trtllm(settings)].map((flavour) =>
      startSimulators({ workers: 1, model, tokenizer, engine, worker: { flavour } }),
    ),
  )
  const simulators: Simulators = {
    urls: groups.flatMap(({ urls }) => urls),
    workers: groups.flatMap(({ workers }) => workers),
    stop: async () => {
      await Promise.all(groups.map((group) => group.stop()))
    },
  }
  t.after(() => simulators.stop())
  const config = {
    keys: { secret: 'the same on all replicas' },
    redis: { url: redis.url },
    eventPolling: { intervalMs: 5, idleIntervalMs: 20 },
  }
  const start = async (): Promise<Fleet> => {
    const log: LogLine[] = []
    const router = await startRouter(configOf({ config }, simulators.urls), { log: collectingLog(log) })
    t.after(() => router.stop())
    return new Fleet(router, simulators, log)
  }
  const replicas = [await start(), await start()] as const
  // An engine that polls have told nothing of yet may have its events turned off.
  await tell(replicas[0], 'the beginning')
  await agreed(replicas, 'both know the first blocks')
  return replicas
}

/** Sends a chat to both engines, past the routers. */
async function tell({ simulators }: Fleet, name: string): Promise<void> {
  const messages = [{ role: 'user', content: prose(name, 60) }]
  for (const url of simulators.urls) {
    const answer = await postTo(`${url}/v1/chat/completions`, { model, messages, max_tokens: 4 })
    assert.equal(answer.status, 200)
    await answer.arrayBuffer()
  }
}

const trueBlocks = ({ simulators }: Fleet): (number | undefined)[] =>
  simulators.workers.map((worker) => worker.trueBlocks()?.gpu.size)

const isAsTrue = (replica: Fleet, views: readonly WorkerView[]): boolean =>
  views.every(({ events }) => events.state === 'live') &&
  views.map(({ map }) => map.blocks.gpu).join() === trueBlocks(replica).join()

/** Until every one of them knows the blocks that the engines hold, of which nothing was forgotten. */
async function agreed(replicas: readonly Fleet[], what: string): Promise<void> {
  for (const replica of replicas) await until(async () => isAsTrue(replica, await replica.workers()), what, 10_000)
}

/** What a replica believes each engine to hold of a chat. */
async function matches(replica: Fleet, name: string): Promise<number[]> {
  const answer = await replica.explain({ model, messages: [{ role: 'user', content: prose(name, 60) }] })
  const { candidates } = (await answer.json()) as DecisionRecord
  return candidates.map(({ matchedBlocks }) => matchedBlocks.gpu)
}

/** Whether a replica holds the lease on the engine that is polled. */
async function polls(replica: Fleet): Promise<boolean> {
  interface MapView {
    readonly replication: { readonly leases: readonly string[] }
  }
  const { leases } = (await replica.admin<MapView>('/admin/map')).replication
  return leases.some((name) => name.startsWith(`${replica.simulators.urls[1] ?? ''}/`))
}

/** The one that polls, and the other. */
async function byPolling([first, second]: readonly [Fleet, Fleet]): Promise<readonly [poller: Fleet, other: Fleet]> {
  const isFirst = await polls(first)
  assert.notEqual(await polls(second), isFirst, 'one of them polls')
  return isFirst ? [first, second] : [second, first]
}

async function noneLost(replicas: readonly Fleet[]): Promise<void> {
  for (const replica of replicas) {
    for (const { events, engine: kind } of await replica.workers())
      assert.deepEqual([events.gaps, events.restarts], [0, 0], kind)
    assert.deepEqual(
      replica.log.filter(({ message }) => message.includes('somebody else polls') || message.includes('cleared')),
      [],
    )
  }
}

for (const [name, settings] of [
  ['as it is', {}],
  ['with two windows and partial blocks', { slidingWindow: 64, partialBlocks: true }],
] as const) {
  test(`a polled engine, ${name}: one replica polls, both know it, and where that one stops the other polls on from there`, async (t) => {
    const redis = await startRedis(t)
    const replicas = await twoKinds(t, redis, settings)
    const chats = Array.from({ length: 12 }, (_, i) => `chat ${i}`)
    for (const chat of chats) await tell(replicas[0], chat)
    await agreed(replicas, 'both know all blocks')
    // Events that two take turns to poll are lost to both.
    await noneLost(replicas)
    for (const chat of chats) {
      const matched = await matches(replicas[0], chat)
      assert.ok(matched.every((blocks) => blocks > 5))
      assert.deepEqual(await matches(replicas[1], chat), matched)
    }

    const [poller, other] = await byPolling(replicas)
    const startMs = performance.now()
    await poller.router.stop()
    await until(() => polls(other), 'the other one polls')
    assert.ok(performance.now() - startMs < 2000 + 1000, 'the takeover and the drain')
    await tell(other, 'after the stop')
    await agreed([other], 'it knows what came before and what came after')
    await noneLost([other])
    for (const chat of [...chats, 'after the stop'])
      assert.ok((await matches(other, chat)).every((blocks) => blocks > 5))
  })
}

test('while Redis is frozen, the replica that polled an engine last polls on, and nothing is forgotten when Redis is back', async (t) => {
  const redis = await startRedis(t)
  const replicas = await twoKinds(t, redis)
  const [poller, other] = await byPolling(replicas)
  redis.pause()
  for (const replica of replicas)
    await until(async () => (await replica.metric('redis_up')) === 0, 'Redis is away', 10_000)
  await tell(poller, 'while it is frozen')
  await agreed([poller], 'the one that polled hears both engines')
  await noneLost([poller])
  await tell(poller, 'and once more')
  await agreed([poller], 'it goes on')
  redis.resume()
  await until(async () => (await polls(replicas[0])) !== (await polls(replicas[1])), 'one of them polls', 10_000)
  await tell(poller, 'when it is back')
  await agreed([poller], 'nothing is forgotten')
  await noneLost([poller])
  assert.equal(await polls(poller), true)
  // What was told to one alone the other one cannot have any more: it begins again, with what comes.
  await until(() => other.log.some(({ message }) => message.includes('cleared')), 'the other one forgets', 10_000)
  assert.deepEqual((await other.workers()).map(({ map }) => map.blocks.gpu)[1], 0)
  await tell(poller, 'from here on')
  await until(async () => (await matches(other, 'from here on')).every((blocks) => blocks > 5), 'the other one follows')
  await agreed([poller], 'nothing is forgotten')
  await noneLost([poller])
})
