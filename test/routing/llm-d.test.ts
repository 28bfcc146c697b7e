import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createProfile, type ProfileChoice } from '../../src/routing/catalogue.ts'
import type { Dispatch, PolicyRequest } from '../../src/routing/policy.ts'
import { InFlightCounters } from '../../src/workers/fleet.ts'
import type { Worker } from '../../src/workers/worker.ts'
import { seededRandom } from '../support/random.ts'
import { aDispatch, aRequest, aWorker, candidatesOf } from '../support/routing.ts'

interface World {
  readonly workers: readonly Worker[]
  readonly gpuBlocks?: readonly number[]
  /** Requests and uncached prompt tokens in flight. */
  readonly inFlight?: readonly (readonly [requests: number, tokens: number])[]
  readonly promptTokens?: number
}

function opened(choice: string | ProfileChoice, seed = 1) {
  const now = { ms: 0 }
  const profile = createProfile(choice, {
    context: { clock: () => now.ms, random: seededRandom(seed) },
    workers: 64,
    fault: (_plugin, error) => assert.fail(String(error)),
  })
  const decide = ({ workers, gpuBlocks = [], inFlight = [], promptTokens = 1600 }: World, given = {}) => {
    const counters = new InFlightCounters(64)
    for (const [slot, [requests, tokens]] of inFlight.entries()) counters.add(slot, requests, tokens, 0)
    const candidates = candidatesOf(workers, counters, gpuBlocks, promptTokens)
    const chosen = profile.choose(aRequest({ promptTokens, ...given }), candidates, candidates)
    return {
      chosen,
      scores: [...(profile.scores[0] ?? [])].slice(0, candidates.count).map((score) => Math.round(score * 1e6) / 1e6),
      kept: [...profile.keep.subarray(0, candidates.count)],
    }
  }
  return { profile, now, decide }
}

function scoresOf(type: string, parameters: object, world: World, given: Partial<PolicyRequest> = {}): number[] {
  return opened({ scorers: [{ type, parameters: { ...parameters } }] }).decide(world, given).scores
}

function keptBy(type: string, parameters: object, world: World): number[] {
  return opened({ filters: [{ type, parameters: { ...parameters } }] }).decide(world).kept
}

/** Engines with these figures. */
function engines(...figures: readonly { running?: number; waiting?: number; kvUsage?: number }[]): Worker[] {
  return figures.map((figure, index) =>
    aWorker(index, { load: { running: 0, waiting: 0, kvUsage: 0, source: 'poll', atMs: 0, ...figure } }),
  )
}

function labelled(...labels: readonly Readonly<Record<string, string>>[]): Worker[] {
  return labels.map((each, index) => aWorker(index, { labels: each }))
}

const three = [0, 1, 2].map((index) => aWorker(index))
const loads = engines(
  { waiting: 10, running: 4, kvUsage: 0.25 },
  { waiting: 2, running: 8, kvUsage: 0.5 },
  { waiting: 4, running: 5, kvUsage: 1 },
)

