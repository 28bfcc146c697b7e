import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createKeyMaker } from '../../src/kv/keys.ts'
import { seededRandom } from '../support/random.ts'
import { World, type WorldOptions } from '../support/replica-world.ts'

const keys = await createKeyMaker(Buffer.alloc(32, 7))

function worldOf(options: Partial<WorldOptions>): World {
  return new World({ replicas: 0, replayBatches: 10_000, lossShare: 0, random: seededRandom(1), keys, ...options })
}

test('a replica that went over to the engine stays with it until the log is back', () => {
  const world = worldOf({ replicas: 2 })
  world.advance(2000)
  world.storeOne()
  world.advance(2000)
  world.redis.frozen = true
  for (let second = 0; second < 20; second++) {
    world.storeOne()
    world.advance(1000)
  }
  assert.deepEqual(
    world.replicas.map(({ feed, listened }) => [feed.mode, listened]),
    [
      ['listening', 1],
      ['listening', 1],
    ],
  )
  world.redis.thaw()
  world.advance(5000)
  world.storeOne()
  world.advance(1000)
  for (const replica of world.replicas)
    assert.deepEqual(world.differences(replica), { stale: [], missing: [] }, `replica ${replica.id}`)
  assert.deepEqual(world.replicas.map(({ feed }) => feed.mode).sort(), ['following', 'listening'])
})

test('an engine that one only may hear is heard without Redis, and goes on being heard when it comes', () => {
  const world = worldOf({ isPolled: true, replayBatches: null })
  world.redis.frozen = true
  const replica = world.addReplica()
  world.advance(5000)
  for (let block = 0; block < 10; block++) {
    world.storeOne()
    world.advance(100)
  }
  assert.deepEqual(world.differences(replica), { stale: [], missing: [] })
  world.redis.thaw()
  for (let block = 0; block < 10; block++) {
    world.storeOne()
    world.advance(300)
  }
  assert.equal(replica.owns, true)
  assert.deepEqual(world.differences(replica), { stale: [], missing: [] })
  assert.equal(replica.listened, 1)
})

test('while another may be hearing such an engine nobody else begins to', () => {
  const world = worldOf({ isPolled: true, replayBatches: null, replicas: 2 })
  world.advance(2000)
  world.redis.frozen = true
  world.advance(20_000)
  assert.deepEqual(world.replicas.map(({ feed }) => feed.mode).sort(), ['following', 'listening'])
})
