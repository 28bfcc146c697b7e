import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test, type TestContext } from 'node:test'
import { FlatMap } from '../../src/map/flat-map.ts'
import { restoreSnapshot } from '../../src/map/snapshot-restore.ts'
import type { RedisCommands } from '../../src/replication/redis-commands.ts'
import { RedisFault } from '../../src/replication/redis-fault.ts'
import { SnapshotFile } from '../../src/replication/snapshot-file.ts'
import { SnapshotRedis } from '../../src/replication/snapshot-redis.ts'
import type { SnapshotStore } from '../../src/replication/snapshot-store.ts'
import { batchOf, emptyMatch, KvTree, slotOf } from '../support/kv-tree.ts'
import { fingerprint, shortSlices, snapshotOf } from '../support/map-snapshots.ts'
import { MemoryRedis } from '../support/memory-redis.ts'
import { linkFor } from '../support/redis-link.ts'
import { startRedis } from '../support/redis-server.ts'

const maxBytes = 1024 * 1024
const tree = new KvTree(1)
const chain = tree.growChain(20)

function mapOf(blocks: number): FlatMap {
  const map = new FlatMap({ budgetBytes: 512 * 1024, maxWorkers: 4 })
  map.addWorker(slotOf(0), { countsStores: true, blockSize: 16 })
  if (blocks > 0) map.apply(batchOf(0, 0, [tree.store(chain.slice(0, blocks))]))
  return map
}

async function write(store: SnapshotStore, blocks: number): Promise<void> {
  const draft = await store.write()
  try {
    await snapshotOf(mapOf(blocks), { sink: draft })
  } finally {
    await draft.abort()
  }
}

/** Blocks that the snapshot in the store gives to the worker; null: there is none. */
async function read(store: SnapshotStore): Promise<number | null> {
  const frames = await store.read()
  if (frames === null) return null
  try {
    const map = mapOf(0)
    const slotOfPart = () => slotOf(0)
    const pace = shortSlices()
    const { parts } = await restoreSnapshot({ map, frames, fingerprint, slotOf: slotOfPart, pace })
    for (const part of parts) part.commit({ epoch: 0, lastSequence: 0, isConcealed: false })
    const out = emptyMatch(1)
    map.match([{ blockSize: 16, keys: tree.keysOf(chain) }], out)
    return out.gpu[0] ?? 0
  } finally {
    await frames.close()
  }
}

async function fileFor(
  t: TestContext,
  limit = maxBytes,
): Promise<{ store: SnapshotFile; path: string; folder: string }> {
  const folder = await mkdtemp(join(tmpdir(), 'warmroute-snapshot-'))
  t.after(() => rm(folder, { recursive: true }))
  const path = join(folder, 'map.snapshot')
  return { store: new SnapshotFile({ path, maxBytes: limit }), path, folder }
}

function redisStore(commands: RedisCommands, prefix = '', limit = maxBytes): SnapshotRedis {
  let names = 0
  return new SnapshotRedis({
    commands,
    key: (name) => prefix + name,
    newName: () => `n${names++}`,
    maxBytes: limit,
    draftMs: 1000,
    keepMs: 100_000,
  })
}

const kinds: readonly [string, (t: TestContext, limit?: number) => Promise<SnapshotStore>][] = [
  ['a file', async (t, limit) => (await fileFor(t, limit)).store],
  ['Redis in memory', (_, limit) => Promise.resolve(redisStore(new MemoryRedis(), '', limit))],
  [
    'Redis',
    async (t, limit) => {
      const { link, isUp } = linkFor(t, { url: (await startRedis(t)).url })
      await isUp()
      return redisStore(link.commands, link.key(''), limit)
    },
  ],
]