const formulas: readonly (readonly [string, object, World, readonly number[]])[] = [
  ['queue-scorer', {}, { workers: loads }, [0, 1, 0.75]],
  ['queue-scorer', {}, { workers: engines({ waiting: 3 }, { waiting: 3 }) }, [1, 1]],
  ['running-requests-size-scorer', {}, { workers: loads }, [1, 0, 0.75]],
  ['kv-cache-utilization-scorer', {}, { workers: loads }, [0.75, 0.5, 0]],
  ['load-aware-scorer', {}, { workers: engines({ waiting: 0 }, { waiting: 32 }, { waiting: 200 }) }, [0.5, 0.375, 0]],
  ['load-aware-scorer', { threshold: 8 }, { workers: loads }, [0, 0.375, 0.25]],
  // 100 blocks of 16 tokens.
  ['prefix-cache-scorer', {}, { workers: three, gpuBlocks: [0, 50, 25] }, [0, 0.5, 0.25]],
  [
    'prefix-cache-scorer',
    { matchLengthWeight: 1 },
    { workers: three, gpuBlocks: [0, 64, 32] },
    [0, 0.015625, 0.003906],
  ],
  [
    'prefix-cache-scorer',
    { matchLengthWeight: 0.5, matchLengthScaleTokens: 800 },
    { workers: three, gpuBlocks: [0, 50, 25] },
    [0, 0.75, 0.25],
  ],
  [
    'token-load-scorer',
    { queueThresholdTokens: 4000 },
    {
      workers: three,
      gpuBlocks: [0, 50, 0],
      inFlight: [
        [1, 1400],
        [1, 1200],
        [1, 9000],
      ],
    },
    [0.25, 0.5, 0],
  ],
  [
    'active-request-scorer',
    {},
    {
      workers: three,
      inFlight: [
        [0, 0],
        [2, 0],
        [8, 0],
      ],
    },
    [1, 0.75, 0],
  ],
  [
    'active-request-scorer',
    { idleThreshold: 2, maxBusyScore: 0.5 },
    {
      workers: three,
      inFlight: [
        [2, 0],
        [4, 0],
        [8, 0],
      ],
    },
    [1, 0.25, 0],
  ],
  [
    'context-length-aware',
    {},
    {
      workers: labelled(
        { 'llm-d.ai/context-length-range': '0-2000' },
        { 'llm-d.ai/context-length-range': '2600-9000' },
        {},
        { 'llm-d.ai/context-length-range': 'any' },
      ),
    },
    // In range: 0.3 + 0.7 × (0.7 / 1.2 + 0.3 × 400 / 2000); out of range: 0.3 / (1 + 1000 / 1000).
    [0.750333, 0.15, 0.5, 0],
  ],
  ['lora-affinity-scorer', {}, { workers: three }, [1, 1, 1]],
]

for (const [type, parameters, world, expected] of formulas) {
  test(`${type} ${JSON.stringify(parameters)} scores ${expected.join(', ')}`, () => {
    assert.deepEqual(scoresOf(type, parameters, world), expected)
  })
}

test('lora-affinity-scorer gives 1 where the adapter is loaded and 0.8 elsewhere', () => {
  const { profile } = opened({ scorers: [{ type: 'lora-affinity-scorer' }] })
  const candidates = candidatesOf(three, new InFlightCounters(64))
  candidates.hasAdapter.set([0, 1, 0])
  assert.equal(profile.choose(aRequest({ adapter: 'adapter' }), candidates, candidates), 1)
  assert.deepEqual([...(profile.scores[0] ?? [])].slice(0, 3), [0.8, 1, 0.8])
})

test('header-label-affinity-scorer gives 1 where the label has the header’s value', () => {
  const parameters = { headerName: 'X-Team', labelKey: 'team' }
  const world = { workers: labelled({ team: 'a' }, { team: 'b' }, {}) }
  const header = (name: string): string | null => (name === 'x-team' ? 'b' : null)
  assert.deepEqual(scoresOf('header-label-affinity-scorer', parameters, world, { header }), [0, 1, 0])
  assert.deepEqual(scoresOf('header-label-affinity-scorer', parameters, world), [0, 0, 0])
})

test('scores that compare candidates leave out those that a filter left out', () => {
  const { decide } = opened({
    filters: [{ type: 'by-label', parameters: { label: 'use', validValues: ['yes'] } }],
    scorers: [{ type: 'queue-scorer' }],
  })
  const [first, second, third] = engines({ waiting: 100 }, { waiting: 2 }, { waiting: 4 })
  const workers = [first, second, third].map((worker, index) => ({
    ...(worker ?? aWorker(index)),
    labels: { use: index === 0 ? 'no' : 'yes' },
  }))
  assert.deepEqual(decide({ workers }).scores, [0, 1, 0])
})

