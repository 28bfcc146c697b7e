import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createProfile, type ProfileChoice } from '../../src/routing/catalogue.ts'
import type { PolicyRequest } from '../../src/routing/policy.ts'
import { InFlightCounters } from '../../src/workers/fleet.ts'
import { seededRandom } from '../support/random.ts'
import { aRequest, aWorker, candidatesOf } from '../support/routing.ts'

const workers = Array.from({ length: 8 }, (_, index) => aWorker(index))

/** Chooses among the workers of these numbers; answers with the number. */
function chooser(choice: string | ProfileChoice, counters = new InFlightCounters(64)) {
  const profile = createProfile(choice, {
    context: { clock: () => 0, random: seededRandom(5) },
    workers: 64,
    fault: (_plugin, error) => assert.fail(String(error)),
  })
  return (request: PolicyRequest, present: readonly number[] = workers.map((_, index) => index)): number => {
    const candidates = candidatesOf(
      present.flatMap((index) => workers[index] ?? []),
      counters,
    )
    return present[profile.choose(request, candidates, candidates)] ?? -1
  }
}

function withHeaders(headers: Readonly<Record<string, string>>, given: Partial<PolicyRequest> = {}): PolicyRequest {
  return aRequest({ header: (name) => headers[name] ?? null, ...given })
}

const sessions = Array.from({ length: 2_000 }, (_, index) => withHeaders({ 'x-session-id': `session ${index}` }))

test('sglang-consistent-hash moves only the keys of the worker that went, and gives them back', () => {
  const choose = chooser('sglang-consistent-hash')
  const before = sessions.map((session) => choose(session))
  const without = sessions.map((session) => choose(session, [0, 1, 2, 4, 5, 6, 7]))
  for (const [index, place] of before.entries()) if (place !== 3) assert.equal(without[index], place)
  assert.ok(!without.includes(3))
  assert.deepEqual(
    sessions.map((session) => choose(session)),
    before,
  )
})

test('sglang-consistent-hash gives every worker about its share of the keys', () => {
  const choose = chooser('sglang-consistent-hash')
  const counts = new Array<number>(8).fill(0)
  for (const session of sessions) counts[choose(session)]!++
  for (const count of counts) assert.ok(count > 150 && count < 375, counts.join(', '))
})

test('two routers send a key to the same worker, in whatever order they met their workers', () => {
  const [one, other] = [chooser('consistent_hash'), chooser('consistent_hashing')]
  other(aRequest(), [7, 2, 5])
  assert.deepEqual(
    sessions.map((session) => other(session, [7, 6, 5, 4, 3, 2, 1, 0])),
    sessions.map((session) => one(session)),
  )
})

test('sglang-consistent-hash goes by the first header that is there, then by session, user and prompt', () => {
  const choose = chooser('sglang-consistent-hash')
  const keys = (text: string) => () => Uint32Array.from([text.length, 7])
  const by = (headers: Readonly<Record<string, string>>, given: Partial<PolicyRequest>): number =>
    choose(withHeaders(headers, given))
  const userIds = Array.from({ length: 40 }, (_, index) => `user ${index}`)
  for (const id of userIds) {
    const alone = by({ 'x-user-id': id }, {})
    assert.equal(by({ 'x-user-id': id, 'x-request-id': `${id}!` }, { session: 'other', user: 'other' }), alone)
    assert.equal(by({}, { session: id, user: 'other' }), alone)
    assert.equal(by({}, { user: id, keys: keys('prompt') }), alone)
  }
  const byPrompt = userIds.map((id) => by({}, { keys: keys(id) }))
  assert.deepEqual(
    userIds.map((id) => by({}, { keys: keys(id) })),
    byPrompt,
  )
})

test('sglang-consistent-hash by smg’s header sends a request without it anywhere', () => {
  const choose = chooser({
    picker: {
      type: 'sglang-consistent-hash',
      parameters: { headers: ['X-SMG-Routing-Key'], otherwise: 'random' },
    },
  })
  const place = choose(withHeaders({ 'x-smg-routing-key': 'a' }))
  for (let i = 0; i < 20; i++) assert.equal(choose(withHeaders({ 'x-smg-routing-key': 'a' })), place)
  assert.ok(new Set(Array.from({ length: 100 }, () => choose(aRequest()))).size > 4)
})

/** A prompt of so many blocks that begins with blocks of one name. */
function promptOf(name: number, blocks: number): PolicyRequest {
  const keys = new Uint32Array(2 * blocks).map((_, at) => (at < 32 ? name + at : name + at + blocks))
  return aRequest({ keys: () => keys })
}

test('sglang-prefix-hash keeps prompts together that begin with the same 256 tokens', () => {
  const choose = chooser('prefix_hash')
  const places = new Set<number>()
  for (let name = 1; name < 200; name++) {
    const place = choose(promptOf(1000 * name, 20))
    assert.equal(choose(promptOf(1000 * name, 90)), place)
    places.add(place)
  }
  assert.equal(places.size, 8)
})

test('sglang-prefix-hash passes over a worker with more than 1.25 times its share, for the one with the fewest', () => {
  const prompt = promptOf(5000, 20)
  const counters = new InFlightCounters(64)
  const choose = chooser('sglang-prefix-hash', counters)
  const named = choose(prompt)
  for (let index = 0; index < 8; index++) counters.add(index, index === (named + 1) % 8 ? 3 : 4, 0, 0)
  assert.equal(choose(prompt), named)
  counters.add(named, 1, 0, 0)
  assert.equal(choose(prompt), named, '5 of at most (32 + 1) / 8 × 1.25')
  counters.add(named, 1, 0, 0)
  assert.equal(choose(prompt), (named + 1) % 8)
})

test('sglang-manual keeps a key with its worker, and with another one only while that is away', () => {
  const counters = new InFlightCounters(64)
  const profile = createProfile('manual', {
    context: { clock: () => 0, random: seededRandom(5) },
    workers: 64,
    fault: (_plugin, error) => assert.fail(String(error)),
  })
  const send = (key: string, present: readonly number[]): number => {
    const candidates = candidatesOf(
      present.flatMap((index) => workers[index] ?? []),
      counters,
    )
    const request = withHeaders({ 'x-smg-routing-key': key })
    const place = present[profile.choose(request, candidates, candidates)] ?? -1
    profile.dispatched({ ...sent, serial: place })
    return place
  }
  const all = [0, 1, 2, 3, 4, 5, 6, 7]
  const first = send('a', all)
  const others = all.filter((index) => index !== first)
  const second = send('a', others)
  assert.notEqual(second, first)
  assert.equal(send('a', others), second)
  assert.equal(send('a', all), first)
})

const sent = {
  promptTokens: 1,
  uncachedTokens: 1,
  prefillTokensAhead: 0,
  requestsAhead: 0,
  stream: false,
  atMs: 0,
  keys: null,
  adapter: null,
  session: null,
  maxTokens: null,
}
