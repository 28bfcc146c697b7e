import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RouterError } from '../../src/errors.ts'
import { RedisFault } from '../../src/replication/redis-fault.ts'
import { RedisLink } from '../../src/replication/link.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import { silentLog } from '../../src/telemetry/log.ts'
import { freePort, startRedis } from '../support/redis-server.ts'
import { linkFor, redisDefaults } from '../support/redis-link.ts'
import { until } from '../support/until.ts'

const messagesOf = (lines: readonly { message: string }[]): string[] => lines.map(({ message }) => message)
const up = 'Redis is up'
const away = 'Redis is away: requests go on from memory'
const back = 'Redis is back'

test('a Redis that answers is up, and holds a named log', async (t) => {
  const redis = await startRedis(t)
  const { link, isUp, lines, counted } = linkFor(t, { url: redis.url })
  assert.equal(link.state.kind, 'connecting')
  await isUp()
  assert.match(link.logId ?? '', /^[0-9a-f]{16}$/)
  assert.equal(await redis.client.get('{warmroute}:log-id'), link.logId)
  assert.deepEqual(messagesOf(lines), [up])
  assert.deepEqual(await counted('redis_up'), { '': 1 })
})

test('all replicas see the same log', async (t) => {
  const redis = await startRedis(t)
  const links = [1, 2, 3].map(() => linkFor(t, { url: redis.url }))
  await Promise.all(links.map(({ isUp }) => isUp()))
  assert.equal(new Set(links.map(({ link }) => link.logId)).size, 1)
})

test('a Redis that is absent at start is away, and used once it is there', async (t) => {
  const port = await freePort()
  const { link, isAway, isUp, lines } = linkFor(t, { url: `redis://127.0.0.1:${port}` })
  await isAway()
  assert.deepEqual(link.state, {
    kind: 'away',
    reason: 'unreachable',
    message: `connect ECONNREFUSED 127.0.0.1:${port}`,
  })
  await assert.rejects(
    link.commands.get(['a']),
    (error) => error instanceof RedisFault && error.reason === 'unreachable',
  )
  await startRedis(t, { port })
  await isUp()
  assert.deepEqual(messagesOf(lines), [away, back])
})

test('where Redis is required, the start fails while it cannot be used, and says why', async () => {
  const url = `redis://:planted@127.0.0.1:${await freePort()}`
  const context = { clock: () => performance.now(), random: Math.random, log: silentLog, metrics: createMetrics() }
  const link = new RedisLink({ ...redisDefaults, url, required: true }, context)
  await assert.rejects(link.start(), (error) => {
    assert.ok(error instanceof RouterError && error.code === 'REDIS_UNAVAILABLE')
    assert.match(error.message, /unreachable.*ECONNREFUSED.*redis\.required/)
    assert.doesNotMatch(error.message, /planted/)
    return true
  })
})

test('a connection that breaks and is made anew is no change of state', async (t) => {
  const redis = await startRedis(t)
  const { isUp, lines, link } = linkFor(t, { url: redis.url })
  await isUp()
  await redis.client.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
  await until(
    () =>
      link.commands.get(['a']).then(
        () => true,
        () => false,
      ),
    'commands work again',
  )
  assert.equal(link.state.kind, 'up')
  assert.deepEqual(messagesOf(lines), [up])
})

test('commands under way are limited, and those beyond fail at once', async (t) => {
  const redis = await startRedis(t)
  const { link, isUp, counted } = linkFor(t, { url: redis.url, commandsUnderWay: 20 })
  await isUp()
  redis.pause()
  const startMs = performance.now()
  const settled = await Promise.allSettled(Array.from({ length: 100 }, () => link.commands.get(['a'])))
  redis.resume()
  assert.ok(settled.every(({ status }) => status === 'rejected'))
  const tookMs = performance.now() - startMs
  assert.ok(tookMs > 900 && tookMs < 2500, `${tookMs} ms`)
  const errors = await counted('redis_errors_total')
  assert.ok((errors['full'] ?? 0) >= 80, JSON.stringify(errors))
})

test('an error answer is a fault that repeats nothing of what was sent', async (t) => {
  const redis = await startRedis(t)
  const { link, isUp, counted } = linkFor(t, { url: redis.url })
  await isUp()
  await link.commands.set(link.key('text'), 'planted', null)
  await assert.rejects(link.commands.append(link.key('text'), 'v1', Buffer.from('planted'), 10), (error) => {
    assert.ok(error instanceof RedisFault && error.reason === 'error')
    assert.match(error.message, /^WRONGTYPE/)
    assert.ok(!('command' in error))
    return true
  })
  assert.equal((await counted('redis_errors_total'))['error'], 1)
})

test('a read that waits holds up no command', async (t) => {
  const redis = await startRedis(t)
  const { link, isUp } = linkFor(t, { url: redis.url })
  await isUp()
  const stream = link.key('events')
  const waiting = link.commands.read([{ stream, id: '0-0' }], 10, 5000)
  const own = link.reads()
  const alsoWaiting = own.read([{ stream, id: '0-0' }], 10, 5000)
  const id = await link.commands.append(stream, 'v1', Buffer.from('a'), 10)
  assert.deepEqual((await waiting)[0]?.entries[0]?.id, id)
  assert.deepEqual((await alsoWaiting)[0]?.entries[0]?.id, id)
  own.close()
})
