import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Candidates } from '../../src/routing/candidates.ts'
import { createProfile } from '../../src/routing/catalogue.ts'
import { heldBlocks } from '../../src/routing/held-blocks.ts'
import { TierCredit, type TierSettings } from '../../src/routing/tier-credit.ts'
import { InFlightCounters } from '../../src/workers/fleet.ts'
import { seededRandom } from '../support/random.ts'
import { aRequest, aWorker } from '../support/routing.ts'

const GB = 1e9
const near = (actual: number, expected: number): void =>
  assert(Math.abs(actual - expected) < 0.005, `${actual} is not ${expected}`)

test('credit is the share of the prefill time that loading leaves', () => {
  // 131,072 bytes a token and 10,000 tokens a second: 256 tokens are 32 MiB and take 25.6 ms to compute.
  const credit = new TierCredit({
    bytesPerToken: 131_072,
    host: { bytesPerSecond: 25 * GB },
    disk: { bytesPerSecond: 5 * GB },
    shared: { bytesPerSecond: 1.2 * GB },
  })
  near(credit.of('host', 0.1), 0.95)
  near(credit.of('disk', 0.1), 0.74)
  assert.equal(credit.of('shared', 0.1), 0, 'computing again is faster')
  near(credit.of('host', 0.01), 0.48)
})

test('without speeds each tier has its standard credit, and a configured one goes before both', () => {
  const standard = new TierCredit()
  assert.deepEqual(
    (['host', 'disk', 'shared'] as const).map((tier) => standard.of(tier)),
    [0.8, 0.5, 0.4],
  )
  assert.equal(new TierCredit({ bytesPerToken: 1, host: { credit: 0.3, bytesPerSecond: GB } }).of('host'), 0.3)
  assert.equal(new TierCredit({ host: { bytesPerSecond: GB } }).of('host'), 0.8, 'a speed means nothing without bytes')
})

/** Two workers that hold 80 and 20 of a prompt's blocks, of which the shared store holds the first 100. */
function twoWorkers(settings: TierSettings) {
  const candidates = new Candidates(2, new TierCredit(settings))
  const match = {
    gpu: Uint32Array.of(80, 20),
    host: new Uint32Array(2),
    disk: new Uint32Array(2),
    shared: Uint32Array.of(20, 80),
    coming: new Uint32Array(2),
  }
  const workers = [aWorker(0, { blockSize: 1 }), aWorker(1, { blockSize: 1 })]
  candidates.gather(workers, new InFlightCounters(2), match, { nowMs: 0, staleLoadMs: 0, promptTokens: 101 })
  return candidates
}

test('the shared store lifts every worker towards its end by the one factor', () => {
  for (const [credit, expected] of [
    [0, [80, 20]],
    [0.4, [88, 52]],
    [1, [100, 100]],
  ] as const) {
    const candidates = twoWorkers({ shared: { credit } })
    assert.deepEqual([candidates.creditTokens(0), candidates.creditTokens(1)], expected)
    assert.deepEqual([...candidates.cachedTokens], [100, 100], 'what the engine will report does not depend on it')
  }
})

test('what would hold the prompt’s last token is taken off from the slowest tier', () => {
  const credit = new TierCredit()
  const tokens = { gpu: 16, host: 16, disk: 16, shared: 16 }
  near(credit.worth(tokens, 64), 16 + 0.8 * 16 + 0.5 * 16 + 0.4 * 16)
  near(credit.worth(tokens, 48), 16 + 0.8 * 16 + 0.5 * 16)
  near(credit.worth(tokens, 20), 16 + 0.8 * 4)
  assert.equal(credit.worth(tokens, 0), 0)
})

test('credit never falls as blocks are added, nor as a tier comes nearer', () => {
  const random = seededRandom(5)
  for (let round = 0; round < 1000; round++) {
    const credit = new TierCredit({
      bytesPerToken: 1e5,
      host: { bytesPerSecond: 2e10 },
      disk: { bytesPerSecond: 5e9 },
      shared: { bytesPerSecond: 2e9 },
    })
    const count = (): number => Math.floor(random() * 100)
    const tokens = { gpu: count(), host: count(), disk: count(), shared: count() }
    const worth = credit.worth(tokens, 1000)
    assert(credit.worth({ ...tokens, shared: tokens.shared + 1 }, 1000) >= worth)
    if (tokens.host > 0) {
      assert(credit.worth({ ...tokens, gpu: tokens.gpu + 1, host: tokens.host - 1 }, 1000) >= worth)
    }
    assert(worth <= tokens.gpu + tokens.host + tokens.disk + tokens.shared)
  }
})

function choose(candidates: Candidates): number {
  const profile = createProfile('kv-aware', {
    context: { clock: () => 0, random: seededRandom(3) },
    workers: 2,
    fault: (plugin, error) => assert.fail(`${plugin}: ${String(error)}`),
  })
  return profile.choose(aRequest({ promptTokens: 4096 }), candidates, candidates)
}

function gathered(match: Partial<Record<'gpu' | 'host' | 'disk' | 'shared', readonly number[]>>, busy = 0): Candidates {
  const counters = new InFlightCounters(2)
  if (busy > 0) counters.add(0, 1, busy, 0)
  const candidates = new Candidates(2)
  const held = (blocks: readonly number[] = [0, 0]): Uint32Array => Uint32Array.from(blocks)
  const bySlot = {
    gpu: held(match.gpu),
    host: held(match.host),
    disk: held(match.disk),
    shared: held(match.shared),
    coming: held(),
  }
  const options = { nowMs: 0, staleLoadMs: 0, promptTokens: 4096 }
  candidates.gather([aWorker(0), aWorker(1)], counters, bySlot, options)
  return candidates
}

test('a worker with the prefix on its GPU goes before one that has it in its host memory, and that before disk', () => {
  assert.equal(choose(gathered({ gpu: [0, 200], host: [200, 0] })), 1)
  assert.equal(choose(gathered({ host: [0, 200], disk: [200, 0] })), 1)
})

test('a prefix that only the shared store holds pulls no traffic to anyone', () => {
  assert.equal(choose(gathered({ shared: [200, 200] }, 500)), 1, 'the idle one')
  assert.equal(choose(gathered({ gpu: [0, 30], shared: [200, 170] })), 1, 'the one with the head on its GPU')
})

test('chunks add to a run what they reach beyond it', () => {
  const bySlot = {
    gpu: Uint32Array.of(10, 0, 0),
    host: Uint32Array.of(0, 2, 0),
    disk: Uint32Array.of(0, 1, 0),
    shared: Uint32Array.of(3, 0, 5),
  }
  const out = { gpu: 0, host: 0, disk: 0, shared: 0, toldRun: 0 }
  const worker = { slot: 0, blockSize: 16, chunks: { slot: 1, blockSize: 256 }, lookedUp: null }
  assert.deepEqual(heldBlocks(worker, [{ slot: 2, blockSize: 256 }], bySlot, out), {
    gpu: 10,
    host: 22,
    disk: 16,
    shared: 32,
    toldRun: 48,
  })
  assert.deepEqual(heldBlocks({ ...worker, chunks: null }, [], bySlot, out), {
    gpu: 10,
    host: 0,
    disk: 0,
    shared: 3,
    toldRun: 10,
  })
})
