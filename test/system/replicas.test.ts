import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { startRouter } from '../../src/main.ts'
import type { DecisionRecord } from '../../src/routing/decisions.ts'
import { collectingLog, configOf, Fleet, fleetFor, prose } from '../support/fleet.ts'
import { startRedis } from '../support/redis-server.ts'
import { replicaFleet } from '../support/replica-fleet.ts'
import { until } from '../support/until.ts'

async function heldBlocks(replica: Fleet): Promise<number[]> {
  return (await replica.workers()).map(({ map }) => map.blocks.gpu)
}

/** What a replica believes every worker to hold of a chat. */
async function matches(replica: Fleet, content: string): Promise<number[]> {
  const answer = await replica.explain({ model: 'demo', messages: [{ role: 'user', content }] })
  const { candidates } = (await answer.json()) as DecisionRecord
  return candidates.map(({ matchedBlocks }) => matchedBlocks.gpu)
}

interface MapView {
  readonly replication: { readonly leases: readonly string[]; readonly others: readonly string[] }
}

const leasesOf = async (replica: Fleet): Promise<readonly string[]> =>
  (await replica.admin<MapView>('/admin/map')).replication.leases

test('what one replica hears of an engine all of them know, and each engine is heard by one', async (t) => {
  const redis = await startRedis(t)
  const { replicas } = await replicaFleet(t, redis, 3, { workers: 3 })
  const [first, , third] = replicas as [Fleet, Fleet, Fleet]
  const chats = Array.from({ length: 12 }, (_, i) => prose(`conversation ${i}`, 120))
  await Promise.all(chats.map((chat, i) => (replicas[i % 3] as Fleet).chat(chat).then((answer) => answer.text())))
  await until(async () => (await heldBlocks(first)).reduce((sum, blocks) => sum + blocks) > 12 * 5, 'blocks are known')
  for (const replica of replicas) {
    await until(
      async () => (await heldBlocks(replica)).join() === (await heldBlocks(first)).join(),
      'all know the same',
    )
  }
  for (const chat of chats) assert.deepEqual(await matches(third, chat), await matches(first, chat))
  const leases = (await Promise.all(replicas.map(leasesOf))).flat().filter((name) => name !== '#snapshot')
  assert.deepEqual(leases.toSorted(), [...first.simulators.urls].toSorted(), 'each worker has one writer')
  // The engine's own subscribers: one replica each.
  for (const worker of first.simulators.workers) assert.equal(worker.publishers[0]?.subscribers, 1)
})

test('without the log of events each replica hears every engine itself, and what they have in flight is shared all the same', async (t) => {
  const redis = await startRedis(t)
  const { replicas } = await replicaFleet(t, { url: redis.url }, 2, {
    workers: 2,
    config: { redis: { url: redis.url, eventLog: false }, keys: { secret: 'the same on all replicas' } },
  })
  const [first, second] = replicas as [Fleet, Fleet]
  await talk(first, 4, 'alone')
  await sameAs(first, second, 'both know the same')
  for (const worker of first.simulators.workers) assert.equal(worker.publishers[0]?.subscribers, 2)
  assert.deepEqual([...(await leasesOf(first)), ...(await leasesOf(second))], ['#snapshot'])
  await until(async () => (await first.metric('replicas')) === 2, 'they hear of each other')
})

/** A prompt of each chat, so that every worker has something. */
async function talk(replica: Fleet, count: number, name: string): Promise<string[]> {
  const chats = Array.from({ length: count }, (_, i) => prose(`${name} ${i}`, 120))
  for (const chat of chats) await (await replica.chat(chat)).text()
  await replica.settled()
  return chats
}

const sameAs = (one: Fleet, other: Fleet, what: string): Promise<unknown> =>
  until(async () => (await heldBlocks(one)).join() === (await heldBlocks(other)).join(), what)

test('when the writer of the log goes, another replica takes over within two seconds and nothing is missed', async (t) => {
  const redis = await startRedis(t)
  const { replicas } = await replicaFleet(t, redis, 2, { workers: 2 })
  const [first, second] = replicas as [Fleet, Fleet]
  await talk(first, 4, 'before')
  await sameAs(first, second, 'both know the same')
  const before = await heldBlocks(second)
  const startMs = performance.now()
  await first.router.stop()
  await until(async () => (await leasesOf(second)).length >= 2, 'the other one writes')
  assert.ok(performance.now() - startMs < 2000 + 1000, 'the takeover and the drain')
  assert.deepEqual(await heldBlocks(second), before, 'nothing was forgotten')
  const chats = await talk(second, 2, 'after')
  for (const chat of chats) assert.ok(Math.max(...(await matches(second, chat))) > 5)
})

