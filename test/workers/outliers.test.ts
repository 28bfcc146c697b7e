import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Outliers, type OutlierLimits } from '../../src/workers/outliers.ts'
import type { Worker } from '../../src/workers/worker.ts'
import { seededRandom } from '../support/random.ts'
import { aWorker } from '../support/routing.ts'

const limits: OutlierLimits = {
  failures: 5,
  baseEjectionMs: 1000,
  maxEjectionMs: 60_000,
  maxEjectedShare: 0.5,
  panicShare: 0.5,
  slowStart: { windowMs: 10_000, floorShare: 0.1 },
  maxPressureMs: 10_000,
}
const nobody: ReadonlySet<number> = new Set()

class Clinic {
  nowMs = 0
  readonly ejections: number[] = []
  panics = 0
  readonly workers: Worker[]
  readonly outliers: Outliers

  constructor(workers: number, random = () => 0, more: Partial<OutlierLimits> = {}) {
    this.workers = Array.from({ length: workers }, (_, index) => aWorker(index))
    this.outliers = new Outliers({
      limits: { ...limits, ...more },
      clock: () => this.nowMs,
      random,
      onEjected: (_worker, forMs) => this.ejections.push(forMs),
      onReturned: () => undefined,
      onPanic: () => this.panics++,
    })
    this.eligible()
  }

  worker(index: number): Worker {
    return this.workers[index] ?? assert.fail(`worker ${index}`)
  }

  eligible(tried = nobody): number[] {
    return this.outliers
      .eligible(this.workers, tried)
      .map(({ serial }) => serial)
      .sort()
  }

  fail(index: number, times = 5): void {
    for (let i = 0; i < times; i++) {
      this.outliers.dispatched(this.worker(index))
      this.outliers.failed(this.worker(index), this.workers)
    }
  }

  succeed(index: number): void {
    this.outliers.dispatched(this.worker(index))
    this.outliers.succeeded(this.worker(index))
  }
}

test('five failures in a row eject a worker; a success in between begins the count anew', () => {
  const clinic = new Clinic(4)
  clinic.fail(0, 4)
  clinic.succeed(0)
  clinic.fail(0, 4)
  assert.deepEqual(clinic.eligible(), [0, 1, 2, 3])
  clinic.fail(0, 1)
  assert.deepEqual(clinic.eligible(), [1, 2, 3])
  assert.equal(clinic.worker(0).standing.state, 'ejected')
})

test('one probe at a time decides over an ejected worker, and each failed one doubles its time', () => {
  const clinic = new Clinic(4)
  clinic.fail(0)
  for (const forMs of [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]) {
    assert.equal(clinic.ejections.at(-1), forMs)
    clinic.nowMs += forMs - 1
    assert.deepEqual(clinic.eligible(), [1, 2, 3])
    clinic.nowMs += 1
    assert.deepEqual(clinic.eligible(), [0, 1, 2, 3])
    clinic.outliers.dispatched(clinic.worker(0))
    assert.deepEqual(clinic.eligible(), [1, 2, 3], 'the probe is under way')
    clinic.outliers.failed(clinic.worker(0), clinic.workers)
    assert.deepEqual(clinic.eligible(), [1, 2, 3])
  }
})

test('a probe whose client left decides nothing', () => {
  const clinic = new Clinic(2)
  clinic.fail(0)
  clinic.nowMs = 1000
  clinic.eligible()
  clinic.outliers.dispatched(clinic.worker(0))
  clinic.outliers.undecided(clinic.worker(0))
  assert.deepEqual(clinic.eligible(), [0, 1])
})

test('a late success of a request sent before the ejection does not end it', () => {
  const clinic = new Clinic(2)
  clinic.fail(0)
  clinic.outliers.succeeded(clinic.worker(0))
  assert.deepEqual(clinic.eligible(), [1])
})

