import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { Leases } from '../../src/replication/leases.ts'
import { RedisFault } from '../../src/replication/redis-fault.ts'
import { preferredOwner } from '../../src/replication/rendezvous.ts'
import { MemoryRedis } from '../support/memory-redis.ts'
import { seededRandom } from '../support/random.ts'
import { linkFor } from '../support/redis-link.ts'
import { startRedis } from '../support/redis-server.ts'
import { tcpProxy } from '../support/tcp-proxy.ts'
import { until } from '../support/until.ts'

const leaseMs = 1200
const roundMs = leaseMs / 4

/** Replicas whose rounds the test runs, on a clock of its own. */
function replicasOn(count: number) {
  /** Redis' wall clock is ahead of ours by `redisAheadMs`. */
  const time = { nowMs: 1_000_000, redisAheadMs: 0 }
  const there = new Set<string>()
  const redis = new MemoryRedis(() => time.nowMs + time.redisAheadMs)
  const ids = Array.from({ length: count }, (_, i) => `replica-${i}`)
  const replicas = ids.map((replica) => {
    there.add(replica)
    const told: string[] = []
    const leases = new Leases({
      commands: redis,
      key: (name) => `lease:${name}`,
      replica,
      replicas: () => there,
      leaseMs,
      clock: () => time.nowMs,
      onAcquired: (name) => told.push(`+${name}`),
      onLost: (name) => told.push(`-${name}`),
    })
    return { replica, leases, told }
  })
  /** Lets rounds pass for some of them. */
  const rounds = async (howMany: number, who = replicas): Promise<void> => {
    for (let i = 0; i < howMany; i++) {
      time.nowMs += roundMs
      for (const { leases } of who) await leases.tick()
    }
  }
  return { time, redis, replicas, rounds, there }
}

const away = new RedisFault('timeout', 'no answer')

test('one replica gets the lease, the preferred one at once, and keeps it', async () => {
  const { replicas, rounds } = replicasOn(4)
  for (const { leases } of replicas) leases.want('w', true)
  const preferred = preferredOwner(
    'w',
    replicas.map(({ replica }) => replica),
  )
  await rounds(1)
  assert.deepEqual(
    replicas.filter(({ leases }) => leases.holds('w')).map(({ replica }) => replica),
    [preferred],
  )
  await rounds(20)
  assert.deepEqual(
    replicas.flatMap(({ told }) => told),
    ['+w'],
  )
})

test('names spread over the replicas, and only those of one that left move', () => {
  const names = Array.from({ length: 3000 }, (_, i) => `http://10.0.${i >> 8}.${i & 255}:8000`)
  const four = names.map((name) => preferredOwner(name, ['a', 'b', 'c', 'd']))
  for (const replica of 'abcd') {
    const share = four.filter((owner) => owner === replica).length / names.length
    assert.ok(share > 0.21 && share < 0.29, `${replica}: ${share}`)
  }
  for (const [at, name] of names.entries()) {
    if (four[at] !== 'd') assert.equal(preferredOwner(name, ['c', 'b', 'a']), four[at])
  }
  assert.equal(preferredOwner('w', []), null)
})

test('when the holder dies another takes over after the life of a lease and a round at most', async () => {
  const { time, replicas, rounds } = replicasOn(3)
  for (const { leases } of replicas) leases.want('w', true)
  await rounds(2)
  const others = replicas.filter(({ leases }) => !leases.holds('w'))
  const diedMs = time.nowMs
  while (!others.some(({ leases }) => leases.holds('w'))) await rounds(1, others)
  assert.ok(time.nowMs - diedMs <= leaseMs + roundMs, `${time.nowMs - diedMs} ms`)
})

