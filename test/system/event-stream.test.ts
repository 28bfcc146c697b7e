// KV events through a Redis stream, with what can happen to Redis; the test itself is the bridge.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { DecisionRecord } from '../../src/routing/decisions.ts'
import { fleetFor, model, postTo, prose, type Fleet } from '../support/fleet.ts'
import { freePort, startRedis, type RedisServer } from '../support/redis-server.ts'
import { until } from '../support/until.ts'

const blockSize = 16
const stream = 'kv:engine'
const quick = { heartbeatMs: 30, awayMs: 300, commandMs: 300, connectMs: 300 }

const fleetAt = (t: Parameters<typeof fleetFor>[0], port: number): Promise<Fleet> =>
  fleetFor(t, {
    workers: 1,
    worker: { events: { redis: stream } },
    config: { redis: { url: `redis://127.0.0.1:${port}`, ...quick } },
    awaitEvents: false,
  })

async function matched(fleet: Fleet, prompt: string): Promise<number | undefined> {
  const record = (await (await fleet.explain({ model, prompt })).json()) as DecisionRecord
  return record.candidates[0]?.matchedBlocks.gpu
}

/** The first blocks of a prompt, as a bridge writes them. */
async function stored(fleet: Fleet, prompt: string, blocks: number): Promise<string> {
  const { tokens } = (await (await fleet.post('/tokenize', { model, prompt })).json()) as { tokens: number[] }
  const hashes = Array.from({ length: blocks }, (_, index) => `${tokens[index] ?? 0}${index}`)
  return JSON.stringify([
    { type: 'stored', hashes, tokens: tokens.slice(0, blocks * blockSize), block_size: blockSize },
  ])
}

async function write({ client }: RedisServer, seq: number, events: string, id = '*'): Promise<void> {
  await client.xadd(stream, id, 'v', '1', 'seq', `${seq}`, 'ts', `${1000 + seq}`, 'events', events)
}

const stateOf = async (fleet: Fleet): Promise<string | undefined> => (await fleet.workers())[0]?.events.state

test('a router starts and serves without its Redis, and reads the stream once it is there', async (t) => {
  const port = await freePort()
  const fleet = await fleetAt(t, port)
  assert.equal(await stateOf(fleet), 'unknown')
  assert.equal((await fleet.chat('Hi')).status, 200)
  const redis = await startRedis(t, { port })
  const prompt = prose('late', 60)
  await write(redis, 7, await stored(fleet, prompt, 3))
  await until(async () => (await matched(fleet, prompt)) === 3, 'the blocks are credited', 10_000)
  assert.equal(await stateOf(fleet), 'live')
})

test('while Redis hangs requests are served and what is known stays; what was written meanwhile is read afterwards', async (t) => {
  const redis = await startRedis(t)
  const fleet = await fleetAt(t, redis.port)
  const [first, second] = [prose('before', 60), prose('meanwhile', 60)]
  await write(redis, 0, await stored(fleet, first, 3))
  await until(async () => (await matched(fleet, first)) === 3, 'the first is credited', 10_000)
  const meanwhile = await stored(fleet, second, 2)
  redis.pause()
  await until(async () => (await stateOf(fleet)) === 'unknown', 'nothing is known to be live', 10_000)
  assert.equal((await fleet.chat('Hi')).status, 200)
  assert.equal(await matched(fleet, first), 3)
  const written = write(redis, 1, meanwhile)
  redis.resume()
  await written
  await until(async () => (await matched(fleet, second)) === 2, 'the second is credited', 10_000)
  assert.equal(await matched(fleet, first), 3)
  const changes = fleet.log.filter(({ message }) => message.startsWith('Redis is'))
  assert.deepEqual(
    changes.map(({ message }) => message),
    ['Redis is up', 'Redis is away: requests go on from memory', 'Redis is back'],
  )
})

test('a Redis that lost everything and counts its ids from the start again leaves what is written to it now', async (t) => {
  const redis = await startRedis(t)
  const fleet = await fleetAt(t, redis.port)
  const [old, fresh] = [prose('old', 60), prose('fresh', 60)]
  await write(redis, 5, await stored(fleet, old, 3))
  await until(async () => (await matched(fleet, old)) === 3, 'the old one is credited', 10_000)
  await redis.client.flushall()
  await write(redis, 0, await stored(fleet, fresh, 2), '1-0')
  await until(async () => (await matched(fleet, fresh)) === 2, 'the new one is credited', 10_000)
  assert.equal(await matched(fleet, old), 0)
})

test('a worker that is added with a stream, where there is no Redis, is served without events, and the log says why', async (t) => {
  const fleet = await fleetFor(t, { workers: 1, urls: [], awaitEvents: false })
  const [url] = fleet.simulators.urls
  const answer = await postTo(`${fleet.adminUrl}/admin/workers`, { url, pool: model, events: { redis: stream } })
  assert.equal(answer.status, 201)
  const told = (): boolean => fleet.log.some(({ fields }) => /no Redis to read/.test(String(fields['error'])))
  await until(told, 'the log says why', 10_000)
  assert.equal((await fleet.chat('Hi')).status, 200)
  assert.equal(await stateOf(fleet), 'absent')
})
