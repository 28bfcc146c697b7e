import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import type { RedisReason } from '../../src/replication/redis-fault.ts'
import { linkFor, type RigLink } from '../support/redis-link.ts'
import { freePort, startRedis, type RedisServer } from '../support/redis-server.ts'
import { tcpProxy, type TcpProxy } from '../support/tcp-proxy.ts'
import { until } from '../support/until.ts'

const healMs = 5000
const commandMs = 1000
const away = 'Redis is away: requests go on from memory'

/** Sends a write and a read every few milliseconds, whatever comes of them. */
function busy(t: TestContext, { link }: RigLink) {
  const figures = { open: 0, done: 0, failed: 0, slowestMs: 0, mostOpen: 0 }
  const settle = async (work: Promise<unknown>): Promise<void> => {
    const startMs = performance.now()
    figures.mostOpen = Math.max(figures.mostOpen, ++figures.open)
    await work.then(
      () => figures.done++,
      () => figures.failed++,
    )
    figures.open--
    figures.slowestMs = Math.max(figures.slowestMs, performance.now() - startMs)
  }
  const timer = setInterval(() => {
    void settle(link.commands.append(link.key('events'), 'v1', Buffer.from('a'), 1000))
    void settle(link.commands.get([link.key('a')]))
  }, 5)
  t.after(() => clearInterval(timer))
  return figures
}

interface Fault {
  readonly name: string
  /** Any of these. */
  readonly reasons: readonly RedisReason[]
  readonly inflict: (redis: RedisServer, proxy: TcpProxy) => unknown
  readonly heal: (redis: RedisServer, proxy: TcpProxy) => unknown
}

const configure =
  (...words: string[]) =>
  (redis: RedisServer) =>
    redis.client.call('CONFIG', 'SET', ...words)
/** Ends the connections of others than the test, so that they are to be made anew. */
const disconnect = (redis: RedisServer) => redis.client.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')

const faults: readonly Fault[] = [
  {
    name: 'frozen (SIGSTOP)',
    reasons: ['timeout'],
    inflict: (redis) => redis.pause(),
    heal: (redis) => redis.resume(),
  },
  {
    name: 'killed, and started again empty',
    reasons: ['unreachable'],
    inflict: (redis) => redis.kill(),
    heal: (redis) => redis.restart(),
  },
  {
    name: 'cut off by the network, silently',
    reasons: ['timeout'],
    inflict: (_redis, proxy) => proxy.freeze(),
    heal: (_redis, proxy) => proxy.thaw(),
  },
  {
    name: 'a replica (READONLY)',
    reasons: ['readonly'],
    inflict: async (redis) => redis.client.replicaof('127.0.0.1', await freePort()),
    heal: (redis) => redis.client.call('REPLICAOF', 'NO', 'ONE'),
  },
  {
    name: 'out of memory (OOM)',
    reasons: ['oom'],
    inflict: configure('maxmemory', '1'),
    heal: configure('maxmemory', '0'),
  },
  {
    name: 'without enough replicas (NOREPLICAS)',
    reasons: ['misconf'],
    inflict: configure('min-replicas-to-write', '1'),
    heal: configure('min-replicas-to-write', '0'),
  },
  {
    name: 'out of connections (maxclients)',
    reasons: ['max_clients', 'unreachable'],
    inflict: async (redis) => {
      await configure('maxclients', '1')(redis)
      await disconnect(redis)
    },
    heal: configure('maxclients', '100'),
  },
  {
    name: 'without rights for us (NOPERM)',
    reasons: ['permission'],
    inflict: (redis) => redis.client.call('ACL', 'SETUSER', 'router', '-set'),
    heal: (redis) => redis.client.call('ACL', 'SETUSER', 'router', '+set'),
  },
  {
    name: 'held up by a script (BUSY)',
    reasons: ['busy', 'timeout'],
    inflict: async (redis) => {
      await configure('busy-reply-threshold', '10')(redis)
      const script = redis.client.duplicate()
      script.on('error', () => undefined)
      script.call('EVAL', 'while true do end', '0').catch(() => script.disconnect())
    },
    heal: (redis) => redis.client.script('KILL'),
  },
]

