import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LogWriter } from '../../src/replication/log-writer.ts'
import type { RedisCommands } from '../../src/replication/redis-commands.ts'
import { RedisFault } from '../../src/replication/redis-fault.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import { until } from '../support/until.ts'

/** A stream whose appends the test lets succeed or fail, one by one. */
function writerWith({ bufferBytes = 1_000_000, entryBlocks = 256, maxAgeMs = 60_000, nowMs = { now: 0 } } = {}) {
  const appended: string[] = []
  const trims: string[] = []
  const open: { resolve: (id: string) => void; reject: (error: Error) => void }[] = []
  const commands: Pick<RedisCommands, 'append' | 'trimBefore'> = {
    append: (_stream, _field, value) => {
      appended.push(value.toString())
      return new Promise((resolve, reject) => open.push({ resolve, reject }))
    },
    trimBefore: (_stream, id) => {
      trims.push(id)
      return Promise.resolve()
    },
  }
  const broken: string[] = []
  const metrics = createMetrics()
  const writer = new LogWriter({
    commands,
    stream: 's',
    name: 'events',
    maxEntries: 100,
    maxAgeMs,
    entryBlocks,
    bufferBytes,
    clock: () => nowMs.now,
    metrics,
    onBroken: (reason) => broken.push(reason),
  })
  const dropped = async (): Promise<Record<string, number>> => {
    const metric = await metrics.registry.getSingleMetric('warmroute_stream_frames_dropped_total')?.get()
    return Object.fromEntries((metric?.values ?? []).map(({ labels, value }) => [String(labels['reason']), value]))
  }
  return { writer, appended, trims, open, broken, dropped }
}

const frame = (text: string): Buffer => Buffer.from(text)
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)))

test('the first frame is sent with its turn of the event loop, later ones gather while it is under way', async () => {
  const { writer, appended, open } = writerWith()
  writer.append(frame('a'), 1)
  writer.append(frame('b'), 1)
  assert.deepEqual(appended, [])
  await turn()
  assert.deepEqual(appended, ['ab'])
  writer.append(frame('c'), 1)
  writer.append(frame('d'), 1)
  await until(() => appended.length === 2, 'the gathered are sent')
  assert.deepEqual(appended, ['ab', 'cd'])
  assert.equal(writer.bufferedBytes, 4)
  for (const { resolve } of open) resolve('1-0')
  await turn()
  assert.equal(writer.bufferedBytes, 0)
})

test('an entry with enough blocks is sent at once', () => {
  const { writer, appended } = writerWith({ entryBlocks: 10 })
  writer.append(frame('a'), 6)
  assert.deepEqual(appended, [])
  writer.append(frame('b'), 6)
  assert.deepEqual(appended, ['ab'])
})

test('few entries are under way at a time, and what waits keeps its order', async () => {
  const { writer, appended, open } = writerWith({ entryBlocks: 1 })
  const frames = Array.from({ length: 30 }, (_, i) => String.fromCharCode(97 + i))
  for (const text of frames) writer.append(frame(text), 1)
  assert.equal(appended.length, 8)
  for (let at = 0; at < open.length; at++) {
    open[at]?.resolve(`${at}-0`)
    await turn()
  }
  assert.equal(appended.join(''), frames.join(''))
})

test('a full buffer drops all that waits, counts it, and tells it once', async () => {
  const { writer, broken, dropped, open, appended } = writerWith({ bufferBytes: 10, entryBlocks: 1 })
  for (let i = 0; i < 5; i++) assert.equal(writer.append(frame('ab'), 1), true)
  assert.equal(writer.append(frame('ab'), 1), false)
  assert.equal(writer.append(frame('ab'), 1), false)
  assert.deepEqual(broken, ['full'])
  assert.equal(writer.bufferedBytes, 0)
  assert.deepEqual(await dropped(), { full: 1, broken: 1 })
  for (const { resolve } of open) resolve('1-0')
  await turn()
  assert.equal(writer.bufferedBytes, 0)
  writer.resume()
  assert.equal(writer.append(frame('new'), 1), true)
  assert.equal(appended.at(-1), 'new')
})

test('an append that fails breaks the log: what came after it is not sent', async () => {
  const { writer, broken, dropped, open, appended } = writerWith({ entryBlocks: 1 })
  for (let i = 0; i < 20; i++) writer.append(frame(`${i} `), 1)
  open[0]?.reject(new RedisFault('oom', 'OOM'))
  open[1]?.reject(new RedisFault('oom', 'OOM'))
  await turn()
  assert.deepEqual(broken, ['oom'])
  assert.equal(writer.isBroken, true)
  assert.deepEqual(await dropped(), { oom: 14 })
  assert.equal(appended.length, 8)
})

test('a log is trimmed by the age that our own clock knows, whatever its ids say', async () => {
  const nowMs = { now: 0 }
  const { writer, trims, open } = writerWith({ entryBlocks: 1, maxAgeMs: 32_000, nowMs })
  for (let second = 0; second <= 40; second++) {
    nowMs.now = second * 1000
    writer.append(frame('a'), 1)
    // In the middle Redis' clock jumps an hour ahead.
    open[second]?.resolve(`${second + (second > 20 ? 3_600_000 : 0)}-0`)
    await turn()
  }
  assert.deepEqual(trims, ['0-0', '1-0', '2-0', '3-0', '4-0', '5-0', '6-0', '7-0', '8-0'])
})

test('what stops sends nothing more', async () => {
  const { writer, appended } = writerWith()
  writer.append(frame('a'), 1)
  writer.stop()
  await turn()
  assert.deepEqual(appended, [])
})
