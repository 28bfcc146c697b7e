import assert from 'node:assert/strict'
import { before, test, type TestContext } from 'node:test'
import { Ingest, type IngestOptions } from '../../src/events/ingest.ts'
import { createZmqSource, type ZmqSourceOptions } from '../../src/events/sources/zmq.ts'
import { PublisherListener } from '../../src/events/subscription.ts'
import { ReplayGate } from '../../src/events/replay.ts'
import type { NamedBatch, WorkerSlot } from '../../src/kv/batch.ts'
import { blockKeys, createKeyMaker, type KeyMaker } from '../../src/kv/keys.ts'
import { silentLog } from '../../src/telemetry/log.ts'
import { systemClock } from '../../src/zmtp/clock.ts'
import { NaiveMap } from '../support/naive-map.ts'
import { until } from '../support/until.ts'
import { countingCounters } from './counting.ts'
import { FakeEngine } from './fake-engine.ts'

let keys: KeyMaker
before(async () => {
  keys = await createKeyMaker(Buffer.from('a secret'))
})

const zmtpLimits = { reconnectFirstMs: 2, reconnectMaxMs: 20 }
const limits = { idleMs: 150, restMs: 100, distrustAfterMs: 10_000 }

async function startEngine(t: TestContext, ...args: ConstructorParameters<typeof FakeEngine>): Promise<FakeEngine> {
  const engine = await new FakeEngine(...args).listen()
  t.after(() => engine.close())
  return engine
}

function subscribe(
  t: TestContext,
  engine: { port: number; replayPort: number } | null,
  replay: boolean,
  own: Partial<ZmqSourceOptions> = {},
  ownIngest: Partial<IngestOptions> = {},
) {
  const map = new NaiveMap()
  const counted = countingCounters()
  const sunk: (NamedBatch | string)[] = []
  const sizes: number[] = []
  let restarts = 0
  const worker = 0 as WorkerSlot
  map.addWorker(worker, { countsStores: true, blockSize: 4 })
  const ingest = new Ingest({
    worker,
    map,
    keys,
    model: 'm',
    blockSize: 4,
    countsStores: true,
    counters: counted.counters,
    sink: { batch: (batch) => sunk.push(batch), cleared: (reason) => sunk.push(reason) },
    onBlockSize: (size) => sizes.push(size),
    ...ownIngest,
  })
  const options: ZmqSourceOptions = {
    endpoint: engine === null ? null : `tcp://127.0.0.1:${engine.port}`,
    replayEndpoint: replay && engine !== null ? `tcp://127.0.0.1:${engine.replayPort}` : null,
    topic: 'kv@',
    clock: systemClock,
    random: Math.random,
    log: silentLog,
    name: 'w',
    counters: counted.counters,
    onRestart: () => restarts++,
    limits,
    zmtpLimits,
    ...own,
  }
  const source = createZmqSource(options, ingest)
  t.after(() => source.stop())
  source.start()
  /** Whether the worker holds the one block of these tokens. */
  const holds = (tokens: readonly number[]) => {
    const scope = keys.scope({ model: 'm', blockSize: tokens.length, adapter: null })
    const out = {
      gpu: new Uint32Array(1),
      host: new Uint32Array(1),
      disk: new Uint32Array(1),
      shared: new Uint32Array(1),
    }
    map.match([{ blockSize: tokens.length, keys: blockKeys(Uint32Array.from(tokens), scope) }], out)
    return out.gpu[0] === 1
  }
  const blocks = () => map.workerBlocks(worker).gpu
  return { source, map, counted, sunk, sizes, restarts: () => restarts, holds, blocks }
}

const block = (name: number) => [name, 2, 3, 4]
const removal = (name: number) => ({ type: 'BlockRemoved', block_hashes: [name], medium: 'GPU' })

for (const layout of [3, 4] as const) {
  test(`what an engine stored before we came is loaded by replay, in frames of ${layout}`, async (t) => {
    const engine = await startEngine(t)
    engine.layout = layout
    for (let i = 1; i <= 50; i++) engine.store(block(i))
    engine.publish([removal(7)])
    const { source, blocks, holds } = subscribe(t, engine, true)
    await until(() => source.status().state === 'live', 'it is live')
    assert.equal(blocks(), 49)
    assert.deepEqual([holds(block(6)), holds(block(7))], [true, false])
    engine.store(block(100))
    await until(() => holds(block(100)), 'the live batch is applied')
    assert.deepEqual(source.status(), {
      state: 'live',
      lastSequence: 51,
      gaps: 0,
      restarts: 0,
      partial: false,
      epoch: 2,
    })
    assert.deepEqual(engine.requests, [0])
  })
}

test('one lost batch is asked for within 100 ms and nothing is cleared', async (t) => {
  const engine = await startEngine(t)
  const { source, blocks, counted } = subscribe(t, engine, true)
  await until(() => source.status().state === 'live', 'it is live')
  engine.store(block(1))
  engine.store(block(2), true)
  const lostAt = performance.now()
  engine.store(block(3))
  await until(() => blocks() === 3, 'the gap is repaired')
  assert.ok(performance.now() - lostAt < 100)
  assert.deepEqual([counted.totals.gaps, source.status().gaps, source.status().epoch], [1, 1, 2])
})

