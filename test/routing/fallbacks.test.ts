import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createProfile, type ProfileChoice } from '../../src/routing/catalogue.ts'
import { InFlightCounters } from '../../src/workers/fleet.ts'
import type { MeasuredLoad } from '../../src/workers/load.ts'
import type { Worker } from '../../src/workers/worker.ts'
import { seededRandom } from '../support/random.ts'
import { aDispatch, aRequest, aWorker, candidatesOf } from '../support/routing.ts'

interface Given {
  readonly workers?: readonly Worker[]
  /** Blocks of 16 tokens on the GPU. */
  readonly gpuBlocks?: readonly number[]
  readonly coming?: readonly number[]
  readonly prefillTokens?: readonly number[]
  readonly promptTokens?: number
  readonly session?: string
  /** Worker that had the session's last request. */
  readonly boundTo?: number
  readonly headers?: Readonly<Record<string, string>>
}

/** Who is chosen, and under which reason it counts as a fallback. */
function decided(choice: ProfileChoice, given: Given): readonly [number, string | null] {
  const { workers = [aWorker(0), aWorker(1), aWorker(2)], gpuBlocks = [], promptTokens = 1600, coming = [] } = given
  const profile = createProfile(choice, {
    context: { clock: () => 0, random: seededRandom(1) },
    workers: 64,
    fault: (plugin, error) => assert.fail(`${plugin}: ${String(error)}`),
  })
  const counters = new InFlightCounters(64)
  for (const [slot, tokens] of (given.prefillTokens ?? []).entries()) counters.add(slot, tokens > 0 ? 1 : 0, tokens, 0)
  const candidates = candidatesOf(workers, counters, gpuBlocks, promptTokens, coming)
  const { session = null, boundTo, headers = {} } = given
  if (boundTo !== undefined) profile.dispatched(aDispatch({ serial: boundTo, session }))
  const request = aRequest({ promptTokens, session, header: (name) => headers[name] ?? null })
  return [profile.choose(request, candidates, candidates), profile.fallback]
}

const load = (kvUsage: number, atMs = 0): MeasuredLoad => ({ running: 1, waiting: 0, kvUsage, source: 'poll', atMs })
const byMatch = { scorers: [{ type: 'prefix', weight: 100 }] }

test('a match that is too short leaves the choice to load', () => {
  const choice = { ...byMatch, fallbacks: [{ type: 'short-match', parameters: { leastTokens: 512 } }] }
  const busy = { prefillTokens: [100, 100, 0] }
  assert.deepEqual(decided(choice, { ...busy, gpuBlocks: [31] }), [2, 'match_short'])
  assert.deepEqual(decided(choice, { ...busy, gpuBlocks: [32] }), [0, null])
  assert.deepEqual(decided(choice, { ...busy, gpuBlocks: [16], coming: [16] }), [0, null], 'what is coming counts')
  const byShare = { ...byMatch, fallbacks: [{ type: 'short-match', parameters: { leastTokens: 0, leastShare: 0.5 } }] }
  assert.deepEqual(decided(byShare, { ...busy, gpuBlocks: [49] }), [2, 'match_short'])
  assert.deepEqual(decided(byShare, { ...busy, gpuBlocks: [50] }), [0, null])
})

test('a worker whose queue takes longer than computing the prompt elsewhere is left, and its match counted as lost', () => {
  const choice = { ...byMatch, filters: [{ type: 'match-wait', parameters: { marginMs: 0 } }] }
  // Worker 0 saves 800 of 1,600 tokens.
  assert.deepEqual(decided(choice, { gpuBlocks: [50], prefillTokens: [800, 0, 0] }), [0, null])
  const [chosen, reason] = decided(choice, { gpuBlocks: [50], prefillTokens: [801, 0, 100] })
  assert.deepEqual([chosen, reason], [1, 'match_loaded'])
  const wide = { ...byMatch, filters: [{ type: 'match-wait', parameters: { marginMs: 10 } }] }
  assert.deepEqual(decided(wide, { gpuBlocks: [50], prefillTokens: [880, 0, 0] }), [0, null], '10 ms are 80 tokens')
})

