import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { IntakeStreams, type IntakeLink } from '../../src/replication/intake-streams.ts'
import { RedisLink } from '../../src/replication/link.ts'
import { silentLog } from '../../src/telemetry/log.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import { streamReaderContract } from '../contract/stream-reader.ts'
import { collectingLog, type LogLine } from '../support/fleet.ts'
import { startRedis, type RedisServerOptions } from '../support/redis-server.ts'
import { until } from '../support/until.ts'

const limits = { connectMs: 500, commandMs: 300, commandsUnderWay: 256, heartbeatMs: 30, awayMs: 200 }

async function setUp(t: TestContext, options: RedisServerOptions = {}) {
  const server = await startRedis(t, options)
  const lines: LogLine[] = []
  const clock = (): number => performance.now()
  const metrics = createMetrics()
  const context = { clock, random: Math.random, log: collectingLog(lines), metrics }
  const link = new RedisLink({ url: server.url, prefix: 'test', required: false, ...limits }, context)
  const reader = new IntakeStreams({ link, clock, log: collectingLog(lines), lookMs: 50 })
  t.after(async () => {
    reader.stop()
    await link.stop()
    metrics.stop()
  })
  await link.start()
  return { server, reader, lines }
}

streamReaderContract('streams in Redis', async (t) => {
  const { server, reader } = await setUp(t)
  let nextId = 0
  return {
    reader,
    append: async (stream, name) => {
      // Redis’ own ids until it is wiped, then ids of a clock that went back.
      await server.client.xadd(stream, nextId === 0 ? '*' : `${nextId++}-0`, 'name', name)
    },
    wipe: async () => {
      nextId = 1
      await server.client.flushall()
    },
    cut: () => server.pause(),
    heal: () => server.resume(),
  }
})

const silent = { connected: () => undefined, disconnected: () => undefined, caughtUp: () => undefined }

test('entries older than the newest by more than is kept are removed, by their ids alone', async (t) => {
  const { server, reader } = await setUp(t, { settings: [['stream-node-max-entries', '1']] })
  for (const id of ['1000-0', '1500-0', '2000-0', '2500-0']) await server.client.xadd('a', id, 'name', id)
  reader.follow('a', { retainMs: 600 }, { ...silent, entries: () => undefined })
  const kept = async (): Promise<string> => (await server.client.xrange('a', '-', '+')).map(([id]) => id).join(' ')
  await until(async () => (await kept()) === '2000-0 2500-0', 'the old ones are gone')
  await server.client.xadd('a', '9000-0', 'name', 'x')
  await until(async () => (await kept()) === '9000-0', 'the old ones are gone')
})

test('a stream whose ids begin again is not taken for an old one and trimmed away', async (t) => {
  const { server, reader } = await setUp(t)
  const told: string[] = []
  const entries = (given: readonly { readonly id: string }[]) => told.push(...given.map(({ id }) => id))
  reader.follow('a', { retainMs: 1000 }, { ...silent, entries })
  await server.client.xadd('a', '900000-0', 'name', 'x')
  await until(() => told.length === 1, 'it is read')
  await server.client.flushall()
  for (const id of ['5000-0', '5001-0']) await server.client.xadd('a', id, 'name', 'x')
  await until(() => told.length === 3, 'the new ones are read')
  assert.deepEqual([told.slice(1), await server.client.xlen('a')], [['5000-0', '5001-0'], 2])
})

test('an answer about the newest entry that comes after further ones were read is no sign of a stream begun anew', async (t) => {
  const questions: { readonly toldWhenAsked: number; readonly answer: (lastId: string) => void }[] = []
  const answers = [['1-0'], ['2-0', '3-0']]
  const link: IntakeLink = {
    state: { kind: 'up' },
    commands: {
      lastId: () => new Promise((answer) => questions.push({ toldWhenAsked: told.length, answer })),
      trimBefore: () => Promise.resolve(),
    },
    onUp: () => () => undefined,
    onAway: () => () => undefined,
    onLogId: () => () => undefined,
    reads: () => ({
      read: async ([after]) => {
        await new Promise((resolve) => setImmediate(resolve))
        // From its beginning on it would be told all over again.
        if (after?.id === '0-0' && told.length > 0) return [{ stream: 'a', entries: [{ id: '1-0', fields: [] }] }]
        const entries = (answers.shift() ?? []).map((id) => ({ id, fields: [] }))
        return entries.length === 0 ? [] : [{ stream: 'a', entries }]
      },
      close: () => undefined,
    }),
  }
  const told: string[] = []
  const reader = new IntakeStreams({ link, clock: () => performance.now(), log: silentLog, lookMs: 1 })
  t.after(() => reader.stop())
  reader.follow('a', { retainMs: null }, { ...silent, entries: (given) => told.push(...given.map(({ id }) => id)) })
  await until(() => told.length === 3, 'all is read')
  const early = questions.filter(({ toldWhenAsked }) => toldWhenAsked < 2)
  assert.ok(early.length > 0, 'the stream was asked about before all was read')
  for (const { answer } of early) answer('1-0')
  const asked = questions.length
  await until(() => questions.length > asked + 1, 'reading goes on')
  assert.deepEqual(told, ['1-0', '2-0', '3-0'])
})