test('a lease that is given up is taken by another within two rounds, and sought again after the pause', async () => {
  const { replicas, rounds } = replicasOn(2)
  for (const { leases } of replicas) leases.want('w', true)
  await rounds(2)
  const holder = replicas.find(({ leases }) => leases.holds('w'))!
  const other = replicas.find((replica) => replica !== holder)!
  holder.leases.release('w', 10 * roundMs)
  assert.equal(holder.leases.holds('w'), false)
  await rounds(2)
  assert.equal(other.leases.holds('w'), true)
  assert.deepEqual(holder.told, ['+w'], 'what is given up is not lost')
  other.leases.want('w', false)
  await rounds(4)
  assert.equal(holder.leases.holds('w'), false)
  await rounds(6)
  assert.equal(holder.leases.holds('w'), true)
})

test('a lease that cannot be renewed is lost by the own clock, before Redis lets another have it', async () => {
  const { time, redis, replicas } = replicasOn(1)
  const [{ leases, told }] = replicas as [(typeof replicas)[number]]
  leases.want('w', true)
  await leases.tick()
  redis.fault = away
  time.nowMs += leaseMs - 1
  await leases.tick()
  assert.equal(leases.holds('w'), true)
  time.nowMs += 1
  assert.equal(leases.holds('w'), false)
  await leases.tick()
  assert.deepEqual(told, ['+w', '-w'])
  redis.fault = null
  time.nowMs += roundMs
  await leases.tick()
  assert.equal(leases.holds('w'), true)
})

test('a lease that another holds, or that is gone, is lost', async () => {
  const { redis, replicas, rounds } = replicasOn(1)
  const [{ leases, told }] = replicas as [(typeof replicas)[number]]
  leases.want('a', true)
  leases.want('b', true)
  await rounds(1)
  await redis.set('lease:a', 'somebody', leaseMs)
  await redis.delete(['lease:b'])
  await rounds(1)
  assert.deepEqual(told, ['+a', '+b', '-a', '-b'])
  await rounds(1)
  assert.deepEqual(leases.held(), ['b'])
})

const hourMs = 3_600_000

for (const [way, jumpMs] of [
  ['ahead', hourMs],
  ['back', -hourMs],
] as const) {
  test(`a clock of Redis that jumps an hour ${way} leaves one holder`, async () => {
    const { time, replicas, rounds } = replicasOn(3)
    for (const { leases } of replicas) leases.want('w', true)
    await rounds(2)
    time.redisAheadMs += jumpMs
    await rounds(3)
    assert.equal(replicas.filter(({ leases }) => leases.holds('w')).length, 1)
    await rounds(10)
    assert.equal(replicas.filter(({ leases }) => leases.holds('w')).length, 1)
  })
}

test('a lease whose holder died as the clock of Redis was set back is freed all the same', async () => {
  const { time, replicas, rounds, there } = replicasOn(3)
  for (const { leases } of replicas) leases.want('w', true)
  await rounds(2)
  const holder = replicas.find(({ leases }) => leases.holds('w'))!
  const others = replicas.filter((replica) => replica !== holder)
  time.redisAheadMs -= hourMs
  there.delete(holder.replica)
  const diedMs = time.nowMs
  while (!others.some(({ leases }) => leases.holds('w')) && time.nowMs - diedMs < hourMs) await rounds(1, others)
  assert.ok(time.nowMs - diedMs <= 4 * leaseMs, `${time.nowMs - diedMs} ms`)
})

test('what stops gives up all its leases at once', async () => {
  const { redis, replicas, rounds } = replicasOn(1)
  const [{ leases, told }] = replicas as [(typeof replicas)[number]]
  for (const name of ['a', 'b']) leases.want(name, true)
  await rounds(1)
  await leases.stop()
  assert.deepEqual(await redis.get(['lease:a', 'lease:b']), [null, null])
  assert.deepEqual(told, ['+a', '+b'])
})

