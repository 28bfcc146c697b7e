import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'
import { test } from 'node:test'
import { fleetFor, prose, type Fleet } from '../support/fleet.ts'
import { seededRandom } from '../support/random.ts'
import { until } from '../support/until.ts'

const rounds = 12
const requestsPerRound = 24

/** One request of any kind, whose client may leave at any moment; whatever comes of it is fine. */
async function anyRequest(fleet: Fleet, random: () => number, name: string): Promise<string> {
  const below = (limit: number): number => Math.floor(random() * limit)
  const leaving = new AbortController()
  const stream = random() < 0.5
  const more = { max_tokens: 1 + below(30), stream, ...(random() < 0.3 ? { n: 1 + below(4) } : {}) }
  const prompts = Array.from({ length: 1 + below(3) }, (_, i) => prose(`${name} ${below(3)} ${i}`, 10 + below(120)))
  const leaves = random() < 0.3 ? pause(below(60)).then(() => leaving.abort()) : Promise.resolve()
  const init = { signal: leaving.signal }
  try {
    const answer =
      random() < 0.5
        ? await fleet.post('/v1/completions', { model: 'demo', prompt: prompts, ...more }, init)
        : await fleet.chat(prompts.join(' '), more, init)
    await answer.text()
    return String(answer.status)
  } catch {
    return 'broken off'
  } finally {
    await leaves
  }
}

test('retried, refused, left, cut, killed, several answers or prompts: every request gives back exactly what it took', async (t) => {
  const seed = Number(process.env['WARMROUTE_SEED'] ?? 20_261_123)
  t.diagnostic(`WARMROUTE_SEED=${seed}`)
  const random = seededRandom(seed)
  const fleet = await fleetFor(t, {
    workers: 3,
    worker: (index: number) => (index === 2 ? { events: false } : {}),
    engine: { stepBaseMs: 2, prefillTokensPerSecond: 20_000 },
  })
  const ends = new Map<string, number>()
  for (let round = 0; round < rounds; round++) {
    const worker = fleet.worker(Math.floor(random() * 3))
    const faults = [
      { kind: 'none' },
      { kind: 'status', status: 503, count: 3 },
      { kind: 'status', status: 400, count: 2 },
      { kind: 'cut', afterEvents: Math.floor(random() * 4), count: 4 },
      { kind: 'latency', ms: 20, count: 4 },
    ] as const
    worker.fault(faults[Math.floor(random() * faults.length)] ?? { kind: 'none' })
    const requests = Array.from({ length: requestsPerRound }, (_, i) =>
      anyRequest(fleet, random, `${round % 4} ${i % 5}`),
    )
    if (round % 4 === 3) {
      await pause(Math.floor(random() * 20))
      await worker.restart()
    }
    for (const end of await Promise.all(requests)) ends.set(end, (ends.get(end) ?? 0) + 1)
    await until(
      async () => (await fleet.workers()).every(({ inFlight }) => inFlight.requests === 0),
      'nothing is in flight',
    )
    for (const { id, inFlight } of await fleet.workers()) {
      assert.deepEqual(inFlight, { requests: 0, prefillTokens: 0, decodeBlocks: 0 }, `${id} after round ${round}`)
    }
    await until(
      async () => (await fleet.workers()).every(({ state }) => state === 'healthy' || state === 'ejected'),
      'all workers are back',
    )
  }
  assert.ok((ends.get('200') ?? 0) > requestsPerRound, JSON.stringify([...ends]))
  assert.ok((ends.get('broken off') ?? 0) > 5, JSON.stringify([...ends]))
  await until(
    async () => (await fleet.workers()).every(({ load }) => (load?.foreignRequests ?? 0) === 0),
    'nothing of ours is taken for foreign',
  )
})
