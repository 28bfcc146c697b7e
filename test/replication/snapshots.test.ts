import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { FlatMap } from '../../src/map/flat-map.ts'
import { RedisFault } from '../../src/replication/redis-fault.ts'
import { SnapshotRedis } from '../../src/replication/snapshot-redis.ts'
import { Snapshots, type SnapshotsOptions } from '../../src/replication/snapshots.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import { batchOf, KvTree, slotOf } from '../support/kv-tree.ts'
import { factsOf, fingerprint } from '../support/map-snapshots.ts'
import { MemoryRedis } from '../support/memory-redis.ts'
import { until } from '../support/until.ts'

function rig(t: TestContext, options: Partial<SnapshotsOptions> = {}) {
  t.mock.timers.enable({ apis: ['setInterval'] })
  const state = { nowMs: 0, isOurs: true, stepMs: 0 }
  const redis = new MemoryRedis(() => state.nowMs)
  const map = new FlatMap({ budgetBytes: 512 * 1024, maxWorkers: 4 })
  map.addWorker(slotOf(0), { countsStores: true, blockSize: 16 })
  const tree = new KvTree(1)
  const chain = tree.growChain(20)
  const metrics = createMetrics()
  const lines: string[] = []
  const note = (_: object, message: string): void => void lines.push(message)
  let names = 0
  const store = new SnapshotRedis({
    commands: redis,
    key: (name) => name,
    newName: () => `n${names++}`,
    maxBytes: 1024 * 1024,
    draftMs: 60_000,
    keepMs: 1_000_000,
  })
  const pace = {
    clock: () => state.nowMs,
    sliceMs: 0,
    pause: () => {
      state.nowMs += state.stepMs
      return Promise.resolve()
    },
  }
  const snapshots = new Snapshots({
    map,
    store,
    fingerprint,
    wants: () => true,
    factsOf: (slot) => factsOf(slot),
    slotOf: () => slotOf(0),
    logPosition: () => '1-1',
    wallClock: () => 1_000_000 + state.nowMs,
    newId: () => Uint8Array.of(1, 2, 3, 4, 5, 6, 7, names),
    changes: () => map.changes,
    isOurs: () => state.isOurs,
    limits: { firstMs: 1000, intervalMs: 10_000, makeMs: 5000 },
    pace,
    readPace: pace,
    log: { debug: () => undefined, info: note, warn: note, error: note },
    metrics,
    ...options,
  })
  const pass = (ms: number): void => {
    for (let left = ms; left > 0; left -= 1000) {
      state.nowMs += 1000
      t.mock.timers.tick(1000)
    }
  }
  let sequence = 0
  const store1 = (blocks: number): void => {
    map.apply(batchOf(0, sequence++, [tree.store(chain.slice(0, blocks))]))
  }
  const made = async (count: number): Promise<void> => {
    await until(() => !snapshots.isMaking && names >= count, `snapshot ${count} is made`)
  }
  const failures = async (): Promise<string> =>
    (await metrics.registry.metrics())
      .split('\n')
      .filter((line) => line.startsWith('warmroute_snapshot_failures_total{'))
      .join()
  return { snapshots, map, state, redis, pass, hold: store1, made, lines, metrics, failures, drafts: () => names }
}

test('the first snapshot comes soon, the next ones after the interval and only when something changed', async (t) => {
  const { snapshots, pass, hold, made, drafts, metrics } = rig(t)
  hold(5)
  snapshots.start()
  assert.equal(drafts(), 0)
  pass(1000)
  await made(1)
  pass(30_000)
  assert.equal(drafts(), 1, 'nothing has changed')
  hold(6)
  pass(1000)
  await made(2)
  hold(7)
  pass(5000)
  assert.equal(drafts(), 2, 'the interval is not over')
  assert.match(await metrics.registry.metrics(), /warmroute_snapshot_age_seconds 5\n/)
  assert.match(await metrics.registry.metrics(), /warmroute_snapshot_bytes \d{3}/)
  await snapshots.stop()
})

test('a snapshot that is not ours to make is not made', async (t) => {
  const { snapshots, pass, hold, made, drafts, state } = rig(t)
  hold(5)
  state.isOurs = false
  snapshots.start()
  pass(20_000)
  assert.equal(drafts(), 0)
  state.isOurs = true
  pass(1000)
  await made(1)
  await snapshots.stop()
})

test('two are not made at the same time', async (t) => {
  const { snapshots, hold, drafts } = rig(t)
  hold(5)
  const first = snapshots.make()
  assert.equal(await snapshots.make(), null)
  assert.equal((await first)?.header.parts.length, 1)
  assert.equal(drafts(), 1)
})

test('a failure is counted with its reason, told once, and tried again', async (t) => {
  const { snapshots, hold, redis, lines, failures } = rig(t)
  hold(5)
  redis.fault = new RedisFault('timeout', 'frozen')
  assert.equal(await snapshots.make(), null)
  assert.equal(await snapshots.make(), null)
  assert.deepEqual(lines, ['snapshot not made'])
  assert.equal(await failures(), 'warmroute_snapshot_failures_total{reason="redis"} 2')
  redis.fault = null
  assert.notEqual(await snapshots.make(), null)
})

test('one that takes too long is given up and leaves the one before', async (t) => {
  const { snapshots, hold, state, failures, redis } = rig(t)
  hold(5)
  await snapshots.make()
  state.stepMs = 6000
  assert.equal(await snapshots.make(), null)
  assert.match(await failures(), /reason="deadline"} 1/)
  assert.match(String(await redis.get(['snapshot'])), /"n0"/)
})

test('to stop gives up what is being made', async (t) => {
  const { snapshots, hold, lines } = rig(t)
  hold(5)
  const making = snapshots.make()
  await snapshots.stop()
  assert.equal(await making, null)
  assert.deepEqual(lines, [])
  assert.equal(await snapshots.make(), null)
})

test('the last snapshot is read at the start; none, a damaged one and one that comes late are none', async (t) => {
  const one = rig(t)
  assert.equal(await one.snapshots.restore(1000), null)
  assert.deepEqual(one.lines, [])
  one.hold(5)
  await one.snapshots.make()
  one.map.clear(slotOf(0), 1)

  one.state.stepMs = 600
  assert.equal(await one.snapshots.restore(500), null)
  assert.match(await one.failures(), /reason="deadline"} 1/)
  one.state.stepMs = 0
  const restored = await one.snapshots.restore(1000)
  assert.equal(restored?.header.logPosition, '1-1')
  assert.equal(restored.parts.length, 1)
  for (const part of restored.parts) part.commit({ epoch: 1, lastSequence: 9, isConcealed: false })
  assert.equal(one.map.workerBlocks(slotOf(0)).gpu, 5)

  one.map.clear(slotOf(0), 2)
  await one.redis.delete(['snapshot:n0:0'])
  assert.equal(await one.snapshots.restore(1000), null)
  assert.match(await one.failures(), /reason="truncated"} 1/)
  assert.equal(one.map.workerBlocks(slotOf(0)).gpu, 0)
})
