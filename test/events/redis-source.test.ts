import assert from 'node:assert/strict'
import { before, test, type TestContext } from 'node:test'
import { Ingest } from '../../src/events/ingest.ts'
import type { StartingPoint } from '../../src/events/source.ts'
import { createRedisSource } from '../../src/events/sources/redis.ts'
import type { NamedBatch, WorkerSlot } from '../../src/kv/batch.ts'
import { blockKeys, createKeyMaker, localHashes, type KeyMaker } from '../../src/kv/keys.ts'
import { FakeStreams, type EntryFields } from '../support/fake-streams.ts'
import { collectingLog, type LogLine } from '../support/fleet.ts'
import { encodeMsgpack } from '../support/msgpack.ts'
import { NaiveMap } from '../support/naive-map.ts'
import { until } from '../support/until.ts'
import { countingCounters } from './counting.ts'
import { readBatches } from './recorded.ts'

const stream = 'kv:engine'
const worker = 0 as WorkerSlot
let keys: KeyMaker
before(async () => {
  keys = await createKeyMaker(Buffer.from('a secret'))
})

interface Rig {
  readonly from?: StartingPoint
  readonly blockSize?: number
}

function follow(t: TestContext, streams: FakeStreams, { from, blockSize = 4 }: Rig = {}) {
  const map = new NaiveMap()
  const counted = countingCounters()
  const batches: NamedBatch[] = []
  const cleared: string[] = []
  const lines: LogLine[] = []
  map.addWorker(worker, { countsStores: true, blockSize })
  const ingest = new Ingest({
    ...{ worker, map, keys, model: 'm', blockSize, countsStores: true, counters: counted.counters },
    sink: { batch: (batch) => batches.push(batch), cleared: (reason) => cleared.push(reason) },
    onBlockSize: () => undefined,
  })
  const source = createRedisSource(
    {
      ...{ reader: streams, stream, retainMs: null, name: 'w', counters: counted.counters },
      log: collectingLog(lines),
      onRestart: () => undefined,
    },
    ingest,
  )
  t.after(() => source.stop())
  source.start(from)
  const holds = (name: number): boolean => {
    const scope = keys.scope({ model: 'm', blockSize: 4, adapter: null })
    const none = (): Uint32Array => new Uint32Array(1)
    const out = { gpu: none(), host: none(), disk: none(), shared: none() }
    map.match([{ blockSize: 4, keys: blockKeys(Uint32Array.from(block(name)), scope) }], out)
    return out.gpu[0] === 1
  }
  /** Names of the blocks that are held, once all is read. */
  const settled = async (upTo: number): Promise<number[]> => {
    await until(() => source.status().state === 'live', 'all is read')
    return Array.from({ length: upTo }, (_, index) => index + 1).filter(holds)
  }
  const warnings = (): string[] => lines.filter(({ level }) => level === 'warn').map(({ message }) => message)
  return { source, map, counted, batches, cleared, warnings, settled }
}

const block = (name: number): number[] => [name, 2, 3, 4]

const stored = (name: number): object => ({
  ...{ type: 'stored', hashes: [`${name}`], parent: null, tokens: block(name), block_size: 4 },
})

const removed = (name: number): object => ({ type: 'removed', hashes: [`${name}`] })

/** An entry that stores the block named by its own number. */
const entry = (seq: number, events: readonly object[] = [stored(seq)], ts = 1000 + seq): EntryFields => ({
  ...{ v: '1', seq: `${seq}`, ts: `${ts}`, events: JSON.stringify(events) },
})

function without(fields: EntryFields, left: string): EntryFields {
  return Object.fromEntries(Object.entries(fields).filter(([name]) => name !== left))
}

function streamOf(entries: readonly EntryFields[]): FakeStreams {
  const streams = new FakeStreams()
  for (const fields of entries) streams.append(stream, fields)
  return streams
}

test('what a stream keeps is loaded from its oldest entry, and what is appended follows', async (t) => {
  const streams = streamOf([1, 2, 3, 4, 5].map((seq) => entry(seq)))
  const { source, settled } = follow(t, streams)
  assert.equal(source.status().state, 'unknown')
  assert.deepEqual(await settled(9), [1, 2, 3, 4, 5])
  streams.append(stream, entry(6, [removed(2), stored(6)]))
  await until(() => source.status().lastSequence === 6, 'the entry is read')
  assert.deepEqual(await settled(9), [1, 3, 4, 5, 6])
  assert.deepEqual(source.status(), {
    ...{ state: 'live', lastSequence: 6, gaps: 0, restarts: 0, partial: true, epoch: 2 },
  })
})