test('at most half of the workers are ejected, yet at least one; the others that fail get little', () => {
  const clinic = new Clinic(4, seededRandom(3))
  for (const index of [0, 1, 2]) clinic.fail(index)
  assert.deepEqual(
    clinic.workers.map(({ standing }) => standing.state),
    ['ejected', 'ejected', 'healthy', 'healthy'],
  )
  let failing = 0
  for (let i = 0; i < 4000; i++) {
    const eligible = clinic.eligible()
    assert.ok(eligible.includes(3), 'the healthy one is always there')
    if (eligible.includes(2)) failing++
  }
  assert.ok(failing > 0 && failing / 4000 <= 0.04, `${failing} of 4000`)
  const two = new Clinic(2)
  for (const index of [0, 1]) two.fail(index)
  assert.deepEqual(two.eligible(), [1])
})

test('with too few workers left ejections are ignored, but never a worker that is down', () => {
  const clinic = new Clinic(4)
  clinic.fail(0)
  clinic.worker(1).standing.up = false
  assert.deepEqual(clinic.eligible(), [2, 3], 'half are left')
  clinic.worker(2).standing.up = false
  assert.deepEqual(clinic.eligible(), [0, 3])
  assert.equal(clinic.panics, 1)
})

test('an ejected worker is used rather than none', () => {
  const clinic = new Clinic(1)
  clinic.fail(0)
  assert.deepEqual(clinic.eligible(), [0])
  const two = new Clinic(2)
  two.fail(0)
  two.worker(1).standing.draining = true
  assert.deepEqual(two.eligible(), [0])
  assert.deepEqual(two.eligible(new Set([0])), [])
})

test('a worker that joins settled ones gets at most its rising part of a fair share', () => {
  const clinic = new Clinic(3, seededRandom(5))
  clinic.nowMs = 20_000
  clinic.workers.push(aWorker(3))
  const shareAt = (ms: number): number => {
    clinic.nowMs = 20_000 + ms
    let taking = 0
    for (let i = 0; i < 20_000; i++) if (clinic.eligible().includes(3)) taking++
    return taking / 20_000 / 0.25
  }
  assert.ok(Math.abs(shareAt(0) - 0.1) < 0.03)
  assert.ok(shareAt(1000) <= 0.25)
  assert.ok(Math.abs(shareAt(5000) - 0.5) < 0.05)
  assert.ok(Math.abs(shareAt(9999) - 1) < 0.08)
  assert.equal(shareAt(10_000), 4, 'then it is a candidate like all others')
})

test('slow start is skipped where every worker is new, and taken again after a restart', () => {
  const clinic = new Clinic(3)
  assert.deepEqual(clinic.eligible(), [0, 1, 2])
  clinic.nowMs = 3000
  clinic.worker(2).standing.up = false
  clinic.worker(2).standing.up = true
  assert.deepEqual(clinic.eligible(), [0, 1, 2], 'the others are hardly older')
  clinic.nowMs = 30_000
  clinic.worker(2).standing.up = false
  clinic.worker(2).standing.up = true
  const picky = new Outliers({
    limits,
    clock: () => clinic.nowMs,
    random: () => 0.99,
    onEjected: () => undefined,
    onReturned: () => undefined,
    onPanic: () => undefined,
  })
  assert.equal(picky.eligible(clinic.workers, nobody).length, 2)
})

test('a restarted worker begins without its old failures', () => {
  const clinic = new Clinic(2)
  clinic.fail(0)
  clinic.worker(0).standing.up = false
  clinic.worker(0).standing.up = true
  assert.deepEqual(clinic.eligible(), [0, 1])
  assert.equal(clinic.worker(0).standing.state, 'healthy')
})

test('a worker that is too busy is left alone for as long as it says, but not longer than the limit', () => {
  const clinic = new Clinic(2)
  clinic.outliers.pressed(clinic.worker(0), 2000)
  assert.deepEqual(clinic.eligible(), [1])
  clinic.outliers.pressed(clinic.worker(1), 3_600_000)
  assert.deepEqual(clinic.eligible(), [0, 1], 'none is left otherwise')
  clinic.nowMs = 2000
  assert.deepEqual(clinic.eligible(), [0])
  clinic.nowMs = 10_000
  assert.deepEqual(clinic.eligible(), [0, 1])
})
