import assert from 'node:assert/strict'
import { test } from 'node:test'
import Type from 'typebox'
import { createProfile } from '../../src/routing/catalogue.ts'
import { DecisionLog } from '../../src/routing/decisions.ts'
import { definePolicy, type PolicyPlugin } from '../../src/routing/policy.ts'
import type { Profile } from '../../src/routing/profile.ts'
import { InFlightCounters } from '../../src/workers/fleet.ts'
import { seededRandom } from '../support/random.ts'
import { aRequest, aWorker, candidatesOf } from '../support/routing.ts'

const workers = [0, 1, 2].map((index) => aWorker(index))
const limits = { stallMs: 20, faults: 3, pauseMs: 1000 }

/** A scorer that prefers worker 2, and takes its time or throws as the test says. */
function scorerThat(act: () => void): PolicyPlugin {
  return definePolicy({
    kind: 'scorer',
    type: 'moody',
    description: 'Prefers the third worker.',
    parameters: Type.Object({}),
    create: () => ({
      score(_request, _fleet, _match, out) {
        act()
        out[2] = 10
      },
    }),
  })
}

function setup(plugin: PolicyPlugin, now: { ms: number }) {
  const faults: [string, boolean][] = []
  const tookMs: number[] = []
  const profile = createProfile(
    { scorers: [{ type: 'moody' }] },
    {
      context: { clock: () => now.ms, random: seededRandom(1) },
      workers: 8,
      fault: (_plugin, error, isPaused) => faults.push([String(error), isPaused]),
      observe: (type, ms) => type === 'moody' && tookMs.push(ms),
      more: [plugin],
      limits,
    },
  )
  return { profile, faults, tookMs }
}

function chosenBy(profile: Profile): number {
  const candidates = candidatesOf(workers, new InFlightCounters(64))
  return profile.choose(aRequest(), candidates, candidates)
}

test('a plugin that stalls again and again is left out for a while, and gets another chance', () => {
  const now = { ms: 0 }
  let stalls = true
  const { profile, faults, tookMs } = setup(
    scorerThat(() => (now.ms += stalls ? 50 : 1)),
    now,
  )
  for (let call = 0; call < limits.faults; call++) assert.equal(chosenBy(profile), 2)
  assert.deepEqual(
    faults.map(([, isPaused]) => isPaused),
    [false, false, true],
  )
  assert.deepEqual(tookMs, [50, 50, 50])
  for (let call = 0; call < 20; call++) chosenBy(profile)
  assert.equal(tookMs.length, 3, 'it is not called while it is left out')
  now.ms += limits.pauseMs
  stalls = false
  assert.equal(chosenBy(profile), 2)
  assert.deepEqual(tookMs, [50, 50, 50, 1])
})

test('faults with sound calls between them leave no plugin out', () => {
  const now = { ms: 0 }
  let calls = 0
  const { profile, faults } = setup(
    scorerThat(() => {
      if (++calls % 2 === 0) throw new Error('moody')
    }),
    now,
  )
  for (let call = 0; call < 20; call++) chosenBy(profile)
  assert.equal(calls, 20)
  assert.deepEqual(faults, Array<[string, boolean]>(10).fill(['Error: moody', false]))
})

const always = definePolicy({
  kind: 'fallback',
  type: 'always',
  reason: 'because',
  description: 'Applies.',
  parameters: Type.Object({}),
  create: () => ({ applies: () => true }),
})
const notTheFirst = definePolicy({
  kind: 'filter',
  type: 'not-the-first',
  reason: 'first_refused',
  description: 'Leaves out the first worker.',
  parameters: Type.Object({}),
  create: () => ({
    filter(_request, _fleet, _match, keep) {
      keep[0] = 0
    },
  }),
})

test('where a fallback applies its profile chooses, among what the filters left, and the decision says why', () => {
  const profile = createProfile(
    {
      name: 'mine',
      filters: [{ type: 'not-the-first' }],
      fallbacks: [{ type: 'always', use: { name: 'other', scorers: [{ type: 'prefix' }] } }],
      scorers: [{ type: 'least-requests' }],
    },
    {
      context: { clock: () => 0, random: seededRandom(1) },
      workers: 8,
      fault: (plugin, error) => assert.fail(`${plugin}: ${String(error)}`),
      more: [always, notTheFirst],
    },
  )
  const counters = new InFlightCounters(64)
  counters.add(2, 5, 0, 0)
  const candidates = candidatesOf(workers, counters, [30, 10, 20])
  assert.equal(profile.choose(aRequest(), candidates, candidates), 2)
  assert.equal(profile.fallback, 'because')
  const log = new DecisionLog(4, 8)
  log.keep(
    {
      ...{ requestId: 'r', pool: 'p', model: 'm', attempt: 1, timeMs: 0, promptTokens: 1000, blocks: 62, chosen: 2 },
      ...{ reason: 'fallback', fallback: 'because', predictedCachedTokens: 320 },
      ...{ tokenizeUs: 0, keysUs: 0, matchUs: 0, chooseUs: 0 },
    },
    candidates,
    profile,
  )
  const [record] = log.latest(1)
  assert.equal(record?.profile, 'mine')
  assert.equal(record.usedProfile, 'other')
  assert.deepEqual(
    record.candidates.map(({ filteredBy }) => filteredBy),
    ['not-the-first', undefined, undefined],
  )
  assert.deepEqual(Object.keys(record.candidates[1]?.scores ?? {}), ['prefix'])
})

test('a filter with a reason that leaves out the longest match is told, and not when it leaves out another', () => {
  const profile = createProfile(
    { filters: [{ type: 'not-the-first' }] },
    {
      context: { clock: () => 0, random: seededRandom(1) },
      workers: 8,
      fault: (plugin, error) => assert.fail(`${plugin}: ${String(error)}`),
      more: [notTheFirst],
    },
  )
  const fallbackFor = (gpuBlocks: readonly number[]): string | null => {
    const candidates = candidatesOf(workers, new InFlightCounters(64), gpuBlocks)
    profile.choose(aRequest(), candidates, candidates)
    return profile.fallback
  }
  assert.equal(fallbackFor([30, 10, 20]), 'first_refused')
  assert.equal(fallbackFor([10, 30, 20]), null)
})