test('payloads of vLLM in a stream make what they make over ZeroMQ', async (t) => {
  const recorded = readBatches('vllm/events_A_sha256_bs32.jsonl')
  const streams = streamOf(recorded.map(({ seq, payload }) => ({ v: '1', seq: `${seq}`, payload })))
  const { source, map, settled, counted } = follow(t, streams, { blockSize: 32 })
  await settled(0)
  const direct = new NaiveMap()
  direct.addWorker(worker, { countsStores: true, blockSize: 32 })
  const ingest = new Ingest({
    ...{ worker, map: direct, keys, model: 'm', blockSize: 32, countsStores: true },
    ...{ counters: countingCounters().counters, onBlockSize: () => undefined },
  })
  for (const { seq, payload } of recorded) ingest.apply(seq, 0, payload)
  assert.ok(direct.workerBlocks(worker).gpu > 0)
  assert.deepEqual(map.workerBlocks(worker), direct.workerBlocks(worker))
  assert.deepEqual([source.status().lastSequence, source.status().partial], [recorded.at(-1)?.seq, false])
  assert.deepEqual(counted.totals, { gaps: 0, restarts: 0, disconnects: 0 })
})

test('a number that goes back is a restart: what was known is cleared, in the middle of the stream as at its end', async (t) => {
  const streams = streamOf([entry(1), entry(2), entry(0, [stored(8)], 2000), entry(1, [stored(9)], 2001)])
  const { source, settled, cleared } = follow(t, streams)
  assert.deepEqual(await settled(9), [8, 9])
  streams.append(stream, entry(0, [stored(3)], 3000))
  await until(() => source.status().restarts === 2, 'the second restart is seen')
  assert.deepEqual(await settled(9), [3])
  assert.deepEqual(cleared, ['start', 'restart', 'restart'])
})

test('a missing number clears, and what comes later counts', async (t) => {
  const { source, settled, counted } = follow(t, streamOf([entry(1), entry(2), entry(4), entry(5)]))
  assert.deepEqual(await settled(9), [4, 5])
  assert.deepEqual([source.status().gaps, counted.totals.gaps, source.status().partial], [1, 1, true])
})

test('an entry written twice counts once, and without its time as another process', async (t) => {
  const twice = streamOf([entry(1), entry(2), entry(2), entry(3)])
  const { settled, counted, source } = follow(t, twice)
  assert.deepEqual(await settled(9), [1, 2, 3])
  assert.deepEqual(counted.skipped(), { duplicate: 1 })
  assert.equal(source.status().restarts, 0)

  const timeless = without(entry(2), 'ts')
  const blurred = follow(t, streamOf([entry(1), timeless, timeless, entry(3)]))
  await blurred.settled(0)
  assert.equal(blurred.source.status().restarts, 1)
})

test('entries of other versions and malformed ones are skipped, counted, and told of once', async (t) => {
  const good = entry(2)
  const { settled, counted, warnings } = follow(
    t,
    streamOf([
      entry(1),
      { ...good, v: '2' },
      without(good, 'v'),
      { ...good, seq: '-1' },
      { ...good, seq: '99999999999999999999' },
      { ...good, ts: 'now' },
      { ...good, payload: encodeMsgpack([1, []]) },
      { v: '1', seq: '2' },
      {},
      good,
    ]),
  )
  assert.deepEqual(await settled(9), [1, 2])
  assert.deepEqual(counted.skipped(), { entry_version: 1, entry_malformed: 7 })
  assert.equal(warnings().length, 1)
})

test('an entry that was skipped leaves a hole, which clears', async (t) => {
  const { settled } = follow(t, streamOf([entry(1), { ...entry(2), v: '2' }, entry(3)]))
  assert.deepEqual(await settled(9), [3])
})

test('events that cannot be decoded are passed over, and the entry has its place in the order', async (t) => {
  const malformed = (seq: number, events: string | Buffer): EntryFields => ({ ...entry(seq), events })
  const { settled, counted } = follow(
    t,
    streamOf([
      entry(1),
      malformed(2, 'no JSON'),
      malformed(3, '{}'),
      { v: '1', seq: '4', payload: encodeMsgpack(['no batch']) },
      entry(5, [{ type: 'moved' }, { type: 'stored' }, { ...stored(5), colour: 'red' }]),
    ]),
  )
  assert.deepEqual(await settled(9), [1, 5])
  assert.deepEqual(counted.skipped(), { batch_malformed: 3, unknown_kind: 1, event_malformed: 1, unknown_field: 1 })
})

