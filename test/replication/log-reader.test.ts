import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { framesOf, LogReader, streamStart, type StreamFollower } from '../../src/replication/log-reader.ts'
import { LogWriter } from '../../src/replication/log-writer.ts'
import { linkFor } from '../support/redis-link.ts'
import { startRedis, type RedisServer } from '../support/redis-server.ts'
import { until } from '../support/until.ts'

const clock = (): number => performance.now()

/** One replica that writes a log and reads it back. */
async function logOn(t: TestContext, redis: RedisServer, { maxEntries = 100_000 } = {}) {
  const rig = linkFor(t, { url: redis.url })
  await rig.isUp()
  const { link, metrics } = rig
  const stream = link.key('events')
  const broken: string[] = []
  const writer = new LogWriter({
    commands: link.commands,
    stream,
    name: 'events',
    maxEntries,
    maxAgeMs: 60_000,
    entryBlocks: 1,
    bufferBytes: 10_000_000,
    clock,
    metrics,
    onBroken: (reason) => broken.push(reason),
  })
  const reader = new LogReader({ link, reads: link.commands, commands: link.commands, clock, metrics })
  t.after(() => reader.stop())
  const read: string[] = []
  const told: string[] = []
  const follower = (changes: Partial<StreamFollower> = {}): StreamFollower => ({
    stream,
    name: 'events',
    from: streamStart,
    onEntry: (entry) => read.push(framesOf(entry)?.toString() ?? ''),
    onGap: (gap) => told.push(gap),
    onCaughtUp: () => told.push('caught up'),
    ...changes,
  })
  const append = (text: string): boolean => writer.append(Buffer.from(text), 1)
  return { ...rig, stream, writer, broken, reader, read, told, follower, append }
}

const numbers = (from: number, to: number): string[] => Array.from({ length: to - from }, (_, i) => String(from + i))

test('what is written is read in order, and catching up is told once', async (t) => {
  const { append, reader, read, told, follower, writer } = await logOn(t, await startRedis(t))
  for (const text of numbers(0, 1000)) append(text)
  await until(() => writer.bufferedBytes === 0, 'all is written')
  const following = reader.follow(follower())
  assert.equal(following.isCaughtUp, false)
  reader.start()
  await until(() => following.isCaughtUp, 'it has caught up')
  assert.equal(following.behindMs(), 0)
  for (const text of numbers(1000, 1100)) append(text)
  await until(() => read.length === 1100, 'all is read')
  assert.deepEqual(read, numbers(0, 1100))
  assert.deepEqual(told, ['caught up'])
})

test('several streams are read each from its place, one joins later and one leaves', async (t) => {
  const redis = await startRedis(t)
  const { reader, link, follower, append, read } = await logOn(t, redis)
  const other = link.key('shared')
  const first = await link.commands.append(other, 'v1', Buffer.from('known'), 100)
  const ofOther: string[] = []
  reader.start()
  const log = reader.follow(follower())
  append('a')
  await until(() => read.length === 1, 'the first stream is read')
  const onEntry: StreamFollower['onEntry'] = (entry) => ofOther.push(framesOf(entry)?.toString() ?? '')
  const following = reader.follow({ stream: other, name: 'shared', from: first, onEntry })
  await link.commands.append(other, 'v1', Buffer.from('new'), 100)
  await until(() => ofOther.length === 1, 'the second stream is read')
  assert.deepEqual(ofOther, ['new'])
  log.leave()
  append('b')
  await link.commands.append(other, 'v1', Buffer.from('newer'), 100)
  await until(() => ofOther.length === 2, 'the second stream is read on')
  assert.deepEqual(read, ['a'])
  assert.equal(following.position, await link.commands.lastId(other))
})