test('after any faults exactly one replica holds each lease, and never two where Redis forgets nothing', async () => {
  for (let seed = 1; seed <= 100; seed++) {
    const random = seededRandom(seed)
    const { time, redis, replicas, rounds } = replicasOn(3)
    const names = ['w0', 'w1', 'w2']
    for (const { leases } of replicas) for (const name of names) leases.want(name, true)
    const forgets = seed % 2 === 0
    for (let step = 0; step < 80; step++) {
      time.nowMs += random() * roundMs
      const { leases } = replicas[Math.floor(random() * 3)]!
      const name = names[Math.floor(random() * 3)]!
      const chance = random()
      if (chance < 0.1) redis.fault = away
      else if (chance < 0.2) redis.fault = null
      else if (chance < 0.23 && forgets) redis.flush()
      else if (chance < 0.27) leases.release(name, random() * leaseMs)
      else if (chance < 0.3) {
        leases.want(name, false)
        leases.want(name, true)
      } else await leases.tick()
      const holders = names.map((name) => replicas.filter(({ leases }) => leases.holds(name)).length)
      assert.ok(forgets || Math.max(...holders) <= 1, `seed ${seed}: ${holders.join()} holders`)
    }
    redis.fault = null
    await rounds(10)
    for (const name of names) {
      assert.equal(replicas.filter(({ leases }) => leases.holds(name)).length, 1, `seed ${seed}: ${name}`)
    }
  }
})

/** A replica on a real Redis, its id and leases on the real clock. */
function real(t: TestContext, url: string, replica: string) {
  const { link, isUp } = linkFor(t, { url })
  const told: string[] = []
  const leases = new Leases({
    commands: link.commands,
    key: (name) => link.key(`lease:${name}`),
    replica,
    replicas: () => ['a', 'b'],
    leaseMs,
    clock: () => performance.now(),
    onAcquired: (name) => told.push(`+${name}`),
    onLost: (name) => told.push(`-${name}`),
  })
  t.after(() => leases.stop())
  return { link, leases, told, isUp }
}

test('on a real Redis a lease changes hands within 2 s of its holder’s death', async (t) => {
  const redis = await startRedis(t)
  const [a, b] = [real(t, redis.url, 'a'), real(t, redis.url, 'b')]
  await Promise.all([a.isUp(), b.isUp()])
  const names = Array.from({ length: 200 }, (_, i) => `http://10.0.0.${i}:8000`)
  for (const { leases } of [a, b]) {
    for (const name of names) leases.want(name, true)
    leases.start()
  }
  await until(() => a.leases.held().length + b.leases.held().length === names.length, 'all are held')
  const share = a.leases.held().length
  assert.ok(share > 60 && share < 140, `a holds ${share} of ${names.length}`)
  const diedMs = performance.now()
  await a.link.stop()
  await until(() => b.leases.held().length === names.length, 'b holds all')
  const tookMs = performance.now() - diedMs
  assert.ok(tookMs < 2000, `${tookMs} ms`)
  await until(() => a.leases.held().length === 0, 'a knows that it lost them')
  assert.equal(a.told.filter((line) => line.startsWith('-')).length, share)
})

test('with Redis frozen the holder stops in time, and gets its lease back after', async (t) => {
  const redis = await startRedis(t)
  const { leases, told, isUp } = real(t, redis.url, 'a')
  await isUp()
  leases.want('w', true)
  leases.start()
  await until(() => leases.holds('w'), 'it is held')
  redis.pause()
  const frozenMs = performance.now()
  await until(() => told.includes('-w'), 'it is lost')
  const tookMs = performance.now() - frozenMs
  assert.ok(tookMs > leaseMs - roundMs - 50 && tookMs < leaseMs + 100, `${tookMs} ms`)
  redis.resume()
  await until(() => leases.holds('w'), 'it is held again')
  assert.deepEqual(told, ['+w', '-w', '+w'])
})

test('answers that come 200 ms late cost no lease', async (t) => {
  const redis = await startRedis(t)
  const proxy = await tcpProxy(t, redis.port)
  proxy.delay(200)
  const { leases, told, isUp } = real(t, `redis://127.0.0.1:${proxy.port}`, 'a')
  await isUp()
  for (const name of ['v', 'w']) leases.want(name, true)
  leases.start()
  const renewals = async (): Promise<number> =>
    Number(/cmdstat_pexpire:calls=(\d+)/.exec(await redis.client.info('commandstats'))?.[1] ?? 0)
  await until(async () => (await renewals()) >= 12, 'they are renewed', 10_000)
  assert.deepEqual(told.sort(), ['+v', '+w'])
})
