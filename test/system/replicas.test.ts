import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { DecisionRecord } from '../../src/routing/decisions.ts'
import { prose, type Fleet } from '../support/fleet.ts'
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
  const leases = (await Promise.all(replicas.map(leasesOf))).flat()
  assert.deepEqual(leases.toSorted(), [...first.simulators.urls].toSorted(), 'each worker has one writer')
  // The engine's own subscribers: one replica each.
  for (const worker of first.simulators.workers) assert.equal(worker.publishers[0]?.subscribers, 1)
})