test('a gap that the engine no longer keeps clears, and later events count', async (t) => {
  const engine = await startEngine(t)
  const { source, holds, blocks } = subscribe(t, engine, true)
  await until(() => source.status().state === 'live', 'it is live')
  engine.store(block(1))
  await until(() => blocks() === 1, 'the first block is there')
  engine.keeps = 1
  engine.store(block(2), true)
  engine.store(block(3), true)
  engine.store(block(4))
  await until(() => holds(block(4)), 'the last block is there')
  assert.deepEqual([blocks(), holds(block(1)), source.status().partial], [1, false, true])
})

for (const replay of [true, false]) {
  test(`an engine that restarts on the same address loses its old blocks within a second, replay ${replay ? 'on' : 'off'}`, async (t) => {
    const first = await startEngine(t)
    const { source, holds, blocks, sunk, restarts, counted } = subscribe(t, first, replay)
    await until(() => source.status().state === 'live' && first.pub.subscribers === 1, 'it is live')
    first.store(block(1))
    first.store(block(2))
    await until(() => blocks() === 2, 'both are there')
    await first.close()
    await until(() => source.status().state === 'unknown', 'the loss is told')
    const second = new FakeEngine('kv@a', 9000)
    t.after(() => second.close())
    // The new process is already past the last number that we know.
    for (let i = 10; i < 15; i++) second.store(block(i))
    await second.listen(first.port, first.replayPort)
    const startedAt = performance.now()
    await until(() => !holds(block(1)), 'the old blocks are gone')
    assert.ok(performance.now() - startedAt < 1000)
    await until(() => second.pub.subscribers === 1 && source.status().state === 'live', 'it is live again')
    second.store(block(20))
    await until(() => holds(block(20)), 'new events count')
    assert.equal(blocks(), replay ? 6 : 1)
    assert.equal(restarts(), replay ? 1 : 0)
    assert.equal(counted.totals.disconnects, 1)
    const twin = new NaiveMap()
    twin.addWorker(0 as WorkerSlot, { countsStores: true, blockSize: 4 })
    const other = new Ingest({
      ...{ worker: 0 as WorkerSlot, map: twin, keys, model: 'm', blockSize: 4, countsStores: true },
      ...{ counters: countingCounters().counters, onBlockSize: () => undefined },
    })
    for (const told of sunk) {
      if (typeof told === 'string') other.forget(told)
      else other.follow(told)
    }
    assert.equal(twin.workerBlocks(0 as WorkerSlot).gpu, blocks(), 'the sink tells the clear, too')
  })
}

test('a lost subscription to the same process keeps its blocks', async (t) => {
  const engine = await startEngine(t)
  const { source, blocks } = subscribe(t, engine, true)
  await until(() => source.status().state === 'live', 'it is live')
  engine.store(block(1))
  await until(() => blocks() === 1, 'it is there')
  const epoch = source.status().epoch
  engine.pub.dropConnections()
  engine.store(block(2))
  await until(() => blocks() === 2, 'what was missed is there')
  assert.equal(source.status().epoch, epoch)
  assert.deepEqual(engine.requests, [0, 0])
})

test('a replay that breaks off goes on from where it was', async (t) => {
  const engine = await startEngine(t)
  for (let i = 1; i <= 20; i++) engine.store(block(i))
  engine.answers = 'first half once'
  const { blocks, source } = subscribe(t, engine, true)
  await until(() => source.status().state === 'live', 'it is live')
  assert.equal(blocks(), 20)
  assert.deepEqual(engine.requests, [0, 9])
})

test('a replay endpoint that does not answer: live events count meanwhile, and the load is tried again after a rest', async (t) => {
  const engine = await startEngine(t)
  engine.store(block(1))
  const dead = await startEngine(t)
  await dead.router.close()
  const { source, blocks, holds } = subscribe(t, { port: engine.port, replayPort: dead.replayPort }, true, {
    limits: { ...limits, idleMs: 20 },
  })
  await until(() => source.status().state === 'live' && engine.pub.subscribers === 1, 'the replay was given up')
  assert.equal(source.status().partial, true)
  engine.store(block(2))
  await until(() => holds(block(2)), 'live events count')
  dead.keeps = 10
  const late = new FakeEngine()
  t.after(() => late.close())
  late.store(block(1))
  late.store(block(2))
  await late.listen(0, dead.replayPort)
  await until(() => blocks() === 2, 'the state is whole')
  assert.equal(source.status().partial, false)
})

test('at most so many engines replay at once', async (t) => {
  const engines = await Promise.all([1, 2, 3].map(() => startEngine(t)))
  const gate = new ReplayGate(1)
  const blocking = gate.enter(() => undefined)
  const sources = engines.map((engine) => subscribe(t, engine, true, { replayGate: gate }))
  await until(() => sources.every(({ source }) => source.status().state === 'replaying'), 'all wait')
  await assert.rejects(until(() => engines.some((engine) => engine.requests.length > 0), 'one is asked', 50))
  blocking()
  await until(() => sources.every(({ source }) => source.status().state === 'live'), 'all are live')
})

