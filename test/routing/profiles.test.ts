import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RouterError } from '../../src/errors.ts'
import { createProfile, type ProfileChoice } from '../../src/routing/catalogue.ts'
import { definePolicy, type Dispatch } from '../../src/routing/policy.ts'
import type { Profile } from '../../src/routing/profile.ts'
import { InFlightCounters } from '../../src/workers/fleet.ts'
import Type from 'typebox'
import { seededRandom } from '../support/random.ts'
import { aDispatch, aRequest, aWorker, candidatesOf } from '../support/routing.ts'

interface Setup {
  profile: Profile
  faults: string[]
  now: { ms: number }
}

function profileNamed(chosen: string | ProfileChoice, seed = 1): Setup {
  const now = { ms: 0 }
  const faults: string[] = []
  const profile = createProfile(chosen, {
    context: { clock: () => now.ms, random: seededRandom(seed) },
    workers: 64,
    fault: (plugin) => faults.push(plugin),
  })
  return { profile, faults, now }
}

function dispatchTo(serial: number, given: Partial<Dispatch> = {}): Dispatch {
  return aDispatch({ serial, ...given })
}

const workers = [0, 1, 2, 3].map((index) => aWorker(index))

test('kv-aware takes the worker with the longest cached prefix while nobody is busy', () => {
  const { profile } = profileNamed('kv-aware')
  const candidates = candidatesOf(workers, new InFlightCounters(64), [0, 10, 40, 20])
  assert.equal(profile.choose(aRequest(), candidates, candidates), 2)
})

test('kv-aware leaves the warm worker when its queue costs more than the prefix saves', () => {
  const { profile } = profileNamed('kv-aware')
  const counters = new InFlightCounters(64)
  counters.add(2, 3, 8000, 0)
  const candidates = candidatesOf(workers, counters, [0, 0, 40, 0])
  assert.notEqual(profile.choose(aRequest(), candidates, candidates), 2)
})

/** Worker 1 is computing 640 tokens that a prompt of so many begins with; the others have so many queued. */
function amidComputing(promptTokens: number, queuedElsewhere: number): number {
  const counters = new InFlightCounters(64)
  counters.add(1, 1, 640, 0)
  for (const slot of [0, 2, 3]) counters.add(slot, 1, queuedElsewhere, 0)
  const candidates = candidatesOf(workers, counters, [], promptTokens, [0, 40])
  return profileNamed('kv-aware').profile.choose(aRequest({ promptTokens }), candidates, candidates)
}

test('kv-aware waits for a prefix that is coming while all are busy, and has it computed twice while somebody is idle', () => {
  assert.equal(amidComputing(1600, 640), 1)
  assert.notEqual(amidComputing(1600, 0), 1)
  assert.notEqual(amidComputing(1600, 100), 1)
})

test('kv-aware sends an equal prompt after the one that is under way, up to a quarter of its length of queue', () => {
  assert.equal(amidComputing(650, 0), 1)
  const counters = new InFlightCounters(64)
  counters.add(1, 1, 640 + 200, 0)
  const candidates = candidatesOf(workers, counters, [], 650, [0, 40])
  const { profile } = profileNamed('kv-aware')
  assert.notEqual(profile.choose(aRequest({ promptTokens: 650 }), candidates, candidates), 1)
})

test('kv-aware counts the requests of others that an engine reports, those that wait as much as its own usual ones', () => {
  const { profile } = profileNamed('kv-aware')
  for (const serial of [0, 1, 2, 3]) profile.dispatched(dispatchTo(serial, { uncachedTokens: 800, stream: false }))
  const load = (foreignRequests: number, foreignWaiting: number) => ({
    load: { running: 9, waiting: 9, kvUsage: 0.1, source: 'poll' as const, atMs: 0, foreignRequests, foreignWaiting },
  })
  const choose = (given: readonly object[], gpuBlocks: readonly number[]) => {
    const candidates = candidatesOf(
      given.map((each, index) => aWorker(index, each)),
      new InFlightCounters(64),
      gpuBlocks,
    )
    return profile.choose(aRequest(), candidates, candidates)
  }
  assert.equal(choose([load(0, 0), load(4, 0)], [0, 0]), 0)
  assert.equal(choose([load(1, 1), load(0, 0)], [40, 0]), 1)
  assert.equal(choose([load(1, 0), load(0, 0)], [40, 0]), 0)
})

