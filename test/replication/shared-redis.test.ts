import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { framesOf, LogReader } from '../../src/replication/log-reader.ts'
import { LogWriter } from '../../src/replication/log-writer.ts'
import { KvTree, slotOf } from '../support/kv-tree.ts'
import { linkFor } from '../support/redis-link.ts'
import { startRedis, type RedisServer } from '../support/redis-server.ts'
import { Replica, shareTtlMs } from '../support/replicas.ts'
import { until } from '../support/until.ts'

const clock = (): number => performance.now()
const tree = new KvTree(4)
const prompt = tree.keysOf(tree.growChain(8))
const ids = ['aaaaaaaaaaaaaaaa', 'bbbbbbbbbbbbbbbb'] as const

/** A replica that says and hears everything through Redis. */
async function joined(t: TestContext, redis: RedisServer, id: string): Promise<Replica> {
  const rig = linkFor(t, { url: redis.url })
  await rig.isUp()
  const { link, metrics } = rig
  const stream = link.key('shared')
  const writer = new LogWriter({
    ...{ commands: link.commands, stream, name: 'shared', maxEntries: 10_000, maxAgeMs: 60_000 },
    ...{ entryBlocks: 256, bufferBytes: 1_000_000, clock, metrics },
    onBroken: () => {
      replica.state.away()
      writer.resume()
      if (link.state.kind === 'up') replica.state.up()
    },
  })
  const replica: Replica = new Replica(id, {
    get nowMs() {
      return clock()
    },
    agenda: { at: (atMs, run) => void setTimeout(run, Math.max(0, atMs - clock())) },
    replicas: [],
    append: (_, message) => writer.append(message, 1),
  })
  const reader = new LogReader({ link, reads: link.reads(), commands: link.commands, clock, metrics })
  t.after(() => {
    replica.kill()
    return reader.stop()
  })
  reader.follow({
    ...{ stream, name: 'shared', from: (await link.commands.lastId(stream)) ?? '0-0' },
    onEntry: (entry) => {
      const messages = framesOf(entry)
      if (messages !== null && replica.isAlive) replica.state.receive(messages)
    },
    onGap: () => replica.state.missed(),
  })
  reader.start()
  for (let index = 0; index < 2; index++) replica.add(index)
  link.onUp(() => replica.state.up())
  link.onAway(() => replica.state.away())
  replica.state.up()
  return replica
}

async function pair(t: TestContext) {
  const redis = await startRedis(t)
  const [one, other] = [await joined(t, redis, ids[0]), await joined(t, redis, ids[1])]
  await until(() => other.state.replicas().length === 1 && one.state.replicas().length === 1, 'they hear each other')
  return { redis, one, other }
}

const send = (from: Replica) =>
  from.sent.sent(
    { slot: slotOf(1), blockSize: 16, keys: prompt, believedBlocks: 0, capacityBlocks: null },
    60_000,
    clock(),
  )

test('through Redis a replica’s load, prompts and responses are known in the other, and gone when it is killed', async (t) => {
  const { redis, one, other } = await pair(t)
  const [worker] = [...one.fleet.workers()]
  assert.ok(worker !== undefined)
  one.send(1)
  send(one)
  one.owners.add('resp_secret_id', worker)
  await until(() => other.figures(1)[0] === 1, 'the load is known')
  assert.deepEqual(
    [other.figures(1), other.known(prompt, 1)],
    [
      [1, 60, 7],
      [0, 8],
    ],
  )
  assert.equal(other.owners.owner('resp_secret_id').id, worker.id)
  const [key] = await redis.client.keys('*shared')
  const entries = await redis.client.xrangeBuffer(key ?? '', '-', '+')
  const bytes = Buffer.concat(entries.flatMap(([, fields]) => fields))
  assert.ok(bytes.length > 0 && !bytes.includes('resp_') && !bytes.includes('secret'))
  const killedAtMs = clock()
  one.kill()
  await until(() => other.figures(1)[0] === 0, 'its share is gone')
  assert.ok(clock() - killedAtMs < shareTtlMs + 1000)
  assert.equal(other.known(prompt, 1)[1], 0)
})

test('a Redis that freezes, loses everything or starts anew leaves no figure behind, and all is known again', async (t) => {
  const { redis, one, other } = await pair(t)
  const first = one.send(0)
  await until(() => other.figures(0)[0] === 1, 'the load is known')
  const heals = async (what: string): Promise<void> => {
    const second = one.send(1)
    await until(() => other.figures(1)[0] === 1 && other.figures(0)[0] === 1, `${what}: all is known again`, 10_000)
    second.release()
    await until(() => other.figures(1)[0] === 0, `${what}: what ended is known`, 10_000)
  }
  await redis.client.flushall()
  await heals('after FLUSHALL')
  redis.pause()
  await until(() => other.figures(0)[0] === 0, 'nothing is believed of one that is not heard', 10_000)
  redis.resume()
  await heals('after SIGCONT')
  await redis.kill()
  await until(() => other.figures(0)[0] === 0, 'nothing is believed of one that is not heard', 10_000)
  await redis.restart()
  await heals('after a restart')
  first.release()
  await until(() => other.figures(0)[0] === 0, 'all has ended')
  assert.deepEqual(other.figures(0), [0, 0, 0])
})
