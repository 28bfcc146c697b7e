import assert from 'node:assert/strict'
import { test } from 'node:test'
import { anonymous, type Caller } from '../../src/admission/caller.ts'
import { rateLimitHeaders, Rates } from '../../src/admission/rates.ts'
import { RouterError } from '../../src/errors.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import { Hands, limited } from './rig.ts'

function rates(): { hands: Hands; rates: Rates; limitedBy: (key: string, limit: string) => number } {
  const hands = new Hands()
  const metrics = createMetrics()
  return {
    hands,
    rates: new Rates(hands.clock, metrics),
    limitedBy: (key, limit) => metrics.rateLimited.cell(key, limit).value,
  }
}

/** Seconds after which to try again; null where the request is let in. */
function refused(given: Rates, caller: Caller, promptTokens = 1): number | null {
  try {
    given.check(caller, promptTokens)
    return null
  } catch (error) {
    assert.ok(error instanceof RouterError)
    assert.deepEqual([error.code, error.status, error.type], ['RATE_LIMITED', 429, 'RateLimitError'])
    return error.retryAfterSeconds
  }
}

test('requests beyond the minute’s are refused with the second from which on the next one is let in', () => {
  const { hands, rates: given, limitedBy } = rates()
  const key = limited('a', { requestsPerMinute: 6 })
  for (let at = 0; at < 6; at++) {
    assert.equal(refused(given, key), null)
    given.charge(key, 1)?.settle(0)
  }
  assert.equal(refused(given, key), 10)
  hands.pass(9_999)
  assert.equal(refused(given, key), 1)
  hands.pass(1)
  assert.equal(refused(given, key), null)
  assert.equal(limitedBy('a', 'requests'), 2)
})

test('prompt tokens count when a request is let in, generated ones when it ends, into debt', () => {
  const { hands, rates: given, limitedBy } = rates()
  const key = limited('a', { tokensPerMinute: 600 })
  const charge = given.charge(key, 500)
  assert.equal(refused(given, key, 100), null)
  assert.equal(refused(given, key, 101), 1)
  charge?.settle(400)
  assert.equal(refused(given, key, 1), Math.ceil(301 / 10))
  hands.pass(30_100)
  assert.equal(refused(given, key, 1), null)
  assert.equal(limitedBy('a', 'tokens'), 2)
})

test('over several limits, the time to wait is the longest', () => {
  const { rates: given } = rates()
  const key = limited('a', { requestsPerMinute: 2, tokensPerMinute: 60 })
  given.charge(key, 30)
  given.charge(key, 70)
  assert.equal(refused(given, key, 1), 41)
  const other = limited('b', { requestsPerMinute: 1, tokensPerMinute: 60 })
  given.charge(other, 60)
  assert.equal(refused(given, other, 1), 60)
})

test('a key far in debt is told to come back in a minute at most', () => {
  const { rates: given } = rates()
  const key = limited('a', { tokensPerMinute: 60 })
  given.charge(key, 1)?.settle(10_000)
  assert.equal(refused(given, key), 60)
})

test('requests at a time are counted until they end, however they end', () => {
  const { rates: given, limitedBy } = rates()
  const key = limited('a', { concurrency: 2 })
  const [first, second] = [given.charge(key, 1), given.charge(key, 1)]
  assert.equal(refused(given, key), 1)
  first?.settle(5)
  first?.settle(5)
  first?.refund()
  assert.equal(refused(given, key), null)
  given.charge(key, 1)
  assert.equal(refused(given, key), 1)
  second?.refund()
  assert.equal(refused(given, key), null)
  assert.equal(limitedBy('a', 'concurrency'), 2)
})

test('what never got to a worker counts for nothing', () => {
  const { rates: given } = rates()
  const key = limited('a', { requestsPerMinute: 1, tokensPerMinute: 100 })
  given.charge(key, 100)?.refund()
  assert.deepEqual(given.figures(key), {
    requests: { limit: 1, remaining: 1, resetMs: 0 },
    tokens: { limit: 100, remaining: 100, resetMs: 0 },
  })
})

test('keys do not share limits, and those without any are let in', () => {
  const { rates: given } = rates()
  given.charge(limited('a', { requestsPerMinute: 1 }), 1)
  assert.equal(refused(given, limited('a', { requestsPerMinute: 1 })), 60)
  assert.equal(refused(given, limited('b', { requestsPerMinute: 1 })), null)
  assert.equal(given.charge(anonymous, 1e9), null)
  assert.equal(refused(given, anonymous, 1e9), null)
  assert.equal(given.figures(anonymous), null)
})

test('what a key has used survives a reload of the keys, and goes with the key', () => {
  const { rates: given } = rates()
  given.charge(limited('a', { requestsPerMinute: 2 }), 1)
  given.retain(new Set(['a']))
  const more = limited('a', { requestsPerMinute: 10, tokensPerMinute: 7 })
  assert.equal(given.figures(more)?.requests?.remaining, 1)
  assert.equal(given.figures(more)?.tokens?.remaining, 7)
  given.retain(new Set(['b']))
  assert.equal(given.figures(more)?.requests?.remaining, 10)
})

test('the headers tell limit, rest and time to the full limit', () => {
  const { rates: given } = rates()
  const key = limited('a', { requestsPerMinute: 60, tokensPerMinute: 6000 })
  given.charge(key, 1250)
  assert.deepEqual(rateLimitHeaders(given.figures(key)), [
    'x-ratelimit-limit-requests',
    '60',
    'x-ratelimit-remaining-requests',
    '59',
    'x-ratelimit-reset-requests',
    '1s',
    'x-ratelimit-limit-tokens',
    '6000',
    'x-ratelimit-remaining-tokens',
    '4750',
    'x-ratelimit-reset-tokens',
    '13s',
  ])
  assert.deepEqual(rateLimitHeaders(given.figures(limited('b', { concurrency: 1 }))), [])
})