test('kv-aware prefers the worker that it has learned to be faster', () => {
  const { profile, now } = profileNamed('kv-aware')
  for (let i = 0; i < 40; i++) {
    for (const [serial, msPerToken] of [
      [0, 0.5],
      [1, 0.05],
    ] as const) {
      const dispatch = dispatchTo(serial, { atMs: now.ms, uncachedTokens: 500 + 50 * i })
      profile.dispatched(dispatch)
      now.ms += dispatch.uncachedTokens * msPerToken
      profile.firstByte(dispatch, dispatch.uncachedTokens * msPerToken)
      profile.finished(dispatch)
    }
  }
  now.ms += 120_000
  const candidates = candidatesOf(workers.slice(0, 2), new InFlightCounters(64))
  for (let i = 0; i < 20; i++) assert.equal(profile.choose(aRequest(), candidates, candidates), 1)
})

test('kv-aware takes off what the head of a queue must have prefilled since', () => {
  const { profile, now } = profileNamed('kv-aware')
  const counters = new InFlightCounters(64)
  // Both workers have the same tokens outstanding, but worker 0 was sent them long ago.
  profile.dispatched(dispatchTo(0, { atMs: 0, uncachedTokens: 4000 }))
  now.ms = 400
  profile.dispatched(dispatchTo(1, { atMs: 400, uncachedTokens: 4000 }))
  counters.add(0, 1, 4000, 0)
  counters.add(1, 1, 4000, 0)
  const candidates = candidatesOf(workers.slice(0, 2), counters)
  assert.equal(profile.choose(aRequest(), candidates, candidates), 0)
})

for (const name of ['kv-aware', 'least-loaded', 'round-robin']) {
  test(`${name}: 40 cold prompts sent one at a time leave no worker of 4 with more than 35 %`, () => {
    const { profile, now } = profileNamed(name, 7)
    const sent = [0, 0, 0, 0]
    for (let i = 0; i < 40; i++) {
      const candidates = candidatesOf(workers, new InFlightCounters(64))
      const chosen = profile.choose(aRequest({ promptTokens: 300 + 100 * (i % 5) }), candidates, candidates)
      sent[chosen]!++
      const dispatch = dispatchTo(chosen, { atMs: now.ms, promptTokens: 300 + 100 * (i % 5) })
      profile.dispatched(dispatch)
      now.ms += 50
      profile.firstByte(dispatch, 50)
      profile.finished(dispatch)
    }
    assert.ok(Math.max(...sent) <= 14, `sent ${sent.join(', ')}`)
  })
}

test('ties go to the worker with the fewest prompt tokens sent in the last minute, then the least recently chosen', () => {
  const { profile, now } = profileNamed('kv-aware')
  profile.dispatched(dispatchTo(0, { stream: false, promptTokens: 10 }))
  profile.dispatched(dispatchTo(1, { stream: false, promptTokens: 500 }))
  const two = workers.slice(0, 2)
  const candidates = candidatesOf(two, new InFlightCounters(64))
  assert.equal(profile.choose(aRequest(), candidates, candidates), 0)
  profile.dispatched(dispatchTo(0, { stream: false, promptTokens: 10 }))
  now.ms = 61_000
  assert.equal(
    profile.choose(aRequest(), candidates, candidates),
    1,
    'after the window only the order of choice counts',
  )
})

test('a worker that joins, or was kept out for a while, is not made up to for what was sent in its absence', () => {
  const { profile, now } = profileNamed('kv-aware')
  const sent = new Map<number, number>()
  const choose = (present: readonly number[]): void => {
    const candidates = candidatesOf(
      present.map((index) => workers[index]!),
      new InFlightCounters(64),
    )
    const serial = candidates.serials[profile.choose(aRequest(), candidates, candidates)]!
    profile.dispatched(dispatchTo(serial, { stream: false, promptTokens: 100 }))
    sent.set(serial, (sent.get(serial) ?? 0) + 1)
    now.ms += 50
  }
  for (let i = 0; i < 90; i++) choose([0, 1, 2])
  for (let i = 0; i < 90; i++) choose(i % 3 === 0 ? [0, 1, 2, 3] : [0, 1, 2])
  sent.clear()
  for (let i = 0; i < 40; i++) choose([0, 1, 2, 3])
  assert.ok(
    [...sent.values()].every((count) => count >= 8 && count <= 12),
    [...sent].join(' '),
  )
})