test('entries are handed on in slices that leave the event loop to others', async (t) => {
  const { append, reader, follower, writer } = await logOn(t, await startRedis(t))
  for (const text of numbers(0, 100)) append(text)
  await until(() => writer.bufferedBytes === 0, 'all is written')
  let entries = 0
  let longestTurn = 0
  let ofTurn = 0
  const onEntry = (): void => {
    const endMs = performance.now() + 1
    while (performance.now() < endMs);
    entries++
    longestTurn = Math.max(longestTurn, ++ofTurn)
  }
  const watch = (): void => {
    ofTurn = 0
    if (entries < 100) setImmediate(watch)
  }
  watch()
  reader.follow(follower({ onEntry }))
  reader.start()
  await until(() => entries === 100, 'all is read')
  assert.ok(longestTurn <= 6, `${longestTurn} ms at once`)
})

test('a log that was cut off before it was read is a gap, and is read from what is left', async (t) => {
  const { append, reader, follower, writer, told, read, counted } = await logOn(t, await startRedis(t), {
    maxEntries: 200,
  })
  append('first')
  await until(() => writer.bufferedBytes === 0, 'the first is written')
  reader.start()
  const following = reader.follow(follower())
  await until(() => read.length === 1, 'the first is read')
  const { position } = following
  following.leave()
  for (const text of numbers(0, 1000)) append(text)
  await until(() => writer.bufferedBytes === 0, 'all is written')
  reader.follow(follower({ from: position }))
  await until(() => read.at(-1) === '999', 'the rest is read')
  assert.deepEqual(told, ['caught up', 'trimmed', 'caught up'])
  assert.ok(read.length > 200 && read.length < 500)
  assert.deepEqual(read.slice(1), numbers(1000 - read.length + 1, 1000))
  assert.deepEqual(await counted('stream_gaps_total'), { 'events,trimmed': 1 })
})

test('a place whose entry is still there is no gap, however long ago it was read', async (t) => {
  const { append, reader, follower, writer, told, read, link, stream } = await logOn(t, await startRedis(t))
  for (const text of numbers(0, 500)) append(text)
  await until(() => writer.bufferedBytes === 0, 'all is written')
  const [entry] = await link.commands.range(stream, '-', '+', 1)
  reader.follow(follower({ from: entry?.id ?? '' }))
  reader.start()
  await until(() => read.length === 499, 'the rest is read')
  assert.deepEqual(told, ['caught up'])
})

for (const [what, lose] of [
  ['is flushed', (redis: RedisServer) => redis.client.flushall()],
  [
    'starts again empty',
    async (redis: RedisServer) => {
      await redis.kill()
      await redis.restart()
    },
  ],
] as const) {
  test(`a Redis that ${what} holds another log, which is read from its start`, async (t) => {
    const redis = await startRedis(t)
    const { append, reader, follower, writer, told, read, link } = await logOn(t, redis)
    reader.start()
    reader.follow(follower())
    append('old')
    await until(() => read.length === 1, 'the old one is read')
    const { logId } = link
    await lose(redis)
    await until(() => link.logId !== logId, 'the loss is seen')
    await until(() => link.state.kind === 'up', 'Redis is up')
    assert.ok(told.includes('anew'))
    writer.resume()
    append('new')
    await until(() => read.at(-1) === 'new', 'the new one is read')
    assert.deepEqual(read, ['old', 'new'])
  })
}

test('entries that are lost in a failover are a gap, and their ids do not hide new ones', async (t) => {
  const redis = await startRedis(t)
  const { reader, follower, told, read, stream } = await logOn(t, redis)
  reader.start()
  await redis.client.xadd(stream, '1000-0', 'v1', 'a')
  await redis.client.xadd(stream, '2000-0', 'v1', 'lost')
  const following = reader.follow(follower())
  await until(() => read.length === 2, 'both are read')
  // The new master has not got the last entry, and its clock is behind.
  await redis.client.xdel(stream, '2000-0')
  await redis.client.del(stream)
  await redis.client.xadd(stream, '1000-0', 'v1', 'a')
  await redis.client.xadd(stream, '1500-0', 'v1', 'new')
  await redis.client.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
  await until(() => read.at(-1) === 'new', 'the new one is read')
  assert.deepEqual(read, ['a', 'lost', 'a', 'new'])
  assert.ok(told.includes('trimmed'))
  assert.equal(following.position, '1500-0')
})