test('entries of a stream that its writer trims stay', async (t) => {
  const { server, reader } = await setUp(t, { settings: [['stream-node-max-entries', '1']] })
  for (const id of ['1000-0', '9000-0']) await server.client.xadd('a', id, 'name', id)
  let told = 0
  reader.follow('a', { retainMs: null }, { ...silent, entries: (entries) => (told += entries.length) })
  reader.follow('b', { retainMs: 1 }, { ...silent, entries: () => undefined })
  for (const id of ['1000-0', '9000-0']) await server.client.xadd('b', id, 'name', id)
  await until(async () => (await server.client.xlen('b')) === 1, 'another stream is trimmed')
  assert.deepEqual([told, await server.client.xlen('a')], [2, 2])
})

test('a key that is no stream spoils none of the others, and is told of once', async (t) => {
  const { server, reader, lines } = await setUp(t)
  await server.client.set('wrong', 'x')
  const told: Record<string, string[]> = { good: [], wrong: [] }
  for (const stream of ['good', 'wrong']) {
    const entries = (given: readonly { readonly id: string }[]) => told[stream]?.push(...given.map(({ id }) => id))
    reader.follow(stream, { retainMs: null }, { ...silent, entries })
  }
  for (const id of ['1-0', '2-0', '3-0']) {
    await server.client.xadd('good', id, 'name', id)
    await until(() => told['good']?.at(-1) === id, 'the good one is read')
  }
  await server.client.del('wrong')
  await server.client.xadd('wrong', '7-0', 'name', 'x')
  await until(() => told['wrong']?.at(-1) === '7-0', 'the other one is read once it is a stream')
  const warnings = lines.filter(({ level }) => level === 'warn')
  assert.deepEqual(
    warnings.map(({ message, fields }) => [message, fields['stream'], fields['reason']]),
    [['KV events: a stream cannot be read', 'wrong', 'error']],
  )
})

test('a stream that becomes another kind of key after it was read to its end does not hold up the others', async (t) => {
  const { server, reader } = await setUp(t)
  const caughtUp = new Set<string>()
  let told = ''
  for (const stream of ['good', 'spoilt']) {
    const entries = (given: readonly { readonly id: string }[]) => (told = given.at(-1)?.id ?? '')
    reader.follow(stream, { retainMs: null }, { ...silent, entries, caughtUp: () => caughtUp.add(stream) })
  }
  await until(() => caughtUp.size === 2, 'both are read to their ends')
  await server.client.set('spoilt', 'x')
  for (const id of ['1-0', '2-0', '3-0']) {
    await server.client.xadd('good', id, 'name', id)
    await until(() => told === id, 'the good one is read')
  }
})

test('a user who may not trim reads all the same, and is told of once', async (t) => {
  const user = 'user router on >secret ~{test}:* ~a +set +get +xread +xrevrange'
  const server = await startRedis(t, { users: [user] })
  const lines: LogLine[] = []
  const clock = (): number => performance.now()
  const metrics = createMetrics()
  const link = new RedisLink(
    { url: `redis://router:secret@127.0.0.1:${server.port}`, prefix: 'test', required: true, ...limits },
    { clock, random: Math.random, log: collectingLog(lines), metrics },
  )
  const reader = new IntakeStreams({ link, clock, log: collectingLog(lines), lookMs: 20 })
  t.after(async () => {
    reader.stop()
    await link.stop()
    metrics.stop()
  })
  await link.start()
  let last = ''
  reader.follow('a', { retainMs: 1 }, { ...silent, entries: (entries) => (last = entries.at(-1)?.id ?? '') })
  for (const id of ['1000-0', '2000-0', '3000-0']) {
    await server.client.xadd('a', id, 'name', id)
    await until(() => last === id, 'it is read')
  }
  const refusals = (): LogLine[] => lines.filter(({ message }) => message === 'KV events: a stream cannot be trimmed')
  await until(() => refusals().length > 0, 'it is told')
  await server.client.xadd('a', '4000-0', 'name', 'x')
  await until(() => last === '4000-0', 'it is read')
  assert.deepEqual([refusals().length, refusals()[0]?.fields['reason']], [1, 'permission'])
})
