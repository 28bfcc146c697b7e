import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { RunningLimit } from '../../src/admission/running-limit.ts'
import { isSaturated, roomOf, type SaturationLimits, type WorkerFigures } from '../../src/admission/saturation.ts'

const limits: SaturationLimits = { waitingRequests: 8, kvUsage: 0.95, requestsPerWorker: null, staleMs: 3000 }
const worker = (figures: Partial<WorkerFigures>): WorkerFigures => ({
  running: 0,
  waiting: 0,
  kvUsage: 0.5,
  loadAgeMs: 100,
  ownRequests: 0,
  ownRequestsAtReading: 0,
  runningLimit: Infinity,
  ...figures,
})

test('a worker is saturated once as many requests wait in it as are configured', () => {
  assert.equal(roomOf(worker({ running: 256, waiting: 7 }), limits), 1)
  assert.equal(isSaturated(worker({ running: 256, waiting: 7 }), limits), false)
  assert.equal(isSaturated(worker({ running: 256, waiting: 8 }), limits), true)
})

test('what was sent since the reading counts at once, and so does what has ended', () => {
  const full = worker({ running: 256, waiting: 3, ownRequestsAtReading: 259 })
  assert.equal(roomOf({ ...full, ownRequests: 263 }, limits), 1)
  assert.equal(roomOf({ ...full, ownRequests: 264 }, limits), 0)
  assert.equal(roomOf({ ...full, ownRequests: 255 }, limits), 9)
})

test('free places below the limit of running requests are filled before anything waits', () => {
  const part = worker({ running: 200, runningLimit: 256, ownRequestsAtReading: 200 })
  assert.equal(roomOf({ ...part, ownRequests: 200 }, limits), 56 + 8)
  assert.equal(roomOf({ ...part, ownRequests: 264 }, limits), 0)
})

test('a worker that nobody has seen full is not guessed to be', () => {
  assert.equal(roomOf(worker({ running: 500, ownRequests: 5000 }), limits), Infinity)
})

test('where the KV cache is full one waiting request is enough', () => {
  const full = worker({ running: 40, kvUsage: 0.97, ownRequestsAtReading: 40 })
  assert.equal(isSaturated({ ...full, waiting: 1, ownRequests: 40 }, limits), true)
  assert.equal(roomOf({ ...full, ownRequests: 40 }, limits), 1)
  assert.equal(roomOf({ ...full, ownRequests: 41 }, limits), 0)
  assert.equal(roomOf({ ...full, ownRequests: 38 }, limits), 3)
})

test('old figures say nothing: only the limit of own requests holds', () => {
  const old = worker({ waiting: 1000, kvUsage: 1, loadAgeMs: 3001, ownRequests: 10 })
  assert.equal(roomOf(old, limits), Infinity)
  assert.equal(roomOf(old, { ...limits, requestsPerWorker: 12 }), 2)
  assert.equal(roomOf({ ...old, loadAgeMs: Infinity }, { ...limits, requestsPerWorker: 10 }), 0)
})

test('the limit of own requests holds whatever the figures say', () => {
  assert.equal(roomOf(worker({ ownRequests: 3 }), { ...limits, requestsPerWorker: 4 }), 1)
  assert.equal(roomOf(worker({ ownRequests: 9 }), { ...limits, requestsPerWorker: 4 }), 0)
})

test('each request that is sent takes one place, until none is left', () => {
  const count = fc.nat({ max: 300 })
  const figures = fc.record({
    running: count,
    waiting: fc.nat({ max: 20 }),
    kvUsage: fc.double({ min: 0, max: 1, noNaN: true }),
    ownRequests: count,
    ownRequestsAtReading: count,
    runningLimit: fc.oneof(fc.constant(Infinity), fc.integer({ min: 1, max: 300 })),
  })
  fc.assert(
    fc.property(figures, fc.oneof(fc.constant(null), count), (given, requestsPerWorker) => {
      const its = { ...limits, requestsPerWorker }
      const now = worker(given)
      const room = roomOf(now, its)
      const later = roomOf({ ...now, ownRequests: now.ownRequests + 1 }, its)
      assert.ok(room >= 0)
      if (room >= 1) assert.equal(later, room - 1)
      else assert.equal(later, 0)
    }),
  )
})

test('how many run is learned where others wait in two readings in a row', () => {
  const limit = new RunningLimit()
  assert.equal(limit.value, Infinity)
  limit.read({ running: 3, waiting: 20 })
  assert.equal(limit.value, Infinity, 'a burst that has just arrived')
  limit.read({ running: 23, waiting: 0 })
  assert.equal(limit.value, Infinity)
  limit.read({ running: 64, waiting: 1 })
  limit.read({ running: 62, waiting: 4 })
  assert.equal(limit.value, 64)
  limit.read({ running: 50, waiting: 0 })
  assert.equal(limit.value, 64)
  limit.read({ running: 70, waiting: 0 })
  assert.equal(limit.value, 70, 'it runs more, with nobody waiting')
  limit.read({ running: 30, waiting: 2 })
  limit.read({ running: 32, waiting: 2 })
  assert.equal(limit.value, 32, 'longer requests leave room for fewer')
  limit.clear()
  assert.equal(limit.value, Infinity)
})