for (const [name, create] of kinds) {
  describe(`snapshots in ${name}`, () => {
    test('there is none at first, then the last one that was finished', async (t) => {
      const store = await create(t)
      assert.equal(await read(store), null)
      await write(store, 5)
      assert.equal(await read(store), 5)
      await write(store, 20)
      assert.equal(await read(store), 20)
    })

    test('one that is given up leaves the one before', async (t) => {
      const store = await create(t)
      await write(store, 5)
      const draft = await store.write()
      await draft.chunk(Buffer.alloc(100))
      assert.equal(await read(store), 5)
      await draft.abort()
      assert.equal(await read(store), 5)
    })

    test('one that is too large is given up', async (t) => {
      const store = await create(t, 300)
      await assert.rejects(write(store, 20), { reason: 'oversize' })
      assert.equal(await read(store), null)
    })
  })
}

test('a file that is cut off anywhere, or is something else, is refused', async (t) => {
  const { store, path } = await fileFor(t)
  await write(store, 5)
  const { size } = await stat(path)
  for (const bytes of [size - 1, size - 16, size >> 1, 40, 1, 0]) {
    await truncate(path, bytes)
    await assert.rejects(read(store), { code: 'SNAPSHOT_UNUSABLE' })
    await write(store, 5)
  }
  await writeFile(path, 'something else, long enough to be one, if only its ending were that of one')
  await assert.rejects(read(store), { reason: 'truncated' })
})

test('a file is written beside the one before, and what a process left that died is written over', async (t) => {
  const { store, path, folder } = await fileFor(t)
  await write(store, 5)
  await writeFile(`${path}.tmp`, Buffer.alloc(100_000))
  await write(store, 6)
  assert.equal(await read(store), 6)
  assert.deepEqual(await readdir(folder), ['map.snapshot'])
  assert.equal((await stat(path)).mode & 0o777, 0o600)
})

test('no engine’s token, and no text, is in a file', async (t) => {
  const { store, path } = await fileFor(t)
  await write(store, 5)
  const bytes = await readFile(path)
  const [low, high] = tree.locals[0]!
  const local = Buffer.alloc(8)
  local.writeUInt32LE(low)
  local.writeUInt32LE(high, 4)
  assert.equal(bytes.indexOf(local), -1)
})

test('a snapshot of which a chunk is missing in Redis is refused', async () => {
  const redis = new MemoryRedis()
  const store = redisStore(redis)
  await write(store, 5)
  await redis.delete(['snapshot:n0:0'])
  await assert.rejects(read(store), { reason: 'truncated' })
  await redis.delete(['snapshot:n0:head'])
  await assert.rejects(read(store), { reason: 'truncated' })
})

test('what a writer left in Redis that died runs out, and what is finished stays', async () => {
  let nowMs = 0
  const redis = new MemoryRedis(() => nowMs)
  const store = redisStore(redis)
  await write(store, 5)
  const draft = await store.write()
  await draft.chunk(Buffer.alloc(10))
  nowMs = 2000
  assert.deepEqual(await redis.get(['snapshot:n1:0']), [null])
  assert.equal(await read(store), 5)
  await assert.rejects(draft.header(Buffer.alloc(10)), { reason: 'truncated' })
  assert.equal(await read(store), 5)
})

test('the snapshot before is deleted once the next one is finished', async () => {
  const redis = new MemoryRedis()
  const store = redisStore(redis)
  await write(store, 5)
  await write(store, 6)
  assert.deepEqual(await redis.get(['snapshot:n0:0', 'snapshot:n0:head']), [null, null])
})

test('what stands in the place of the pointer and is none is refused; faults of Redis are its own', async () => {
  const redis = new MemoryRedis()
  const store = redisStore(redis)
  for (const value of ['', '{}', '{"name":"../x","chunks":1}', '[1]']) {
    await redis.set('snapshot', value, null)
    await assert.rejects(read(store), { reason: 'malformed' })
  }
  redis.fault = new RedisFault('timeout', 'frozen')
  await assert.rejects(read(store), { reason: 'timeout' })
})
