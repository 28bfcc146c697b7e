import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { InFlight, InFlightCounters } from '../../src/workers/fleet.ts'
import { FleetLoad, freshLoad } from '../../src/workers/fleet-load.ts'
import { aWorker } from '../support/routing.ts'

/** What other replicas have in flight on worker 0. */
type Share = Readonly<Record<'requests' | 'sequences' | 'prefillTokens' | 'decodeBlocks', number>>
const noShare: Share = { requests: 0, sequences: 0, prefillTokens: 0, decodeBlocks: 0 }

function setUp(share: Share = noShare) {
  const counters = new InFlightCounters(2)
  const of = (figure: keyof Share) => (slot: number) => (slot === 0 ? share[figure] : 0)
  const load = new FleetLoad({
    counters,
    replicas: {
      requests: of('requests'),
      sequences: of('sequences'),
      prefillTokens: of('prefillTokens'),
      decodeBlocks: of('decodeBlocks'),
    },
  })
  const worker = aWorker(0)
  const read = (running: number, waiting = 0) => {
    load.asked(worker)
    worker.load = { running, waiting, kvUsage: 0, source: 'poll', atMs: 0 }
    load.read(worker)
    return worker.load
  }
  const send = (sequences = 1) =>
    new InFlight(counters, 0, { promptTokens: 100, uncachedTokens: 60, blockSize: 16, sequences })
  return { counters, load, worker, read, send }
}

test('what an engine reports beyond our own requests is foreign, once a second reading confirms it', () => {
  const { read, send } = setUp()
  send()
  send()
  assert.equal(read(5, 2).foreignRequests, 0)
  assert.deepEqual([read(5, 2).foreignRequests, read(5, 2).foreignWaiting], [5, 2])
  assert.deepEqual([read(3, 0).foreignRequests, read(3, 0).foreignWaiting], [1, 0])
  assert.equal(read(0, 0).foreignRequests, 0)
})

test('every answer and prompt of a request counts as the engine counts it', () => {
  const { counters, read, send } = setUp()
  const several = send(4)
  assert.deepEqual([counters.requests(0), counters.sequences(0)], [1, 4])
  for (let times = 0; times < 3; times++) assert.equal(read(4).foreignRequests, 0)
  several.release()
  assert.deepEqual([counters.requests(0), counters.sequences(0)], [0, 0])
})

test('a request that ends while its engine is being asked is not taken for a foreign one, nor one that comes', () => {
  const { load, worker, send } = setUp()
  for (let times = 0; times < 4; times++) {
    const ending = send()
    load.asked(worker)
    ending.release()
    worker.load = { running: 1, waiting: 0, kvUsage: 0, source: 'poll', atMs: 0 }
    load.read(worker)
    assert.equal(worker.load.foreignRequests, 0)
    load.asked(worker)
    const coming = send()
    worker.load = { running: 1, waiting: 0, kvUsage: 0, source: 'poll', atMs: 0 }
    load.read(worker)
    assert.equal(worker.load.foreignRequests, 0)
    coming.release()
  }
})

test('what other replicas have in flight adds to our own, and is not foreign', () => {
  const { load, read, send } = setUp({ requests: 2, sequences: 3, prefillTokens: 500, decodeBlocks: 40 })
  send()
  assert.deepEqual([load.requests(0), load.prefillTokens(0), load.decodeBlocks(0)], [3, 560, 47])
  assert.deepEqual([load.requests(1), load.prefillTokens(1), load.decodeBlocks(1)], [0, 0, 0])
  for (let times = 0; times < 2; times++) assert.equal(read(4).foreignRequests, 0)
  for (let times = 0; times < 2; times++) read(6)
  assert.equal(read(6).foreignRequests, 2)
})

test('however much replicas say that they have, sums stay within 32 bits', () => {
  const most = 2 ** 31 - 1
  const { counters, load } = setUp({ requests: most, sequences: most, prefillTokens: most, decodeBlocks: most })
  counters.add(0, 1, 2 ** 30, 1)
  assert.deepEqual([load.requests(0), load.prefillTokens(0), load.decodeBlocks(0)], [most, most, most])
})

test('a restart forgets what was measured of the old process, and no count of our own', () => {
  const { load, worker, read, send } = setUp()
  send()
  for (let times = 0; times < 2; times++) read(9)
  load.restarted(worker)
  assert.equal(worker.load, null)
  assert.equal(load.requests(0), 1)
  assert.equal(read(9).foreignRequests, 0, 'a second reading must confirm it again')
})

test('a reading that never came changes nothing, and an old one is not used', () => {
  const { load, worker, read } = setUp()
  load.read(worker)
  assert.equal(worker.load, null)
  read(3)
  assert.equal(freshLoad(worker, 1000, 1000), worker.load)
  assert.equal(freshLoad(worker, 1001, 1000), null)
})

test('whatever is counted, reported or shared, no figure is ever negative, broken or NaN, and all returns to zero', () => {
  const figure = fc.oneof(
    fc.integer({ min: -10, max: 5000 }),
    fc.constantFrom(NaN, Infinity, -Infinity, 1e300, -1e300, 0.5, 2 ** 31, 2 ** 40),
  )
  const step = fc.oneof(
    fc.record({
      kind: fc.constant('send' as const),
      promptTokens: figure,
      uncachedTokens: figure,
      blockSize: figure,
      sequences: figure,
    }),
    fc.record({ kind: fc.constant('prefilled' as const), which: fc.nat(9), figure }),
    fc.record({ kind: fc.constant('generated' as const), which: fc.nat(9), figure }),
    fc.record({ kind: fc.constant('end' as const), which: fc.nat(9), times: fc.integer({ min: 1, max: 3 }) }),
    fc.record({ kind: fc.constant('read' as const), running: figure, waiting: figure }),
    fc.constantFrom({ kind: 'ask' as const }, { kind: 'restart' as const }),
  )
  const shared = fc.nat(64 * (2 ** 24 - 1))
  const share = fc.record({ requests: shared, sequences: shared, prefillTokens: shared, decodeBlocks: shared })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), share, (steps, share) => {
      const { counters, load, worker, read } = setUp(share)
      const open: InFlight[] = []
      const sound = (value: number): void => assert.ok(Number.isInteger(value) && value >= 0, `${value}`)
      for (const at of steps) {
        if (at.kind === 'send') open.push(new InFlight(counters, 0, at))
        else if (at.kind === 'prefilled') open[at.which]?.prefilledTo(at.figure)
        else if (at.kind === 'generated') open[at.which]?.generated(at.figure)
        else if (at.kind === 'end') for (let times = 0; times < at.times; times++) open[at.which]?.release()
        else if (at.kind === 'ask') load.asked(worker)
        else if (at.kind === 'restart') load.restarted(worker)
        else {
          const { foreignRequests = -1, foreignWaiting = -1 } = read(at.running, at.waiting)
          sound(foreignRequests)
          sound(foreignWaiting)
          assert.ok(foreignWaiting <= foreignRequests)
        }
        for (const figures of [counters, load]) {
          for (const value of [figures.requests(0), figures.prefillTokens(0), figures.decodeBlocks(0)]) sound(value)
        }
        sound(counters.sequences(0))
      }
      for (const inFlight of open) inFlight.release()
      assert.deepEqual(
        [counters.requests(0), counters.prefillTokens(0), counters.decodeBlocks(0), counters.sequences(0)],
        [0, 0, 0, 0],
      )
    }),
    { numRuns: 400 },
  )
})
