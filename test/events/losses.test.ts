import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Losses } from '../../src/events/losses.ts'

function setUp(gaps: number, withinSeconds: number) {
  const at = { ms: 1e6 }
  const limits = { gaps, withinSeconds }
  return {
    at,
    limits,
    losses: new Losses(
      () => limits,
      () => at.ms,
    ),
  }
}

test('a single loss is an accident, several within a while are not, and those that are long ago do not count', () => {
  const { at, losses } = setUp(3, 10)
  assert.equal(losses.areFrequent, false)
  losses.gap()
  at.ms += 9_000
  losses.gap()
  assert.equal(losses.areFrequent, false)
  at.ms += 2_000
  losses.gap()
  assert.equal(losses.areFrequent, false, 'the first one is 11 s old')
  losses.gap()
  assert.equal(losses.areFrequent, true)
  at.ms += 8_000
  assert.equal(losses.areFrequent, false, 'of the last three one is 10 s old')
})

test('whoever keeps losing stays lossy, and another process begins anew', () => {
  const { at, losses } = setUp(2, 10)
  for (let i = 0; i < 50; i++) {
    losses.gap()
    assert.equal(losses.areFrequent, i > 0)
    at.ms += 3_000
  }
  losses.clear()
  losses.gap()
  assert.equal(losses.areFrequent, false)
})

test('limits are those of now', () => {
  const { limits, losses } = setUp(2, 10)
  losses.gap()
  limits.gaps = 1
  assert.equal(losses.areFrequent, true)
})