test('round-robin goes on after the worker that was sent to last, whatever joins or leaves', () => {
  const { profile } = profileNamed('round-robin')
  const choose = (present: readonly number[]): number => {
    const candidates = candidatesOf(
      present.map((index) => workers[index]!),
      new InFlightCounters(64),
    )
    const serial = candidates.serials[profile.choose(aRequest(), candidates, candidates)]!
    profile.dispatched(dispatchTo(serial))
    return serial
  }
  assert.deepEqual(
    [choose([0, 1, 2]), choose([0, 1, 2]), choose([0, 2, 3]), choose([0, 2, 3]), choose([0, 1, 2])],
    [0, 1, 2, 3, 0],
  )
})

test('random sends every worker its share', () => {
  const { profile } = profileNamed('random', 42)
  const sent = [0, 0, 0, 0]
  for (let i = 0; i < 4000; i++) {
    const candidates = candidatesOf(workers, new InFlightCounters(64))
    sent[profile.choose(aRequest(), candidates, candidates)]!++
  }
  for (const count of sent) assert.ok(Math.abs(count - 1000) < 150, `sent ${sent.join(', ')}`)
})

test('power-of-two never takes the busiest worker and sometimes takes the second', () => {
  const { profile } = profileNamed('power-of-two', 3)
  const counters = new InFlightCounters(64)
  for (const [slot, requests] of [
    [0, 5],
    [1, 1],
    [2, 3],
    [3, 9],
  ] as const)
    counters.add(slot, requests, 0, 0)
  const sent = [0, 0, 0, 0]
  for (let i = 0; i < 3000; i++) {
    const candidates = candidatesOf(workers, counters)
    sent[profile.choose(aRequest(), candidates, candidates)]!++
  }
  assert.equal(sent[3], 0)
  // Of the six pairs worker 1 wins three, worker 2 two and worker 0 one.
  for (const [index, share] of [
    [1, 0.5],
    [2, 1 / 3],
    [0, 1 / 6],
  ] as const)
    assert.ok(Math.abs(sent[index]! / 3000 - share) < 0.04, `sent ${sent.join(', ')}`)
})

test('least-loaded takes the worker with the fewest requests in flight', () => {
  const { profile } = profileNamed('least-loaded')
  const counters = new InFlightCounters(64)
  for (const [slot, requests] of [
    [0, 5],
    [1, 2],
    [2, 3],
    [3, 9],
  ] as const)
    counters.add(slot, requests, 0, 0)
  const candidates = candidatesOf(workers, counters)
  assert.equal(profile.choose(aRequest(), candidates, candidates), 1)
})

test('a filter that refuses everyone is void, and one that refuses some is recorded', () => {
  const { profile } = profileNamed({
    filters: [{ type: 'request-limit', parameters: { maxRequests: 2 } }],
    picker: { type: 'best-score' },
  })
  const counters = new InFlightCounters(64)
  for (const slot of [0, 1, 2]) counters.add(slot, 2, 0, 0)
  let candidates = candidatesOf(workers, counters)
  assert.equal(profile.choose(aRequest(), candidates, candidates), 3)
  assert.deepEqual([...profile.filteredBy.subarray(0, 4)], [0, 0, 0, -1])
  counters.add(3, 2, 0, 0)
  candidates = candidatesOf(workers, counters)
  profile.choose(aRequest(), candidates, candidates)
  assert.deepEqual([...profile.keep.subarray(0, 4)], [1, 1, 1, 1])
})