test('a replica that comes later is warm from the snapshot and the log, without asking the engines for their past', async (t) => {
  const redis = await startRedis(t)
  const { replicas, add } = await replicaFleet(t, redis, 1, {
    workers: 2,
    config: { snapshot: { intervalSeconds: 1 } },
  })
  const [first] = replicas as [Fleet]
  const chats = await talk(first, 6, 'early')
  await until(async () => (await first.metric('snapshot_bytes')) > 0, 'a snapshot is made', 15_000)
  const late = await talk(first, 2, 'late')
  const second = await add()
  await second.measured()
  await sameAs(first, second, 'it knows the same')
  for (const chat of [...chats, ...late]) assert.deepEqual(await matches(second, chat), await matches(first, chat))
  assert.ok(!second.log.some(({ message }) => message === 'KV events: subscribed'), 'no engine was asked')
  assert.ok(second.log.some(({ message }) => message === 'snapshot read'))
})

test('Redis frozen, emptied and restarted: every request is answered, and all replicas agree again within five seconds', async (t) => {
  const redis = await startRedis(t)
  const { replicas } = await replicaFleet(t, redis, 2, { workers: 2 })
  const [first, second] = replicas as [Fleet, Fleet]
  const requests = async (name: string): Promise<void> => {
    for (const replica of replicas) {
      const answer = await replica.chat(prose(`${name} ${replica.publicUrl}`, 80))
      assert.equal(answer.status, 200, name)
      await answer.text()
    }
  }
  const agree = async (what: string): Promise<void> => {
    const startMs = performance.now()
    await until(
      async () => (await first.admin<Redis>('/admin/map')).replication.redis.state === 'up',
      `${what}: Redis is up`,
      10_000,
    )
    await sameAs(first, second, `${what}: both know the same`)
    assert.ok(performance.now() - startMs < 5000, what)
  }
  interface Redis {
    readonly replication: { readonly redis: { readonly state: string } }
  }
  await requests('healthy')
  redis.pause()
  await until(async () => (await second.metric('redis_up')) === 0, 'it is away', 10_000)
  await requests('frozen')
  // With Redis away each listens to the engines itself.
  await until(
    async () =>
      (await Promise.all(replicas.map((replica) => replica.workers())))
        .flat()
        .every(({ events }) => events.state === 'live'),
    'events are heard',
    10_000,
  )
  await sameAs(first, second, 'both hear the engines')
  redis.resume()
  await agree('thawed')
  await redis.client.flushall()
  await requests('emptied')
  await agree('emptied')
  await redis.kill()
  await requests('gone')
  await redis.restart()
  await agree('restarted')
  await requests('restarted')
  await agree('in the end')
  for (const replica of replicas) {
    const states = replica.log.filter(({ message }) => message.startsWith('Redis is'))
    assert.ok(states.length <= 7, 'one line for each change of state')
  }
})

test('a router with a snapshot file starts warm, once its engines have proved what is in it', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'warmroute-snapshot-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const config = { snapshot: { file: join(folder, 'map') } }
  const first = await fleetFor(t, { workers: 2, config })
  const chats = await talk(first, 4, 'early')
  const known = await Promise.all(chats.map((chat) => matches(first, chat)))
  const before = await heldBlocks(first)
  await first.router.stop()
  // One engine goes on, the other is another process by now.
  await first.worker(1).kill()
  await first.worker(1).start()
  const router = await startRouter(configOf({ config }, first.simulators.urls), { log: collectingLog([]) })
  t.after(() => router.stop())
  const second = new Fleet(router, first.simulators, [])
  await second.settled()
  // The proof comes before the credit.
  await second.measured()
  assert.deepEqual(await heldBlocks(second), [before[0], 0])
  for (const [i, chat] of chats.entries()) assert.deepEqual(await matches(second, chat), [known[i]?.[0], 0])
})
