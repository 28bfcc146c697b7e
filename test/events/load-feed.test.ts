import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { decodeLoadStat, LoadFeed, type PublishedLoad } from '../../src/events/load-feed.ts'
import { systemClock } from '../../src/zmtp/clock.ts'
import { PubSocket } from '../../src/zmtp/pub-socket.ts'
import { seededRandom } from '../support/random.ts'
import { until } from '../support/until.ts'

const recorded = readFileSync(new URL('../fixtures/sglang/loadstat.jsonl', import.meta.url), 'utf8')
  .trim()
  .split('\n')
  .map((line) => Buffer.from((JSON.parse(line) as { payload_base64: string }).payload_base64, 'base64'))

test('a load as SGLang publishes it is read with all that it tells', () => {
  assert.deepEqual(decodeLoadStat(recorded[0] ?? Buffer.alloc(0)), {
    rank: 0,
    load: {
      running: 3,
      waiting: 1,
      kvUsage: 4096 / 65_536,
      waitingTokens: 512,
      prefilled: { tokens: 123_456, busyUs: 7_890_123 },
    },
  })
})

test('a cache of no size has no share in use, rather than none of it', () => {
  const { rank, load } = decodeLoadStat(recorded[1] ?? Buffer.alloc(0))
  assert.equal(rank, null)
  assert.equal(load.kvUsage, null)
})

test('an older load ends earlier', () => {
  const older = Buffer.from([0x96, 0xa8, ...Buffer.from('LoadStat'), 2, 1, 50, 100, 3])
  assert.deepEqual(decodeLoadStat(older), { rank: 3, load: { running: 2, waiting: 1, kvUsage: 0.5 } })
})

test('what is no load is refused, whatever bytes it has', () => {
  const random = seededRandom(11)
  const [good = Buffer.alloc(0)] = recorded
  for (const bytes of [Buffer.alloc(0), Buffer.from([0x90]), Buffer.from([0x95, 1, 2, 3, 4, 5]), good.subarray(0, 20)])
    assert.throws(() => decodeLoadStat(bytes), { code: 'EVENT_MALFORMED' })
  for (let i = 0; i < 2_000; i++) {
    const bytes = Buffer.from(good)
    for (let flips = 0; flips < 3; flips++) bytes[Math.floor(random() * bytes.length)] = Math.floor(random() * 256)
    try {
      const { load } = decodeLoadStat(bytes)
      assert(load.running >= 0 && load.waiting >= 0)
    } catch (fault) {
      assert.equal((fault as { code?: string }).code, 'EVENT_MALFORMED')
    }
  }
})

test('a feed is live while it is heard, and passes over what is not of its rank', async (t) => {
  const sockets = { clock: systemClock, random: seededRandom(1) }
  const publisher = new PubSocket(sockets)
  t.after(() => publisher.close())
  const port = await publisher.bind('tcp://127.0.0.1:0')
  const loads: PublishedLoad[] = []
  const refused: string[] = []
  let offsetMs = 0
  const feed = new LoadFeed({
    endpoint: `tcp://127.0.0.1:${port}`,
    topic: 'load',
    rank: 0,
    random: seededRandom(2),
    clock: { now: () => systemClock.now() + offsetMs, after: (delayMs, run) => systemClock.after(delayMs, run) },
    onLoad: (load) => loads.push(load),
    onRefused: (reason) => refused.push(reason),
  })
  t.after(() => feed.stop())
  await until(() => publisher.subscribers === 1, 'the subscription has arrived')
  assert.equal(feed.isLive(), false)
  const send = (payload: Buffer): number => publisher.send([Buffer.from('load'), Buffer.alloc(8), payload])
  send(Buffer.from([0x96, 0xa8, ...Buffer.from('LoadStat'), 2, 1, 50, 100, 3]))
  send(Buffer.from('no load'))
  await until(() => refused.length === 2, 'both are refused')
  assert.deepEqual(refused, ['other_rank', 'malformed'])
  assert.equal(feed.isLive(), false)
  send(recorded[0] ?? Buffer.alloc(0))
  await until(() => loads.length === 1, 'the load is heard')
  assert.equal(feed.isLive(), true)
  offsetMs = 3_001
  assert.equal(feed.isLive(), false, 'after three seconds of silence it says nothing any more')
  send(recorded[1] ?? Buffer.alloc(0))
  await until(() => loads.length === 2, 'it is heard again')
  assert.equal(feed.isLive(), true)
  publisher.dropConnections()
  await until(() => !feed.isLive(), 'a broken connection ends it at once')
})