const selected: readonly (readonly [string, object, readonly number[]])[] = [
  ['label-selector-filter', { matchLabels: { tier: 'gold' } }, [1, 0, 0]],
  ['by-label-selector', { matchLabels: { tier: 'gold' } }, [1, 0, 0]],
  [
    'label-selector-filter',
    { matchExpressions: [{ key: 'tier', operator: 'In', values: ['gold', 'tin'] }] },
    [1, 1, 0],
  ],
  ['label-selector-filter', { matchExpressions: [{ key: 'tier', operator: 'NotIn', values: ['gold'] }] }, [0, 1, 1]],
  ['label-selector-filter', { matchExpressions: [{ key: 'tier', operator: 'Exists' }] }, [1, 1, 0]],
  ['label-selector-filter', { matchExpressions: [{ key: 'tier', operator: 'DoesNotExist' }] }, [0, 0, 1]],
  ['by-label', { label: 'tier', validValues: ['tin'], allowsNoLabel: true }, [0, 1, 1]],
]
for (const [type, parameters, expected] of selected) {
  test(`${type} ${JSON.stringify(parameters)} keeps what it selects`, () => {
    assert.deepEqual(keptBy(type, parameters, { workers: labelled({ tier: 'gold' }, { tier: 'tin' }, {}) }), expected)
  })
}

test('decode-filter, prefill-filter and encode-filter go by roles', () => {
  const roles = ['decode', 'prefill', 'encode', 'both', 'prefill-decode', 'encode-prefill', 'encode-prefill-decode']
  const workers = labelled(...roles.map((role) => ({ 'llm-d.ai/role': role })), {})
  assert.deepEqual(keptBy('decode-filter', {}, { workers }), [1, 0, 0, 1, 1, 0, 1, 1])
  assert.deepEqual(keptBy('prefill-filter', {}, { workers }), [0, 1, 0, 1, 1, 1, 1, 0])
  assert.deepEqual(keptBy('encode-filter', {}, { workers }), [0, 0, 1, 0, 0, 1, 1, 0])
})

test('utilization-filter leaves out workers beyond any of its limits', () => {
  const conditions = [
    { metric: 'waiting-queue', maxValue: 4 },
    { metric: 'kv-cache-utilization', maxValue: 0.9 },
  ]
  assert.deepEqual(keptBy('utilization-filter', { conditions }, { workers: loads }), [0, 1, 0])
  const active = [{ metric: 'active-requests', maxValue: 1 }]
  const inFlight = [
    [1, 0],
    [2, 0],
    [0, 0],
  ] as const
  assert.deepEqual(keptBy('utilization-filter', { conditions: active }, { workers: three, inFlight }), [1, 0, 1])
})

test('prefix-cache-affinity-filter keeps to the holders while their queue costs no more than the penalty', () => {
  const keep = (tokens: number): number[] =>
    keptBy(
      'prefix-cache-affinity-filter',
      { peakPrefillThroughput: 1000 },
      {
        workers: three,
        gpuBlocks: [80, 79, 99],
        inFlight: [
          [1, tokens],
          [1, 500],
          [1, tokens + 1],
        ],
      },
    )
  assert.deepEqual(keep(18_500), [1, 0, 1])
  assert.deepEqual(keep(18_501), [1, 1, 1])
})

test('context-length-aware as a filter leaves out workers whose range does not hold the prompt', () => {
  const workers = labelled({ range: '0-1599' }, { range: '1600-1600' }, { range: 'wide' }, {})
  assert.deepEqual(keptBy('context-length-aware', { label: 'range' }, { workers }), [0, 1, 0, 1])
})

const sentTo = (serial: number): Dispatch => aDispatch({ serial, promptTokens: 1600, uncachedTokens: 1600 })

test('no-hit-lru-scorer spreads cold prompts, the longest unused worker first, and is neutral for warm ones', () => {
  const { profile, decide } = opened({ scorers: [{ type: 'no-hit-lru-scorer' }] })
  const cold = { workers: three }
  assert.deepEqual(decide(cold).scores, [1, 0.5, 0])
  profile.dispatched(sentTo(1))
  assert.deepEqual(decide(cold).scores, [1, 0, 0.5])
  profile.dispatched(sentTo(0))
  assert.deepEqual(decide(cold).scores, [0, 0.5, 1])
  assert.deepEqual(decide({ workers: three, gpuBlocks: [1] }).scores, [0.5, 0.5, 0.5])
  profile.dispatched(sentTo(2))
  assert.deepEqual(decide(cold).scores, [0, 0.5, 1], 'a warm prompt is no use')
  assert.deepEqual(decide({ workers: three.slice(0, 1) }).scores, [1])
})

