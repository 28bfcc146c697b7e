import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { DecisionRecord } from '../../src/routing/decisions.ts'
import { fleetFor, model, prose } from '../support/fleet.ts'

const workerOf = (answer: Response): string => answer.headers.get('x-warmroute-worker') ?? ''

test('fallbacks of a pool’s profile are counted by their reason, told in decisions and timed by plugin', async (t) => {
  const fleet = await fleetFor(t, {
    workers: 2,
    pool: {
      profile: {
        name: 'careful',
        fallbacks: [{ type: 'short-match', parameters: { leastTokens: 64 }, use: 'round-robin' }],
        scorers: [{ type: 'predicted-ttft' }],
      },
    },
  })
  const first = await fleet.chat(prose('a long story', 300))
  assert.equal(first.status, 200)
  await first.text()
  assert.equal(await fleet.metric('fallback_total', { reason: 'match_short' }), 1)
  const [decision] = await fleet.decisions(1)
  assert.deepEqual(
    [decision?.profile, decision?.usedProfile, decision?.reason, decision?.fallback],
    ['careful', 'round-robin', 'fallback', 'match_short'],
  )
  assert.equal(await fleet.metric('policy_calls_total', { plugin: 'round-robin' }), 2, 'the choice and a hook')
  assert.equal(await fleet.metric('decisions_total', { reason: 'fallback' }), 1)
  assert.ok((await fleet.metric('policy_seconds_total', { plugin: 'short-match' })) > 0)
  await fleet.settled()
  const second = await fleet.chat(prose('a long story', 300))
  await second.text()
  assert.equal(workerOf(second), workerOf(first))
  assert.equal(await fleet.metric('fallback_total', { reason: 'match_short' }), 1)
  assert.equal(await fleet.metric('decisions_total', { reason: 'longest_match' }), 1)
})

test('a client pins a worker by a header, sessions stay together, and an impossible wish is refused by name', async (t) => {
  const fleet = await fleetFor(t, {
    workers: 3,
    pool: {
      profile: {
        filters: [{ type: 'pinned-worker' }, { type: 'session-affinity' }],
        picker: { type: 'round-robin' },
      },
    },
  })
  for (const url of fleet.simulators.urls) {
    const answer = await fleet.chat('hello', {}, { headers: { 'x-warmroute-pin': url } })
    await answer.text()
    assert.equal(workerOf(answer), url)
  }
  const homes = new Set<string>()
  for (let turn = 0; turn < 6; turn++) {
    const answer = await fleet.chat(`turn ${turn}`, {}, { headers: { 'x-session-id': 'somebody' } })
    await answer.text()
    homes.add(workerOf(answer))
  }
  assert.equal(homes.size, 1)
  const refused = await fleet.chat('hello', {}, { headers: { 'x-warmroute-pin': 'http://127.0.0.1:1' } })
  assert.equal(refused.status, 503)
  const { error } = (await refused.json()) as { error: { code: string; message: string } }
  assert.equal(error.code, 'no_suitable_worker')
  assert.match(error.message, /pinned-worker/)
  const [, pinned = ''] = fleet.simulators.urls
  const explained = await fleet.explain({ model, prompt: 'hello' }, { 'x-warmroute-pin': pinned })
  assert.equal(((await explained.json()) as DecisionRecord).chosen, pinned, 'an explanation reads the headers, too')
  const refusal = await fleet.explain({ model, prompt: 'hello' }, { 'x-warmroute-pin': 'http://127.0.0.1:1' })
  assert.equal(refusal.status, 503)
  assert.ok(!fleet.log.some((line) => JSON.stringify(line).includes('somebody')), 'the session id is not logged')
})
