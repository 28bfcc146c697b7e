import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createProfile, type ProfileChoice } from '../../src/routing/catalogue.ts'
import type { Dispatch, PolicyRequest } from '../../src/routing/policy.ts'
import { InFlightCounters } from '../../src/workers/fleet.ts'
import { seededRandom } from '../support/random.ts'
import { aDispatch, aRequest, aWorker, candidatesOf } from '../support/routing.ts'

const workers = [0, 1, 2, 3].map((index) => aWorker(index, { labels: { zone: index < 2 ? 'a' : 'b' } }))

function router(choice: ProfileChoice | string, fleet = workers) {
  const now = { ms: 0 }
  const counters = new InFlightCounters(64)
  const profile = createProfile(choice, {
    context: { clock: () => now.ms, random: seededRandom(1) },
    workers: 64,
    fault: (plugin, error) => assert.fail(`${plugin}: ${String(error)}`),
  })
  const choose = (request: Partial<PolicyRequest> = {}, among = fleet, gpuBlocks: readonly number[] = []): number => {
    const candidates = candidatesOf(among, counters, gpuBlocks)
    const chosen = profile.choose(aRequest(request), candidates, candidates)
    return chosen < 0 ? chosen : (among[chosen]?.serial ?? -2)
  }
  const send = (request: Partial<PolicyRequest> = {}, given: Partial<Dispatch> = {}): number => {
    const serial = choose(request)
    profile.dispatched(aDispatch({ serial, session: request.session ?? null, ...given }))
    return serial
  }
  return { profile, counters, now, choose, send }
}

const headers = (values: Record<string, string>) => ({ header: (name: string) => values[name] ?? null })

test('a session stays with its worker while that one’s queue is not too long, and moves for good when it is', () => {
  const { send, counters } = router('session')
  const first = send({ session: 'aaaa' })
  counters.add(first, 1, 16_384, 0)
  for (let turn = 0; turn < 5; turn++) assert.equal(send({ session: 'aaaa' }), first)
  counters.add(first, 1, 1, 0)
  const second = send({ session: 'aaaa' })
  assert.notEqual(second, first)
  counters.add(first, -2, -16_385, 0)
  assert.equal(send({ session: 'aaaa' }), second)
})

test('a hard session stays with its worker however busy, and is bound anew when that one is gone', () => {
  const { send, choose, counters } = router({
    filters: [{ type: 'session-affinity', parameters: { mode: 'hard' } }],
    scorers: [{ type: 'predicted-ttft' }],
  })
  const first = send({ session: 'aaaa' })
  counters.add(first, 100, 1_000_000, 0)
  assert.equal(send({ session: 'aaaa' }), first)
  assert.notEqual(
    choose(
      { session: 'aaaa' },
      workers.filter(({ serial }) => serial !== first),
    ),
    first,
  )
})

test('a session that another replica sent to a worker goes there', () => {
  const { profile, choose } = router('session')
  for (const serial of [2, 0, 3]) {
    profile.dispatched(aDispatch({ serial, session: `session ${serial}` }))
  }
  for (const serial of [2, 0, 3]) assert.equal(choose({ session: `session ${serial}` }), serial)
})

test('a session is forgotten after its time to live, and the one that was silent longest when there are too many', () => {
  const { profile, choose, now } = router({
    filters: [{ type: 'session-affinity', parameters: { ttlSeconds: 10, bindings: 2 } }],
    picker: { type: 'round-robin' },
  })
  const bind = (session: string): void => profile.dispatched(aDispatch({ serial: 3, session }))
  const stays = (session: string): boolean => [0, 1, 2].every(() => choose({ session }) === 3)
  bind('old')
  bind('kept')
  bind('new')
  assert.deepEqual([stays('old'), stays('kept'), stays('new')], [false, true, true])
  now.ms = 10_001
  assert.equal(stays('new'), false)
})

