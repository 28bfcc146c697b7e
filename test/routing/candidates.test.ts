import assert from 'node:assert/strict'
import { test } from 'node:test'
import { InFlightCounters } from '../../src/workers/fleet.ts'
import { aWorker, candidatesOf } from '../support/routing.ts'
import { Candidates } from '../../src/routing/candidates.ts'
import { reasonOf } from '../../src/routing/reason.ts'

test('credit stops one token short of the prompt, since engines always compute the last one', () => {
  const [worker] = [aWorker(0)]
  const cached = (blocks: number, promptTokens: number): number =>
    candidatesOf([worker], new InFlightCounters(4), [blocks], promptTokens).cachedTokens[0]!
  assert.equal(cached(4, 64), 48)
  assert.equal(cached(4, 65), 64)
  assert.equal(cached(2, 65), 32)
  assert.equal(cached(0, 65), 0)
})

test('a degraded worker or one of unknown block size gets no credit', () => {
  const workers = [aWorker(0, { degraded: 'tokenizer_differs' }), aWorker(1, { blockSize: null }), aWorker(2)]
  const candidates = candidatesOf(workers, new InFlightCounters(4), [4, 4, 4])
  assert.deepEqual([...candidates.cachedTokens.subarray(0, 3)], [0, 0, 64])
})

test('what is coming counts apart from what is cached, capped with it, and not for a degraded worker', () => {
  const workers = [aWorker(0), aWorker(1), aWorker(2, { degraded: 'predictions_fail' }), aWorker(3, { exact: false })]
  const candidates = candidatesOf(workers, new InFlightCounters(64), [1, 3, 1, 0], 64, [1, 1, 2, 9])
  assert.deepEqual([...candidates.cachedTokens.subarray(0, 4)], [16, 48, 0, 0])
  assert.deepEqual([...candidates.comingTokens.subarray(0, 4)], [16, 0, 0, 48])
})

test('the reason says where the longest match comes from', () => {
  const workers = [aWorker(0), aWorker(1, { exact: false }), aWorker(2)]
  const candidates = candidatesOf(workers, new InFlightCounters(64), [5, 5, 2], 160, [0, 0, 3])
  assert.deepEqual(
    [0, 1, 2].map((chosen) => reasonOf(candidates, chosen, null).reason),
    ['longest_match', 'approximate_match', 'match_coming'],
  )
  const shorter = candidatesOf(workers, new InFlightCounters(64), [5, 4, 2], 160, [0, 0, 4])
  assert.equal(reasonOf(shorter, 1, null).reason, 'match_outweighed')
})

test('load figures older than the limit are not used', () => {
  const load = { running: 3, waiting: 1, kvUsage: 0.5, source: 'poll' as const, atMs: 0 }
  const candidates = new Candidates(8)
  const none = new Uint32Array(8)
  const gather = (nowMs: number): number => {
    candidates.gather(
      [aWorker(0, { load })],
      new InFlightCounters(8),
      { gpu: none, host: none, disk: none, shared: none, coming: none },
      { nowMs, staleLoadMs: 1000, promptTokens: 10 },
    )
    return candidates.running[0]!
  }
  assert.equal(gather(900), 3)
  assert.ok(Number.isNaN(gather(1100)))
})