test('while Redis is away nothing is known to be live, and afterwards nothing is lost', async (t) => {
  const streams = streamOf([entry(1), entry(2)])
  const { source, settled, counted, cleared } = follow(t, streams)
  await settled(0)
  streams.cut()
  assert.equal(source.status().state, 'unknown')
  streams.append(stream, entry(3))
  streams.append(stream, entry(4, [removed(1), stored(4)]))
  streams.heal()
  await until(() => source.status().lastSequence === 4, 'the rest is read')
  assert.deepEqual(await settled(9), [2, 3, 4])
  assert.deepEqual([counted.totals.disconnects, cleared], [1, ['start']])
})

test('what was trimmed before it was read is missing: that clears', async (t) => {
  const streams = streamOf([entry(1), entry(2)])
  const { source, settled } = follow(t, streams)
  await settled(0)
  streams.cut()
  for (const seq of [3, 4, 5]) streams.append(stream, entry(seq))
  streams.trim(stream, 1)
  streams.heal()
  await until(() => source.status().lastSequence === 5, 'the rest is read')
  assert.deepEqual(await settled(9), [5])
})

test('a Redis that was emptied and is written to anew leaves only what is in it', async (t) => {
  const streams = streamOf([entry(1), entry(2), entry(3)])
  const { source, settled } = follow(t, streams)
  await settled(0)
  streams.wipe()
  streams.append(stream, entry(0, [stored(7)], 5000))
  await until(() => source.status().lastSequence === 0, 'the new entry is read')
  assert.deepEqual(await settled(9), [7])
})

test('a writer that resets its stream is not believed in what it wrote before', async (t) => {
  const streams = streamOf([entry(1), entry(2), { v: '1', reset: 'lost the engine' }, entry(3)])
  const { source, settled } = follow(t, streams)
  assert.deepEqual(await settled(9), [3])
  assert.deepEqual([source.status().gaps, source.status().restarts], [0, 0])
})

test('a worker that was down is forgotten until its stream goes on, and then all that the stream keeps counts', async (t) => {
  const streams = streamOf([entry(1), entry(2)])
  const { source, settled, map } = follow(t, streams)
  await settled(0)
  source.workerDown()
  assert.deepEqual([source.status().state, map.workerBlocks(worker).gpu], ['unknown', 0])
  streams.append(stream, entry(3))
  await until(() => source.status().lastSequence === 3, 'the stream is read anew')
  assert.deepEqual(await settled(9), [1, 2, 3])
  assert.equal(source.status().restarts, 0)

  source.workerDown()
  streams.append(stream, entry(0, [stored(8)], 2000))
  await until(() => source.status().lastSequence === 0, 'the stream is read anew')
  assert.deepEqual(await settled(9), [8])
})

test('what another one has applied is believed once the stream shows its last batch, and is not applied again', async (t) => {
  const streams = streamOf([1, 2, 3, 4, 5].map((seq) => entry(seq)))
  const from = { position: { sequence: 3, timestamp: 1003 }, partial: false }
  const { source, settled, cleared, batches } = follow(t, streams, { from })
  await settled(0)
  assert.deepEqual([cleared, batches.map(({ sequence }) => sequence)], [[], [4, 5]])
  assert.equal(source.status().partial, false)
})

test('what another one has applied is forgotten where the stream does not show it', async (t) => {
  for (const position of [
    { sequence: 3, timestamp: 1003.5 },
    { sequence: 9, timestamp: 1009 },
  ]) {
    const streams = streamOf([1, 2, 3, 4, 5].map((seq) => entry(seq)))
    const { settled, cleared } = follow(t, streams, { from: { position, partial: false } })
    await until(() => cleared.length > 0, 'it is cleared')
    assert.deepEqual([await settled(9), cleared], [[1, 2, 3, 4, 5], ['unverified']])
  }
})

test('local hashes stand for the tokens that they were made of', async (t) => {
  const scope = keys.scope({ model: 'm', blockSize: 4, adapter: null })
  const locals = localHashes(Uint32Array.from(block(1)), scope)
  const word = (BigInt(locals[1] ?? 0) << 32n) | BigInt(locals[0] ?? 0)
  const event = { type: 'stored', hashes: ['0xff'], parent: null, locals: [`${word}`], block_size: 4 }
  const { settled } = follow(t, streamOf([entry(1, [event])]))
  assert.deepEqual(await settled(9), [1])
})
