import assert from 'node:assert/strict'
import { test } from 'node:test'
import { inOrderOfArrival } from '../../src/sizing/arrivals.ts'
import { ReuseCurve } from '../../src/sizing/reuse-curve.ts'
import { curvePoints, tierReach, tierSizes, type Fleet } from '../../src/sizing/tiers.ts'

/** Ten prompts of ten blocks in turn, five times: a cache finds them all if it holds all 100 blocks, and else hardly any. */
const rows = Array.from({ length: 50 }, (_, turn) =>
  Array.from({ length: 10 }, (__, block) => (turn % 10) * 10 + block),
)
const curve = ReuseCurve.of(rows, (row) => row)
const fleet: Fleet = { workers: 2, gpuTokens: 320, tokenBytes: 1000, blockTokens: 16 }

test('tiers are sized for what the GPUs do not hold', () => {
  const [all, more] = tierSizes(curve, fleet, [0.8, 0.81])
  assert.equal(curve.idealHitRatio, 0.8)
  assert.deepEqual(all, {
    wantedHitRatio: 0.8,
    tokens: 1600,
    bytes: 1_600_000,
    hostBytesPerWorker: (1600 - 640) * 500,
    diskBytesPerWorker: 0,
    sharedBytes: 1_600_000,
  })
  assert.deepEqual(more, {
    wantedHitRatio: 0.81,
    tokens: null,
    bytes: null,
    hostBytesPerWorker: null,
    diskBytesPerWorker: null,
    sharedBytes: null,
  })
})

test('a hit ratio that the GPUs reach needs no other tier', () => {
  const [sizes] = tierSizes(curve, { ...fleet, gpuTokens: 800 }, [0.8])
  assert.deepEqual([sizes?.hostBytesPerWorker, sizes?.diskBytesPerWorker], [0, 0])
})

test('what the host has no room for goes to disk', () => {
  const [sizes] = tierSizes(curve, { ...fleet, hostBytes: 100_000 }, [0.8])
  assert.deepEqual([sizes?.hostBytesPerWorker, sizes?.diskBytesPerWorker], [100_000, 380_000])
})

test('each tier reaches as far as it and those before it hold', () => {
  const reach = tierReach(curve, fleet, [
    { tier: 'host', fleetBytes: 480_000 },
    { tier: 'shared', fleetBytes: 480_000 },
  ])
  assert.deepEqual(
    reach.map(({ tier, tokens }) => [tier, tokens]),
    [
      ['gpu', 640],
      ['host', 1120],
      ['shared', 1600],
    ],
  )
  assert.deepEqual(
    reach.map(({ hitRatio }) => hitRatio),
    [curve.hitRatio(40), curve.hitRatio(70), 0.8],
  )
})

test('the points of a curve end at the last block and never fall', () => {
  const points = curvePoints(curve, 16)
  assert.deepEqual(points.at(-1), { tokens: 1600, hitRatio: 0.8 })
  for (const [index, { hitRatio, tokens }] of points.entries()) {
    assert.ok(tokens > (points[index - 1]?.tokens ?? 0))
    assert.ok(hitRatio >= (points[index - 1]?.hitRatio ?? 0))
  }
})

const request = (name: string, recordedMs: number) => ({ name, recordedMs })
const names = (requests: readonly { name: string }[]) => requests.map(({ name }) => name).join(' ')

test('requests of sessions with times come when they were recorded', () => {
  const sessions = [
    { startMs: 100, requests: [request('a1', 0), request('a2', 500)] },
    { startMs: 300, requests: [request('b1', 300), request('b2', 350)] },
  ]
  assert.equal(names(inOrderOfArrival(sessions, 1)), 'a1 b1 b2 a2')
})

test('sessions without times run as many at once as there are users', () => {
  const sessions = ['a', 'b', 'c'].map((id) => ({
    startMs: null,
    requests: [request(`${id}1`, 0), request(`${id}2`, id === 'a' ? 1000 : 400)],
  }))
  assert.equal(names(inOrderOfArrival(sessions, 1)), 'a1 a2 b1 b2 c1 c2')
  assert.equal(names(inOrderOfArrival(sessions, 2)), 'a1 b1 b2 c1 c2 a2')
  assert.equal(names(inOrderOfArrival(sessions, 9)), 'a1 b1 c1 b2 c2 a2')
})
