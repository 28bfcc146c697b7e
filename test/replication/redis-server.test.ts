import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startRedis } from '../support/redis-server.ts'

test('a Redis of a test starts, is paused, killed and started again on its port', async (t) => {
  const redis = await startRedis(t)
  assert.equal(await redis.client.set('a', '1'), 'OK')
  redis.pause()
  const answer = redis.client.get('a')
  redis.resume()
  assert.equal(await answer, '1')
  await redis.kill()
  await redis.restart()
  assert.equal(await redis.client.get('a'), null)
})

test('a Redis of a test asks for its password and for client certificates', async (t) => {
  const locked = await startRedis(t, { password: 'open-sesame' })
  assert.equal(await locked.client.ping(), 'PONG')
  assert.match(locked.url, /^redis:\/\/:open-sesame@127\.0\.0\.1:\d+$/)
  const encrypted = await startRedis(t, { tls: { clients: true } })
  assert.equal(await encrypted.client.ping(), 'PONG')
})

test('a server that does not start says why', async (t) => {
  await assert.rejects(startRedis(t, { settings: [['no-such-setting', '1']] }), /Bad directive|FATAL CONFIG/)
})