test('a worker whose KV memory has no room is left out, and one that does not tell is not', () => {
  const choice = { ...byMatch, filters: [{ type: 'kv-memory' }] }
  const workersWith = (kvUsage: number): Worker[] => [aWorker(0, { load: load(kvUsage) }), aWorker(1), aWorker(2)]
  // 1,000 blocks of 16 tokens: a tenth is just enough for what is not cached of 1,600 + 320 tokens.
  const given = { gpuBlocks: [20], promptTokens: 1920 }
  assert.deepEqual(decided(choice, { ...given, workers: workersWith(0.89) }), [0, null])
  assert.equal(decided(choice, { ...given, workers: workersWith(0.91) })[1], 'kv_memory_full')
  assert.equal(decided(choice, { ...given, workers: workersWith(0.98), promptTokens: 340 })[1], 'kv_memory_full')
})

test('stale figures of too many workers leave the choice to the router’s own counts', () => {
  const choice = { ...byMatch, fallbacks: [{ type: 'stale-load', parameters: { maxAgeMs: 500, share: 0.6 } }] }
  const workers = (fresh: number): Worker[] =>
    [0, 1, 2].map((index) => aWorker(index, { load: load(0.5, index < fresh ? 0 : -501) }))
  const given = { gpuBlocks: [50], prefillTokens: [10, 10, 0] }
  assert.deepEqual(decided(choice, { ...given, workers: workers(2) }), [0, null])
  assert.deepEqual(decided(choice, { ...given, workers: workers(1) }), [2, 'load_stale'])
  assert.deepEqual(decided(choice, given), [2, 'load_stale'], 'a worker that tells nothing is stale')
})

test('while every queue is too long the choice goes to the fewest requests', () => {
  const choice = { ...byMatch, fallbacks: [{ type: 'all-saturated', parameters: { waitMs: 1000 } }] }
  assert.deepEqual(decided(choice, { gpuBlocks: [50], prefillTokens: [9000, 9000, 7999] }), [0, null])
  assert.equal(decided(choice, { gpuBlocks: [50], prefillTokens: [9000, 9000, 8000] })[1], 'all_saturated')
})

test('of several fallbacks the first that applies chooses', () => {
  const choice = {
    ...byMatch,
    fallbacks: [
      { type: 'all-saturated', parameters: { waitMs: 1000 } },
      { type: 'short-match', use: 'round-robin' },
    ],
  }
  assert.deepEqual(decided(choice, {}), [0, 'match_short'])
  assert.equal(decided(choice, { prefillTokens: [9000, 9000, 9000] })[1], 'all_saturated')
})

test('what a session, a pin or a limit on requests keeps from the longest match is counted under a reason of its own', () => {
  const held = { gpuBlocks: [50, 0, 0], session: 'a' }
  const bound = { ...byMatch, filters: [{ type: 'session-affinity' }] }
  assert.deepEqual(decided(bound, { ...held, boundTo: 2 }), [2, 'session_elsewhere'])
  assert.deepEqual(decided(bound, { ...held, boundTo: 0 }), [0, null])
  const pinned = { ...byMatch, filters: [{ type: 'pinned-worker' }] }
  assert.deepEqual(decided(pinned, { ...held, headers: { 'x-warmroute-pin': aWorker(1).id } }), [1, 'pinned_elsewhere'])
  const limited = { ...byMatch, filters: [{ type: 'request-limit', parameters: { maxRequests: 1 } }] }
  const [chosen, reason] = decided(limited, { ...held, prefillTokens: [10, 0, 0] })
  assert.ok(chosen > 0)
  assert.equal(reason, 'requests_full')
})