test('the block size is learned from the events', async (t) => {
  const engine = await startEngine(t)
  const { sizes, holds } = subscribe(t, engine, true, {}, { blockSize: null })
  const tokens = [1, 2, 3, 4, 5, 6, 7, 8]
  engine.store(tokens)
  await until(() => holds(tokens), 'the block is there')
  assert.deepEqual(sizes, [8])
})

test('a worker that cannot be reached is forgotten, and loaded anew while its events still come', async (t) => {
  const engine = await startEngine(t)
  engine.store(block(1))
  const { source, blocks } = subscribe(t, engine, true)
  await until(() => blocks() === 1, 'it is loaded')
  source.workerDown()
  assert.equal(blocks(), 0)
  await until(() => blocks() === 1, 'it is loaded again')
})

test('a subscription that stays lost is no longer believed', async (t) => {
  const engine = await startEngine(t)
  const { source, blocks } = subscribe(t, engine, false, { limits: { ...limits, distrustAfterMs: 30 } })
  await until(() => engine.pub.subscribers === 1, 'it is subscribed')
  engine.store(block(1))
  await until(() => blocks() === 1, 'it is there')
  await engine.close()
  await until(() => blocks() === 0, 'it is forgotten')
  assert.equal(source.status().state, 'unknown')
})

test('malformed messages are counted and nothing else happens', async (t) => {
  const engine = await startEngine(t)
  const { source, counted, blocks } = subscribe(t, engine, true)
  await until(() => source.status().state === 'live', 'it is live')
  engine.raw(Buffer.from('garbage'))
  engine.pub.send([Buffer.from('kv@a'), Buffer.from('short'), Buffer.from('x')])
  engine.pub.send([Buffer.from('kv@alone')])
  engine.pub.send([Buffer.from('kv@other'), Buffer.alloc(8), Buffer.from('x')])
  engine.store(block(1))
  await until(() => blocks() === 1, 'the good batch is applied')
  assert.deepEqual(counted.skipped(), { batch_malformed: 1, frames_malformed: 2, other_topic: 1 })
})

test('stop ends everything and says absent', async (t) => {
  const engine = await startEngine(t)
  const { source } = subscribe(t, engine, true)
  await until(() => source.status().state === 'live', 'it is live')
  await source.stop()
  assert.equal(source.status().state, 'absent')
  await until(() => engine.pub.subscribers === 0, 'the subscription is gone')
})

test('engines that dial in are assigned by topic, else by address, else refused and counted', async (t) => {
  const refused: string[] = []
  const listener = new PublisherListener({
    clock: systemClock,
    random: Math.random,
    refused: (reason) => refused.push(reason),
  })
  t.after(() => listener.close())
  const port = await listener.bind('tcp://127.0.0.1:0')
  const seat = (topic: string, address: string | null) =>
    subscribe(t, null, false, { endpoint: null, listener: { at: listener, address }, topic })
  const a = seat('kv@a', null)
  const b = seat('kv@b', null)
  const engines = ['kv@a', 'kv@b', 'kv@c'].map((topic) => new FakeEngine(topic))
  for (const [index, engine] of engines.entries()) {
    t.after(() => engine.close())
    engine.pub.connect(`tcp://127.0.0.1:${port}`)
    await until(() => engine.pub.subscribers === 1, 'it is subscribed')
    engine.store(block(index + 1))
  }
  await until(() => a.blocks() === 1 && b.blocks() === 1 && refused.length === 1, 'two are assigned, one is refused')
  assert.ok(a.holds(block(1)) && b.holds(block(2)))
  assert.deepEqual(refused, ['publisher_unknown'])
  const c = seat('', '127.0.0.1')
  engines[2]!.store(block(4))
  await until(() => c.holds(block(4)), 'the third is known by its address')
  await engines[0]!.close()
  await until(() => a.source.status().state === 'unknown', 'the loss is told')
  assert.equal(b.source.status().state, 'live')
})

test('an engine that dials in again takes the place of its half-open former connection', async (t) => {
  const listener = new PublisherListener({ clock: systemClock, random: Math.random, refused: () => assert.fail() })
  t.after(() => listener.close())
  const port = await listener.bind('tcp://127.0.0.1:0')
  const { holds, counted } = subscribe(t, null, false, {
    endpoint: null,
    listener: { at: listener, address: null },
    topic: 'kv@a',
  })
  const [older, newer] = [new FakeEngine('kv@a', 1), new FakeEngine('kv@a', 2)]
  for (const [engine, name] of [
    [older, 1],
    [newer, 2],
  ] as const) {
    t.after(() => engine.close())
    engine.pub.connect(`tcp://127.0.0.1:${port}`)
    await until(() => engine.pub.subscribers === 1, 'it is subscribed')
    engine.store(block(name))
    await until(() => holds(block(name)), 'its block is there')
  }
  assert.equal(holds(block(1)), false)
  older.store(block(3))
  await until(() => counted.skipped()['publisher_superseded'] === 1, 'the older one is not heard')
  assert.equal(holds(block(3)), false)
  assert.ok(holds(block(2)))
})
