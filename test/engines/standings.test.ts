import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ratios, standing, standingsTable, type Answered, type Lap } from './standings.ts'

function answer(ttftMs: number, more: Partial<Answered> = {}): Answered {
  return { ttftMs, worker: 'http://a:1', promptTokens: 100, predictedTokens: 0, cachedTokens: 0, ...more }
}

function lap(policy: string, round: number, ...timesMs: number[]): Lap {
  const answered = timesMs.map((ttftMs) => answer(ttftMs))
  return { policy, round, answered, failed: 0, seconds: 1, load: 0 }
}

test('a standing tells times, hits and the requests of each worker', () => {
  const found = standing([
    answer(10, { predictedTokens: 64, cachedTokens: 64 }),
    answer(20, { worker: 'http://b:1' }),
    answer(60),
  ])
  assert.equal(found.meanMs, 30)
  assert.equal(found.p50Ms, 20)
  assert.equal(found.p90Ms, 60)
  assert.equal(found.hitRatio, 64 / 300)
  assert.deepEqual(found.requests, [2, 1])
})

test('agreement weighs by tokens, and leaves out what no engine reported', () => {
  const found = standing([
    answer(1, { predictedTokens: 80, cachedTokens: 64 }),
    answer(1, { predictedTokens: 16, cachedTokens: 16 }),
    answer(1, { predictedTokens: 16, cachedTokens: null }),
    answer(1, { predictedTokens: 0, cachedTokens: 0 }),
  ])
  assert.equal(found.agreement, 1 - 16 / 96)
  assert.equal(found.coverage, 0.75)
})

test('policies are compared within a round, whatever the machine was busy with in another', () => {
  const laps = [lap('one', 1, 10, 30), lap('other', 1, 40), lap('one', 2, 200), lap('other', 2, 300)]
  assert.deepEqual(ratios(laps, 'other', 'one'), [2, 1.5])
})

test('the table has the quickest policy first', () => {
  const [head, first, second, ...rest] = standingsTable([lap('slow', 1, 40), lap('quick', 1, 20)], 'quick')
  assert.match(head ?? '', /^policy +TTFT mean +p50 +p90 ms +over quick, by round +cached +agreement +coverage/)
  assert.match(first ?? '', /^quick +20 +20 +20 +1\.00 /)
  assert.match(second ?? '', /^slow +40 +40 +40 +2\.00 /)
  assert.equal(rest.length, 0)
})
