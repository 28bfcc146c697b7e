import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test, type TestContext } from 'node:test'
import { Leases } from '../../src/replication/leases.ts'
import { framesOf, LogReader, streamStart } from '../../src/replication/log-reader.ts'
import { LogWriter } from '../../src/replication/log-writer.ts'
import { usedCommands } from '../../src/replication/redis-commands.ts'
import type { RedisOptions } from '../../src/replication/redis-options.ts'
import { holderOf, moveSlot, startCluster, startSentinel } from '../support/redis-fleet.ts'
import { linkFor } from '../support/redis-link.ts'
import { startRedis, tlsFile, type RedisServer } from '../support/redis-server.ts'
import { until } from '../support/until.ts'

const clock = (): number => performance.now()

/** Everything that uses Redis here, at work: a log that is written and read back, a lease, values. */
async function atWork(t: TestContext, options: Partial<RedisOptions>) {
  const rig = linkFor(t, options)
  await rig.isUp(5000)
  const { link, metrics } = rig
  const stream = link.key('events')
  const limits = { maxEntries: 1000, maxAgeMs: 32, entryBlocks: 256, bufferBytes: 1_000_000 }
  const owned = { commands: link.commands, stream, name: 'events', clock, metrics }
  const writer = new LogWriter({ ...owned, ...limits, onBroken: () => undefined })
  const reader = new LogReader({ link, reads: link.reads(), commands: link.commands, clock, metrics })
  const leases = new Leases({
    commands: link.commands,
    key: (name) => link.key(`lease:${name}`),
    replica: 'a',
    replicas: () => ['a'],
    leaseMs: 1200,
    clock,
    onAcquired: () => undefined,
    onLost: () => undefined,
  })
  t.after(async () => {
    await leases.stop()
    await reader.stop()
  })
  const read: string[] = []
  const onEntry = (entry: Parameters<typeof framesOf>[0]): void => void read.push(framesOf(entry)?.toString() ?? '')
  reader.follow({ stream, name: 'events', from: streamStart, onEntry })
  reader.start()
  leases.want('w', true)
  leases.start()
  /** Appends until one arrives: just after a fault some are lost, as they may be. */
  const works = async (text: string): Promise<void> => {
    const arrives = async (): Promise<boolean> => {
      writer.resume()
      writer.append(Buffer.from(text), 1)
      await new Promise((resolve) => setTimeout(resolve, 20))
      return read.includes(text) && leases.holds('w')
    }
    await until(arrives, 'a frame goes round and the lease is held', 10_000)
    await link.commands.set(link.key('value'), text, 60_000)
    assert.equal(String((await link.commands.get([link.key('value')]))[0]), text)
  }
  await works('first')
  return { ...rig, works, read, reader, stream }
}

test('a database of its own number', async (t) => {
  const redis = await startRedis(t, { password: 'planted-password' })
  const { lines } = await atWork(t, { url: `${redis.url}/5` })
  assert.equal(await redis.client.dbsize(), 0)
  await redis.client.select(5)
  assert.ok((await redis.client.dbsize()) >= 4)
  assert.doesNotMatch(JSON.stringify(lines), /planted/)
})

test('two prefixes on one server know nothing of each other', async (t) => {
  const redis = await startRedis(t)
  const a = await atWork(t, { url: redis.url, prefix: 'team-a' })
  const b = await atWork(t, { url: redis.url, prefix: 'team-b' })
  await a.works('for a')
  assert.notEqual(a.link.logId, b.link.logId)
  assert.ok(!b.read.includes('for a'))
  const keys = await redis.client.keys('*')
  assert.ok(keys.every((key) => key.startsWith('{team-a}:') || key.startsWith('{team-b}:')))
})

test('a user with the rights that docs/replicas.md gives, and no others', async (t) => {
  const [line] =
    /^user warmroute .*$/m.exec(readFileSync(new URL('../../docs/replicas.md', import.meta.url), 'utf8')) ?? []
  assert.ok(line !== undefined)
  const redis = await startRedis(t, { users: [line.replace('>PASSWORD', '>secret')] })
  const { isUp, works } = await atWork(t, { url: `redis://warmroute:secret@127.0.0.1:${redis.port}/1` })
  await isUp()
  await works('again')
  assert.deepEqual(await redis.client.call('ACL', 'LOG'), [], 'nothing was refused')
})

test('a wrong password, and a user without rights, are told as such', async (t) => {
  const redis = await startRedis(t, { users: ['user poor on >secret ~* -@all +get'] })
  const wrong = linkFor(t, { url: `redis://poor:planted@127.0.0.1:${redis.port}` })
  const poor = linkFor(t, { url: `redis://poor:secret@127.0.0.1:${redis.port}` })
  await Promise.all([wrong.isAway(), poor.isAway()])
  const reasonOf = ({ link }: typeof wrong): string => (link.state.kind === 'away' ? link.state.reason : '')
  assert.deepEqual([reasonOf(wrong), reasonOf(poor)], ['auth', 'permission'])
  assert.doesNotMatch(JSON.stringify([wrong.lines, poor.lines]), /planted|secret/)
})

