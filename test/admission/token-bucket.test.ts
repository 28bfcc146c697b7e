import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { TokenBucket } from '../../src/admission/token-bucket.ts'

const minuteMs = 60_000
const rate = fc.integer({ min: 1, max: 10_000_000 })

test('it holds one minute’s worth and fills evenly', () => {
  const bucket = new TokenBucket(60, 0)
  bucket.take(60)
  assert.deepEqual(
    [0, 1000, 30_000, minuteMs, 10 * minuteMs].map((nowMs) => bucket.level(60, nowMs)),
    [0, 1, 30, 60, 60],
  )
})

test('over any span it lets through no more than it held and what came in', () => {
  const tries = fc.array(fc.tuple(fc.nat({ max: 20_000 }), fc.integer({ min: 1, max: 1000 })), { minLength: 20 })
  fc.assert(
    fc.property(fc.integer({ min: 1000, max: 100_000 }), tries, (perMinute, steps) => {
      const bucket = new TokenBucket(perMinute, 0)
      let nowMs = 0
      let taken = 0
      for (const [laterMs, amount] of steps) {
        nowMs += laterMs
        if (bucket.waitMs(amount, perMinute, nowMs) > 0) continue
        bucket.take(amount)
        taken += amount
        assert.ok(taken <= perMinute + (perMinute * nowMs) / minuteMs + 1e-3)
      }
    }),
  )
})

test('who waits exactly as long as was said gets through, and not a millisecond sooner', () => {
  fc.assert(
    fc.property(
      rate,
      fc.nat({ max: 100_000_000 }),
      fc.integer({ min: 1, max: 10_000_000 }),
      (perMinute, debt, amount) => {
        const bucket = new TokenBucket(perMinute, 0)
        bucket.take(debt)
        const waitMs = bucket.waitMs(amount, perMinute, 0)
        if (waitMs > 1) assert.ok(bucket.waitMs(amount, perMinute, waitMs - 1) > 0)
        assert.equal(bucket.waitMs(amount, perMinute, waitMs), 0)
      },
    ),
  )
})

test('what is more than it holds gets through once it is full, and leaves a debt', () => {
  const bucket = new TokenBucket(100, 0)
  assert.equal(bucket.waitMs(250, 100, 0), 0)
  bucket.take(250)
  assert.equal(bucket.level(100, 0), -150)
  assert.equal(bucket.waitMs(1, 100, 0), (151 * minuteMs) / 100)
})

test('a changed limit holds at once, and a clock that goes back gives nothing', () => {
  const bucket = new TokenBucket(600, 0)
  assert.equal(bucket.level(60, 0), 60)
  bucket.take(60)
  assert.equal(bucket.level(60, 1000), 1)
  assert.equal(bucket.level(60, 500), 1)
})