test('a label keeps requests in their zone as long as it has a worker, and a required one refuses them otherwise', () => {
  const inZone = router({ filters: [{ type: 'label', parameters: { label: 'zone', header: 'X-Zone' } }] })
  for (let times = 0; times < 20; times++) {
    assert.ok([2, 3].includes(inZone.choose(headers({ 'x-zone': 'b' }))))
  }
  assert.ok(inZone.choose(headers({ 'x-zone': 'nowhere' })) >= 0)
  const chosen = new Set(Array.from({ length: 50 }, () => inZone.choose(headers({ 'x-zone': ' ' }))))
  assert.equal(chosen.size, 4, 'an empty wish is none')
  assert.ok(
    new Set(Array.from({ length: 50 }, () => inZone.choose())).size === 4,
    'without the header all may be chosen',
  )
  const strict = router({
    filters: [{ type: 'label', parameters: { label: 'zone', header: 'x-zone', required: true } }],
  })
  assert.equal(strict.choose(headers({ 'x-zone': 'nowhere' })), -1)
  assert.equal(strict.profile.refusedBy, 'label')
  assert.ok([0, 1].includes(strict.choose(headers({ 'x-zone': 'nowhere, a' }))))
})

test('a preferred label outweighs a wait up to its cost', () => {
  const { choose, counters } = router({
    scorers: [
      { type: 'predicted-ttft' },
      { type: 'label-preference', parameters: { label: 'zone', value: 'a', costMs: 100 } },
    ],
  })
  assert.ok([0, 1].includes(choose()))
  // 8 tokens a millisecond: 90 ms, then 110 ms of queue in zone a.
  for (const slot of [0, 1]) counters.add(slot, 0, 720, 0)
  assert.ok([0, 1].includes(choose()))
  for (const slot of [0, 1]) counters.add(slot, 0, 160, 0)
  assert.ok([2, 3].includes(choose()))
})

test('a pinned worker is the only candidate, and a request for one that is gone is refused', () => {
  const { choose, profile } = router({ filters: [{ type: 'pinned-worker' }], scorers: [{ type: 'predicted-ttft' }] })
  for (const { id, serial } of workers) assert.equal(choose(headers({ 'x-warmroute-pin': id })), serial)
  assert.equal(choose(headers({ 'x-warmroute-pin': 'http://elsewhere:1' })), -1)
  assert.equal(profile.refusedBy, 'pinned-worker')
})

test('a request with an adapter goes where it is loaded, also if the prefix is elsewhere, and anywhere if nobody has it', () => {
  const some = [0, 1, 2].map((index) => aWorker(index, { models: new Set(index === 1 ? ['base', 'lora'] : ['base']) }))
  const { profile } = router(
    { filters: [{ type: 'adapter-loaded' }], scorers: [{ type: 'prefix', weight: 100 }] },
    some,
  )
  const counters = new InFlightCounters(64)
  const choose = (adapter: string | null): number => {
    const candidates = candidatesOf(some, counters, [50, 0, 0], 1000, [], adapter)
    return profile.choose(aRequest({ adapter }), candidates, candidates)
  }
  assert.equal(choose('lora'), 1)
  assert.equal(profile.fallback, 'adapter_missing')
  assert.equal(choose(null), 0)
  assert.equal(choose('unknown'), 0)
})

test('consistent hashing sends equal sessions to one worker on every replica, and moves few when a worker leaves', () => {
  const [one, two] = [router('consistent-hash'), router('consistent-hash')]
  const sessions = Array.from({ length: 400 }, (_, index) => `session ${index}`)
  const homes = sessions.map((session) => one.choose({ session }))
  assert.deepEqual(
    sessions.map((session) => two.choose({ session })),
    homes,
  )
  const without = workers.filter(({ serial }) => serial !== 2)
  for (const [index, session] of sessions.entries())
    if (homes[index] !== 2) assert.equal(one.choose({ session }, without), homes[index])
  for (const serial of [0, 1, 2, 3]) {
    const share = homes.filter((home) => home === serial).length / sessions.length
    assert.ok(share > 0.17 && share < 0.33, `worker ${serial} has ${share}`)
  }
})

test('consistent hashing gives no worker more than its bound', () => {
  const { send, counters } = router({ picker: { type: 'bounded-hash', parameters: { loadFactor: 1.25 } } })
  const requests = [0, 0, 0, 0]
  for (let index = 0; index < 100; index++) {
    const serial = send({ session: 'the same' })
    counters.add(serial, 1, 0, 0)
    requests[serial] = (requests[serial] ?? 0) + 1
    assert.ok((requests[serial] ?? 0) <= Math.ceil((1.25 * (index + 1)) / 4))
  }
})