test('a plugin that throws or answers nonsense is counted and skipped, and the request goes on', () => {
  const faults: string[] = []
  const throwing = definePolicy({
    kind: 'scorer',
    type: 'throwing',
    description: 'Throws.',
    parameters: Type.Object({}),
    create: () => ({
      score() {
        throw new Error('plugin')
      },
    }),
  })
  const lost = definePolicy({
    kind: 'picker',
    type: 'lost',
    description: 'Picks nobody.',
    parameters: Type.Object({}),
    create: () => ({ pick: () => 99 }),
  })
  const profile = createProfile(
    { scorers: [{ type: 'throwing' }, { type: 'prefix' }], picker: { type: 'lost' } },
    {
      context: { clock: () => 0, random: () => 0 },
      workers: 64,
      fault: (plugin) => faults.push(plugin),
      more: [throwing, lost],
    },
  )
  const candidates = candidatesOf(workers, new InFlightCounters(64), [0, 3, 0, 0])
  assert.equal(profile.choose(aRequest(), candidates, candidates), 1)
  assert.deepEqual(faults, ['throwing', 'lost'])
})

test('an unknown policy, plugin or parameter is a config error that names it', () => {
  const faultOf = (chosen: string | ProfileChoice): string => {
    try {
      profileNamed(chosen)
    } catch (error) {
      assert.ok(error instanceof RouterError && error.code === 'CONFIG_INVALID')
      return error.message
    }
    return 'no fault'
  }
  assert.match(faultOf('kv-awre'), /unknown policy "kv-awre"; did you mean "kv-aware"\?/)
  assert.match(
    faultOf({ scorers: [{ type: 'prefix' }, { type: 'predicted-tft' }] }),
    /^profile\.scorers\[1\]: no scorer named "predicted-tft"; did you mean "predicted-ttft"\?/,
  )
  assert.match(faultOf({ filters: [{ type: 'prefix' }] }), /no filter named "prefix"; it is a scorer/)
  const withParameters = (type: string, parameters: Record<string, unknown>): string =>
    faultOf({ name: 'mine', scorers: [{ type, parameters }] })
  assert.match(
    withParameters('predicted-ttft', { prefillTokensPerSecond: -1 }),
    /^mine\.scorers\[0\] \("predicted-ttft"\): prefillTokensPerSecond: must be > 0, not -1$/,
  )
  assert.match(
    withParameters('predicted-ttft', { prefillTokensPerSec: 1 }),
    /unknown parameter "prefillTokensPerSec"; did you mean "prefillTokensPerSecond"\?/,
  )
  assert.match(withParameters('label-preference', { label: 'zone' }), /give "value", "header" or both/)
  const hashed = (by: unknown): string => faultOf({ picker: { type: 'bounded-hash', parameters: { by } } })
  assert.match(hashed(['sesion']), /by\[0\]: "sesion" is not one of session, user, key, prefix/)
  assert.match(hashed([]), /by: /)
  assert.match(
    faultOf({
      fallbacks: [{ type: 'short-match', use: { filters: [{ type: 'label', parameters: { label: 'zone' } }] } }],
    }),
    /^profile\.fallbacks\[0\]\.use\.filters\[0\] \("label"\): give "value", "header" or both$/,
  )
})

test('least-requests and prefix score as their names say', () => {
  const { profile } = profileNamed({
    scorers: [
      { type: 'least-requests', weight: 2 },
      { type: 'prefix', weight: 10 },
    ],
  })
  const counters = new InFlightCounters(64)
  counters.add(0, 3, 0, 0)
  const candidates = candidatesOf(workers.slice(0, 2), counters, [0, 20], 640)
  profile.choose(aRequest({ promptTokens: 640 }), candidates, candidates)
  assert.deepEqual(
    [...profile.scores[0]!.subarray(0, 2)].map((score) => score + 0),
    [-3, 0],
  )
  assert.deepEqual([...profile.scores[1]!.subarray(0, 2)], [0, 0.5])
  assert.deepEqual([...profile.totals.subarray(0, 2)], [-6, 5])
})

