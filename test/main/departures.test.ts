import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Departures } from '../../src/main/departures.ts'
import type { Worker } from '../../src/workers/worker.ts'
import { aWorker } from '../support/routing.ts'
import { until } from '../support/until.ts'

function departures(limitMs: number) {
  const inFlight = new Map<Worker, number>()
  const told: string[] = []
  let nowMs = 0
  const leaving = new Departures({
    inFlight: (worker) => inFlight.get(worker) ?? 0,
    limitMs: () => limitMs,
    cut: (worker) => {
      told.push(`cut ${worker.slot}`)
      inFlight.delete(worker)
    },
    gone: (worker) => told.push(`gone ${worker.slot}`),
    clock: () => nowMs,
  })
  return { leaving, inFlight, told, pass: (ms: number) => (nowMs += ms) }
}

test('a worker with nothing in flight is gone at once', () => {
  const { leaving, told } = departures(1000)
  const worker = aWorker(0)
  leaving.add(worker)
  assert.equal(worker.standing.state, 'draining')
  assert.deepEqual(told, ['gone 0'])
  assert.equal(leaving.has(worker), false)
})

test('a worker stays while it has requests, however often it is looked at, and is cut at the limit', async () => {
  const { leaving, inFlight, told, pass } = departures(1000)
  const [busy, done] = [aWorker(0), aWorker(1)]
  inFlight.set(busy, 2).set(done, 1)
  leaving.add(busy)
  leaving.add(done)
  inFlight.delete(done)
  pass(999)
  await until(() => told.length === 1, 'the one that is done is gone')
  assert.deepEqual(told, ['gone 1'])
  pass(1)
  await until(() => told.length === 3, 'the other is cut')
  assert.deepEqual(told, ['gone 1', 'cut 0', 'gone 0'])
})

test('who is in a hurry does not wait', () => {
  const { leaving, inFlight, told } = departures(1000)
  const worker = aWorker(0)
  leaving.hurry(worker)
  assert.deepEqual(told, [], 'a worker that stays is left alone')
  inFlight.set(worker, 1)
  leaving.add(worker)
  leaving.hurry(worker)
  assert.deepEqual(told, ['cut 0', 'gone 0'])
})
