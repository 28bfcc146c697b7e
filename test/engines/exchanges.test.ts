import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { systemClock } from '../../src/zmtp/clock.ts'
import { PubSocket } from '../../src/zmtp/pub-socket.ts'
import { encodeMsgpack, type Encodable } from '../support/msgpack.ts'
import { until } from '../support/until.ts'
import { causes, Exchanges, type Exchange } from './exchanges.ts'
import { Journal } from './journal.ts'

const blockSize = 4
const worker = 'http://a:1'
const promptIds = [1, 2, 3, 4, 5, 6, 7, 8, 9]
const decidedMs = 10_000
const answeredMs = 10_900
const exchange: Exchange = { title: 'one', worker, promptIds, predicted: 8, actual: 8, decidedMs, answeredMs }

function stored(name: number, parent: number | null, ...tokens: number[]): Encodable {
  return {
    type: 'BlockStored',
    block_hashes: [name],
    parent_block_hash: parent,
    token_ids: tokens,
    block_size: blockSize,
  }
}

const first = stored(101, null, 1, 2, 3, 4)
const second = stored(102, 101, 5, 6, 7, 8)
const secondGone: Encodable = { type: 'BlockRemoved', block_hashes: [102] }

/** A journal that has heard each event at its time in ms. */
async function journalOf(t: TestContext, events: readonly (readonly [number, Encodable])[]): Promise<Journal> {
  const engine = new PubSocket({ clock: systemClock, random: Math.random })
  t.after(() => engine.close())
  const port = await engine.bind('tcp://127.0.0.1:0')
  const journal = await Journal.of({ endpoint: `tcp://127.0.0.1:${port}`, blockSize, countsStores: true })
  t.after(() => journal.close())
  await until(() => engine.subscribers === 1, 'the journal subscribes')
  for (const [at, [timeMs, event]] of events.entries()) {
    const sequence = Buffer.alloc(8)
    sequence.writeBigUInt64BE(BigInt(at))
    engine.send([Buffer.alloc(0), sequence, encodeMsgpack([timeMs / 1000, [event], 0])])
  }
  await until(() => journal.now === events.length, 'the journal has heard all')
  return journal
}

function causeOf(journal: Journal, ...told: readonly Exchange[]): string | null | undefined {
  const exchanges = new Exchanges(blockSize)
  for (const one of told) exchanges.add(one)
  return exchanges.differences(new Map([[worker, journal]]))[0]?.cause
}

const known = [
  [9_000, first],
  [9_000, second],
] as const

test('a block that is removed after the decision was evicted before the engine admitted the request', async (t) => {
  const journal = await journalOf(t, [...known, [10_100, secondGone]])
  assert.equal(causeOf(journal, { ...exchange, actual: 4 }), causes.evicted)
})

test('a block that was removed just before the decision was predicted by an older picture', async (t) => {
  const journal = await journalOf(t, [...known, [9_900, secondGone]])
  assert.equal(causeOf(journal, { ...exchange, actual: 4 }), causes.underWayEvicted)
})

test('a report that the engine’s events do not bear out has no cause', async (t) => {
  const journal = await journalOf(t, known)
  assert.equal(causeOf(journal, { ...exchange, actual: 4 }), null)
  assert.equal(causeOf(journal, { ...exchange, actual: 0 }), null)
})

test('a prediction that the engine’s events do not bear out has no cause', async (t) => {
  const journal = await journalOf(t, [
    [9_000, first],
    [10_100, second],
  ])
  assert.equal(causeOf(journal, { ...exchange, predicted: 0, actual: 8 }), null)
})

test('more is found only where another request has computed it: its own work does not count', async (t) => {
  const journal = await journalOf(t, [
    [9_000, first],
    [10_100, second],
  ])
  const more = { ...exchange, predicted: 4, actual: 8 }
  assert.equal(causeOf(journal, more), null)
  assert.equal(causeOf(journal, more, { ...exchange, title: 'other' }), causes.stored)
})

test('what is stored once more was not found: where nothing is reported, events tell', async (t) => {
  const journal = await journalOf(t, [...known, [10_100, secondGone], [10_200, second]])
  const exchanges = new Exchanges(blockSize)
  exchanges.add({ ...exchange, actual: null })
  assert.equal(exchanges.askEvents(new Map([[worker, journal]])), 1)
  assert.equal(exchanges.all[0]?.actual, 4)
})