test('a warm worker wins a tie, however little its prefix saves, and a shared first block does not', () => {
  const { profile } = profileNamed({
    scorers: [{ type: 'predicted-ttft', parameters: { prefillTokensPerSecond: 10_000_000 } }],
    picker: { type: 'best-score' },
  })
  profile.dispatched(dispatchTo(1, { stream: false }))
  const choose = (gpuBlocks: readonly number[]): number => {
    const candidates = candidatesOf(workers.slice(0, 2), new InFlightCounters(64), gpuBlocks, 1000)
    return profile.choose(aRequest({ promptTokens: 1000 }), candidates, candidates)
  }
  assert.equal(choose([0, 30]), 1, 'half of the prompt is cached there')
  assert.equal(choose([0, 2]), 0, 'the template’s first blocks do not outweigh the tokens sent lately')
})

test('kv-aware waits for room in a full KV cache as long as answers are learned to take', () => {
  const full = [0, 1].map((index) => aWorker(index, { capacityBlocks: 100 }))
  const { profile, now } = profileNamed('kv-aware')
  const counters = new InFlightCounters(64)
  const chosen = (): number => {
    const candidates = candidatesOf(full, counters, [40, 0], 640)
    return profile.choose(aRequest({ promptTokens: 640 }), candidates, candidates)
  }
  assert.equal(chosen(), 0, 'the prefix is there')
  // Three answers under way that hold 90 of its 100 blocks: one has to end before 40 more fit in.
  counters.add(0, 3, 0, 90)
  assert.equal(chosen(), 1)
  const longMs = profile.predictedMs(0) ?? NaN
  assert.ok(longMs > 1250, `${longMs}`)
  for (let times = 0; times < 64; times++) {
    const dispatch = dispatchTo(1, { uncachedTokens: 0, atMs: now.ms })
    profile.dispatched(dispatch)
    profile.firstByte(dispatch, 1)
    now.ms += 20
    profile.finished(dispatch)
    now.ms += 2000
  }
  chosen()
  const shortMs = profile.predictedMs(0) ?? NaN
  assert.ok(
    Math.abs(longMs - shortMs - (5000 - 20) / 4) < 1,
    'of three answers the first ends after a quarter of one’s time',
  )
})

test('kv-aware credits a prefix no further than it fits beside what requests under way hold', () => {
  const small = [0, 1].map((index) => aWorker(index, { capacityBlocks: 100 }))
  const { profile, now } = profileNamed({
    scorers: [
      { type: 'predicted-ttft', parameters: { learnedSamples: 1e9, runningRequestTokens: 0, othersWeight: 0 } },
    ],
  })
  const counters = new InFlightCounters(64)
  const keys = Uint32Array.from({ length: 120 }, (_, word) => word + 1)
  const predictedMs = (): number => {
    const candidates = candidatesOf(small, counters, [60, 0], 960)
    profile.choose(aRequest({ promptTokens: 960, keys: () => keys }), candidates, candidates)
    return profile.predictedMs(0) ?? NaN
  }
  const idleMs = predictedMs()
  assert.ok(idleMs < 10, `${idleMs}`)
  // Of a request that holds 70 blocks and answers at once only the room counts: 30 of the 60 blocks stay.
  const other = dispatchTo(0, { atMs: now.ms, keys: Uint32Array.from({ length: 140 }, (_, word) => 1000 + word) })
  profile.dispatched(other)
  counters.add(0, 1, 0, 70)
  const besideMs = predictedMs()
  profile.finished(other)
  // A request for the same prompt holds the very blocks.
  const same = dispatchTo(0, { atMs: now.ms, keys })
  profile.dispatched(same)
  const sharedMs = predictedMs()
  // The last block is computed anyway.
  assert.ok(Math.abs(besideMs - sharedMs - (29 * 16 * 1000) / 8000) < 1, `${besideMs}, ${sharedMs}`)
})

test('kv-aware computes a long prompt where fewest prompt tokens were asked for lately', () => {
  const { profile, now } = profileNamed('kv-aware')
  // As many requests each, of which those to worker 2 are short.
  for (let times = 0; times < 40; times++) {
    for (const serial of [0, 1, 2, 3]) {
      const promptTokens = serial === 2 ? 8000 : 16_000
      profile.dispatched(dispatchTo(serial, { stream: false, promptTokens, atMs: now.ms }))
    }
    now.ms += 1000
  }
  const counters = new InFlightCounters(64)
  counters.add(2, 1, 40, 0)
  const chosen = (promptTokens: number): number => {
    const candidates = candidatesOf(workers, counters, [], promptTokens)
    return profile.choose(aRequest({ promptTokens }), candidates, candidates)
  }
  for (let times = 0; times < 8; times++) {
    assert.equal(chosen(12_000), 2)
    assert.notEqual(chosen(160), 2, 'a short prompt goes by the queue')
  }
  now.ms += 600_000
  assert.notEqual(chosen(12_000), 2, 'long ago is forgotten')
})