const session = { header: (name: string) => (name === 'x-session-id' ? 'one' : null) }

test('a request that its label filters leave nobody to is refused, not sent elsewhere', () => {
  const { decide } = opened({ filters: [{ type: 'decode-filter' }] })
  assert.equal(decide({ workers: labelled({ 'llm-d.ai/role': 'prefill' }) }).chosen, -1)
  const conditions = [{ metric: 'active-requests', maxValue: 0 }]
  const busy = { workers: three.slice(0, 1), inFlight: [[1, 0]] } as const
  const limited = (fallbackOnEmpty: boolean): number =>
    opened({ filters: [{ type: 'utilization-filter', parameters: { conditions, fallbackOnEmpty } }] }).decide(busy)
      .chosen
  assert.deepEqual([limited(false), limited(true)], [-1, 0])
})

test('session-affinity-scorer gives 1 to the session’s worker, until it is away or the session is forgotten', () => {
  const { profile, now, decide } = opened({ scorers: [{ type: 'session-affinity-scorer' }] })
  assert.deepEqual(decide({ workers: three }, session).scores, [0, 0, 0])
  profile.dispatched(sentTo(2))
  assert.deepEqual(decide({ workers: three }, session).scores, [0, 0, 1])
  profile.dispatched(sentTo(0))
  assert.deepEqual(decide({ workers: three }, session).scores, [0, 0, 1], 'outvoted once, not unbound')
  decide({ workers: three.slice(0, 2) }, session)
  profile.dispatched(sentTo(1))
  assert.deepEqual(decide({ workers: three }, session).scores, [0, 1, 0], 'its worker was away')
  profile.dispatched(sentTo(1))
  now.ms += 300_001
  assert.deepEqual(decide({ workers: three }, session).scores, [0, 0, 0])
})

test('session-affinity-filter leaves the session’s worker alone', () => {
  const { profile, decide } = opened({
    filters: [
      {
        type: 'session-affinity-filter',
        parameters: { sessionIdConfig: { sources: [{ header: 'X-Chat' }, { header: 'X-Session-ID' }] } },
      },
    ],
  })
  assert.deepEqual(decide({ workers: three }, session).kept, [1, 1, 1])
  profile.dispatched(sentTo(1))
  assert.deepEqual(decide({ workers: three }, session).kept, [0, 1, 0])
  assert.deepEqual(decide({ workers: three }).kept, [1, 1, 1])
})

/** Share of 6,000 choices that fall on each. */
function shares(picker: string): number[] {
  const { decide } = opened({ scorers: [{ type: 'kv-cache-utilization-scorer' }], picker: { type: picker } }, 9)
  const counts = [0, 0, 0]
  for (let i = 0; i < 6000; i++) counts[decide({ workers: loads }).chosen]!++
  return counts.map((count) => count / 6000)
}

test('max-score-picker takes the highest, random-picker any, weighted-random-picker by the totals', () => {
  assert.deepEqual(shares('max-score-picker'), [1, 0, 0])
  for (const share of shares('random-picker')) assert.ok(Math.abs(share - 1 / 3) < 0.03)
  for (const [index, share] of shares('weighted-random-picker').entries())
    assert.ok(Math.abs(share - ([0.6, 0.4, 0][index] ?? 0)) < 0.03)
})

test('llm-d without a configuration: queue 2, free memory 2, prefix 3', () => {
  const { profile, decide } = opened('llm-d')
  const { chosen } = decide({ workers: loads, gpuBlocks: [100, 0, 80] })
  assert.equal(chosen, 0)
  assert.deepEqual(
    [...profile.totals.subarray(0, 3)].map((total) => Math.round(total * 100) / 100),
    [4.5, 3, 3.9],
  )
})
