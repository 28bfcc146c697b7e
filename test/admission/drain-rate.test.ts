import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DrainRate } from '../../src/admission/drain-rate.ts'

test('a steady rate is told as it is, from the first seconds on', () => {
  const rate = new DrainRate(0)
  for (let nowMs = 0; nowMs <= 60_000; nowMs += 250) {
    rate.note(nowMs)
    if (nowMs > 2000) assert.ok(Math.abs(rate.perSecond(nowMs) - 4) < 0.5, `${rate.perSecond(nowMs)} at ${nowMs}`)
  }
})

test('a rate that has ended falls to nothing within two windows', () => {
  const rate = new DrainRate(0)
  for (let nowMs = 0; nowMs < 10_000; nowMs += 100) rate.note(nowMs)
  assert.equal(rate.perSecond(10_000), 10)
  assert.equal(rate.perSecond(15_000), 5)
  assert.equal(rate.perSecond(20_000), 0)
  assert.equal(rate.perSecond(1e9), 0)
})

test('a long silence leaves nothing of what was before', () => {
  const rate = new DrainRate(0)
  for (let nowMs = 0; nowMs < 10_000; nowMs += 100) rate.note(nowMs)
  assert.equal(rate.perSecond(20_000), 0)
})

test('before anything has ended the rate is nothing', () => {
  assert.equal(new DrainRate(5).perSecond(5), 0)
})