test('kv-aware sends a long prompt after its prefix the more readily the more requests would wait behind it', () => {
  const { profile, now } = profileNamed({
    scorers: [{ type: 'predicted-ttft', parameters: { learnedSamples: 1e9, runningRequestTokens: 0 } }],
  })
  const counters = new InFlightCounters(64)
  // 4 s of queue at the prefix, 3.2 s of prefill anywhere else.
  counters.add(0, 1, 32_000, 0)
  const chosen = (): number => {
    const candidates = candidatesOf(workers, counters, [1600], 25_601)
    return profile.choose(aRequest({ promptTokens: 25_601 }), candidates, candidates)
  }
  assert.notEqual(chosen(), 0, 'with nobody else it is shorter elsewhere')
  assert.ok(Math.abs((profile.predictedMs(1) ?? 0) - 3200) < 1, 'predicted is its own time alone')
  // A request a second on each worker: 3.2 of them would wait 1.6 s each, of which half counts.
  for (let times = 0; times < 600; times++) {
    profile.dispatched(dispatchTo(times % 4, { stream: false, promptTokens: 25_601, atMs: now.ms }))
    now.ms += 250
  }
  assert.equal(chosen(), 0)
  assert.ok(Math.abs((profile.predictedMs(1) ?? 0) - 3200) < 1)
})

test('kv-aware expects nobody to wait longer behind a long prompt than a usual prompt takes elsewhere', () => {
  const { profile, now } = profileNamed({
    scorers: [{ type: 'predicted-ttft', parameters: { learnedSamples: 1e9, runningRequestTokens: 0 } }],
  })
  const counters = new InFlightCounters(64)
  counters.add(0, 1, 32_000, 0)
  // As many as above, but of 80 tokens: 10 ms that each loses, and not 1.6 s.
  for (let times = 0; times < 600; times++) {
    profile.dispatched(dispatchTo(times % 4, { stream: false, promptTokens: 80, atMs: now.ms }))
    now.ms += 250
  }
  const candidates = candidatesOf(workers, counters, [1600], 25_601)
  assert.notEqual(profile.choose(aRequest({ promptTokens: 25_601 }), candidates, candidates), 0)
})

test('least-tokens takes the worker with the least left to compute, wherever the prefix is', () => {
  const { profile } = profileNamed('least-tokens')
  const counters = new InFlightCounters(64)
  for (const [slot, tokens] of [300, 200, 100, 400].entries()) counters.add(slot, 4 - slot, tokens, 0)
  const candidates = candidatesOf(workers, counters, [60])
  assert.equal(profile.choose(aRequest(), candidates, candidates), 2)
  assert.deepEqual([...profile.totals.subarray(0, 4)], [-300, -200, -100, -400])
})

test('a prompt that many hold goes to one of them while all are idle, the same on every replica, and elsewhere while that is busy', () => {
  const keys = (): Uint32Array => Uint32Array.from({ length: 124 }, (_, word) => word * 2_654_435_761)
  const request = aRequest({ keys })
  const chosen = ({ profile }: Setup, counters = new InFlightCounters(64)): number => {
    const candidates = candidatesOf(workers, counters, [62, 62, 0, 62])
    const index = profile.choose(request, candidates, candidates)
    profile.dispatched(dispatchTo(index))
    return index
  }
  const [one, other] = [profileNamed('kv-aware', 1), profileNamed('kv-aware', 2)]
  const home = chosen(one)
  assert.notEqual(home, 2)
  for (let times = 0; times < 20; times++) assert.deepEqual([chosen(one), chosen(other)], [home, home])
  const busy = new InFlightCounters(64)
  busy.add(home, 2, 100, 0)
  assert.ok([0, 1, 3].filter((index) => index !== home).includes(chosen(one, busy)))
})