test('TLS, with a certificate on both sides', async (t) => {
  const redis = await startRedis(t, { tls: { clients: true }, password: 'pw' })
  const tls = { ca: tlsFile('ca.pem'), cert: tlsFile('client.pem'), key: tlsFile('client.key') }
  await atWork(t, { url: redis.url, tls })
  const stranger = { ...tls, cert: tlsFile('stranger.pem'), key: tlsFile('stranger.key') }
  const refused = [
    linkFor(t, { url: redis.url, tls: { ...tls, ca: tlsFile('other-ca.pem') } }),
    linkFor(t, { url: redis.url, tls: stranger }),
    linkFor(t, { url: redis.url.replace('rediss', 'redis') }),
  ]
  await Promise.all(refused.map(({ isAway }) => isAway()))
  const [untrusted] = refused
  assert.equal(untrusted?.link.state.kind === 'away' && untrusted.link.state.reason, 'tls')
  const insecure = linkFor(t, { url: redis.url, tls: { ...tls, ca: tlsFile('other-ca.pem'), insecure: true } })
  await insecure.isUp()
})

test('Sentinel: the master is asked for, and its successor after a failover', async (t) => {
  const { master, replica, sentinel, passwords } = await startSentinel(t)
  const nodes = [`127.0.0.1:1`, `127.0.0.1:${sentinel.port}`]
  const named = (name: string) => ({
    sentinel: { name, nodes, password: passwords.sentinel },
    password: passwords.redis,
  })
  const { works, lines, isUp, link } = await atWork(t, named('main'))
  const stranger = linkFor(t, named('other'))
  await until(() => stranger.link.state.kind === 'away' && stranger.link.state.reason === 'no_master', 'it is told')
  await master.kill()
  const role = async (): Promise<boolean> => (await replica.client.info('replication')).includes('role:master')
  await until(role, 'the replica is master', 15_000)
  const healedMs = clock()
  await isUp()
  await works('after the failover')
  assert.ok(clock() - healedMs < 5000)
  assert.equal(await replica.client.get('{warmroute}:log-id'), link.logId)
  assert.deepEqual(
    lines.map(({ message }) => message),
    ['Redis is up', 'Redis is away: requests go on from memory', 'Redis is back'],
  )
})

test('Cluster: all keys lie on one node, which is found, and found again when they move', async (t) => {
  const nodes = await startCluster(t)
  const [holder, others] = await holderOf(nodes, '{warmroute}:log-id')
  const { works, lines, link } = await atWork(t, {
    cluster: { nodes: [`127.0.0.1:1`, ...others.map(({ port }) => `127.0.0.1:${port}`)] },
  })
  const { logId } = link
  const sizes = async (): Promise<number[]> => Promise.all([holder, ...others].map(({ client }) => client.dbsize()))
  const [all, ...none] = await sizes()
  assert.ok((all ?? 0) >= 4)
  assert.deepEqual(none, [0, 0])
  const [heir] = others as [RedisServer, ...RedisServer[]]
  await moveSlot(holder, heir, '{warmroute}:log-id')
  await works('after the move')
  assert.equal(await heir.client.get('{warmroute}:log-id'), logId)
  assert.ok(lines.length === 1 || lines.length === 3)
})

test('nothing but the listed commands is ever sent', async (t) => {
  const redis = await startRedis(t)
  const monitor = await redis.client.monitor()
  t.after(() => monitor.disconnect())
  const sent = new Set<string>()
  monitor.on('monitor', (_time: string, [name]: string[]) => sent.add((name ?? '').toUpperCase()))
  const { works, link, stream } = await atWork(t, { url: `${redis.url}/2` })
  await works('again')
  await link.commands.lastId(stream)
  await link.commands.range(stream, '-', '+', 10)
  const lease = link.key('lease:other')
  await link.commands.setIfAbsent([lease], 'a', 1000)
  await link.commands.expire([lease], 1000)
  await link.commands.delete([lease])
  for (let i = 0; !sent.has('XTRIM') && i < 50; i++) await works(`more ${i}`)
  await until(() => sent.has('DEL'), 'all is seen')
  const known = new Set<string>([...usedCommands, 'SELECT', 'CLIENT'])
  assert.deepEqual(
    [...sent].filter((name) => !known.has(name)),
    [],
  )
  assert.deepEqual(
    usedCommands.filter((name) => !sent.has(name)),
    [],
    'and each of them is',
  )
})