for (const { name, reasons, inflict, heal } of faults) {
  test(`Redis ${name}: one line when it goes, one when it is back, and nothing waits`, async (t) => {
    const redis = await startRedis(t, { users: ['user router on >secret ~* &* +@all'] })
    const proxy = await tcpProxy(t, redis.port)
    const rig = linkFor(t, { url: `redis://router:secret@127.0.0.1:${proxy.port}`, commandMs })
    await rig.isUp()
    const figures = busy(t, rig)
    await until(() => figures.done > 20, 'commands succeed')
    await inflict(redis, proxy)
    await rig.isAway(4000)
    const { state } = rig.link
    assert.ok(state.kind === 'away' && reasons.includes(state.reason), JSON.stringify(state))
    // Stays away for a while: further tries are counted and say nothing.
    const errors = async (): Promise<number> =>
      Object.values(await rig.counted('redis_errors_total')).reduce((a, b) => a + b, 0)
    const atFirst = await errors()
    await until(async () => (await errors()) > atFirst + 100, 'more fails')
    assert.deepEqual(
      rig.lines.slice(1).map(({ message }) => message),
      [away],
    )
    const startMs = performance.now()
    await heal(redis, proxy)
    await rig.isUp(healMs)
    t.diagnostic(
      `healed after ${Math.round(performance.now() - startMs)} ms; slowest command ${Math.round(figures.slowestMs)} ms`,
    )
    const before = figures.done
    await until(() => figures.done > before + 20, 'commands succeed again')
    assert.deepEqual(
      rig.lines.slice(1).map(({ message }) => message),
      [away, 'Redis is back'],
    )
    assert.ok(figures.slowestMs < commandMs + 300, `a command took ${figures.slowestMs} ms`)
    assert.ok(figures.mostOpen < 1000, `${figures.mostOpen} commands at once`)
  })
}

test('Redis reading its data (LOADING): away until it is read', async (t) => {
  const redis = await startRedis(t, {
    settings: [
      ['key-load-delay', '40000'],
      ['loading-process-events-interval-bytes', '1024'],
    ],
  })
  const rig = linkFor(t, { url: redis.url })
  await rig.isUp()
  for (let i = 0; i < 80; i++) await redis.client.set(`k${i}`, String(Math.random()).repeat(200))
  await redis.client.call('SAVE')
  await redis.kill()
  const ready = redis.restart()
  await until(() => rig.link.state.kind === 'away' && rig.link.state.reason === 'loading', 'it is loading')
  await ready
  await rig.isUp(healMs)
  assert.deepEqual(
    rig.lines.slice(1).map(({ message }) => message),
    [away, 'Redis is back'],
  )
})

test('an answer that takes 200 ms longer changes nothing but its time', async (t) => {
  const redis = await startRedis(t)
  const proxy = await tcpProxy(t, redis.port)
  proxy.delay(200)
  const rig = linkFor(t, { url: `redis://127.0.0.1:${proxy.port}` })
  await rig.isUp()
  const figures = busy(t, rig)
  await until(() => figures.done > 200, 'commands succeed')
  assert.equal(figures.failed, 0)
  assert.equal(rig.lines.length, 1)
})

test('a flush of all data is another log, and no change of state', async (t) => {
  const redis = await startRedis(t)
  const rig = linkFor(t, { url: redis.url })
  await rig.isUp()
  const names = new Set([rig.link.logId])
  rig.link.onLogId((id) => names.add(id))
  for (let flush = 1; flush <= 3; flush++) {
    await redis.client.flushall()
    await until(() => names.size === flush + 1, 'the loss is seen')
  }
  assert.equal(rig.lines.length, 1)
})

test('connections that are cut again and again leave none behind, and are no change of state', async (t) => {
  const redis = await startRedis(t)
  const proxy = await tcpProxy(t, redis.port)
  const rig = linkFor(t, { url: `redis://127.0.0.1:${proxy.port}` })
  await rig.isUp()
  const { link } = rig
  for (let round = 0; round < 30; round++) {
    proxy.cut()
    const works = (): Promise<boolean> =>
      Promise.all([link.commands.get(['a']), link.commands.read([{ stream: 'a', id: '0-0' }], 1, 0)]).then(
        () => true,
        () => false,
      )
    await until(works, 'commands work again')
  }
  const clients = async (): Promise<number> =>
    String(await redis.client.client('LIST'))
      .trim()
      .split('\n').length
  await until(async () => (await clients()) === 3, 'two connections of the link are left, and the test’s own')
  assert.equal(rig.lines.length, 1)
})
