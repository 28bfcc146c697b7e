// The router before simulated SGLang engines, which tell it by /server_info all that it needs to know.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { DecisionRecord } from '../../src/routing/decisions.ts'
import { sglang } from '../../src/simulator/flavours/sglang.ts'
import { fleetFor, model, prose, type Fleet, type FleetOptions } from '../support/fleet.ts'
import { until } from '../support/until.ts'

const flavour = sglang({ cacheReport: true, publishLoad: true, metrics: true })

function engines(more: FleetOptions = {}): FleetOptions {
  return { ...more, simulators: { ...more.simulators, worker: { flavour, ranks: 2, ...more.simulators?.worker } } }
}

interface Told {
  readonly worker: string
  readonly predicted: number
  readonly actual: number
}

/** Sends a chat, and tells who answered it, and how much of it was thought and found to be cached. */
async function chat(fleet: Fleet, text: string, more: object = {}): Promise<Told> {
  const answer = await fleet.chat(text, more)
  const { usage } = (await answer.json()) as { usage: { prompt_tokens_details: { cached_tokens: number } | null } }
  assert.equal(answer.status, 200)
  const told = {
    worker: answer.headers.get('x-warmroute-worker') ?? '',
    predicted: Number(answer.headers.get('x-warmroute-cached-tokens')),
    // SGLang says nothing about a prompt of which nothing was cached.
    actual: usage.prompt_tokens_details?.cached_tokens ?? 0,
  }
  await fleet.settled()
  return told
}

test('it finds out by itself what they are, their ranks and where these tell their events', async (t) => {
  const fleet = await fleetFor(t, engines({ workers: 2 }))
  const views = (await fleet.admin<{ workers: { id: string; engine: string; blockSize: number }[] }>('/admin/workers'))
    .workers
  const [one = '', other = ''] = fleet.simulators.urls
  assert.deepEqual(views.map(({ id }) => id).sort(), [`${one}#0`, `${one}#1`, `${other}#0`, `${other}#1`].sort())
  for (const { engine, blockSize } of views) assert.deepEqual([engine, blockSize], ['sglang', 16])
  assert(fleet.log.some(({ message, fields }) => message === 'engine recognized' && fields['engine'] === 'sglang'))
})

test('what it predicts of every rank is what they find in their caches, salted or not, with an adapter or without', async (t) => {
  const loras = [{ name: 'sql', path: '/adapters/sql' }]
  const fleet = await fleetFor(t, engines({ workers: 2, simulators: { worker: { loras } } }))
  const kinds = [{}, { cache_salt: 'a' }, { cache_salt: 'b' }, { model: `${model}:sql` }]
  const texts = Array.from({ length: 4 }, (_, index) => prose(`conversation ${index}`, 60 + 16 * index))
  const used = new Set<string>()
  for (const text of texts) {
    for (const more of kinds) {
      const first = await chat(fleet, text, more)
      assert.equal(first.predicted, first.actual)
      const again = await chat(fleet, text, more)
      assert.equal(again.worker, first.worker)
      assert.equal(again.predicted, again.actual)
      assert(again.predicted > 30)
      const longer = await chat(fleet, `${text} and more of it`, more)
      assert.equal(longer.predicted, longer.actual)
      used.add(first.worker)
    }
  }
  assert.equal(used.size, 4, 'every rank of both is used')
  assert.equal(await fleet.metric('kv_events_skipped_total'), 0)
})

test('silence about cached tokens means none where SGLang reports them, and nothing where it does not', async (t) => {
  const verified = async (cacheReport: boolean): Promise<readonly number[]> => {
    const fleet = await fleetFor(t, { simulators: { worker: { flavour: sglang({ cacheReport }) } } })
    for (const stream of [false, true])
      await (
        await fleet.chat(prose(`new ${stream}`, 60), {
          stream,
          stream_options: stream ? { include_usage: true } : undefined,
        })
      ).text()
    await fleet.settled()
    const decisions = await fleet.decisions()
    return decisions.flatMap(({ actualCachedTokens: actual }) => actual ?? [])
  }
  assert.deepEqual(await verified(true), [0, 0])
  assert.deepEqual(await verified(false), [])
})

test('what moves to the host tier and back is predicted to be cached all the same', async (t) => {
  const engine = { capacityBlocks: 40, hostBlocks: 400, maxModelLength: 512 }
  const fleet = await fleetFor(t, engines({ engine, simulators: { worker: { ranks: 1 } } }))
  const texts = Array.from({ length: 6 }, (_, index) => prose(`tiered ${index}`, 90))
  for (const text of texts) await chat(fleet, text)
  const [view] = await fleet.workers()
  assert((view?.map.blocks.host ?? 0) > 30)
  for (const text of texts) {
    const { predicted, actual } = await chat(fleet, text)
    assert.equal(predicted, actual)
    assert(predicted > 60)
    const held = fleet.worker(0).trueBlocks()
    const { gpu, host } = (await fleet.workers())[0]?.map.blocks ?? { gpu: -1, host: -1 }
    assert.deepEqual([gpu, host], [held?.gpu.size, held?.host.size])
  }
  assert.equal(await fleet.metric('kv_events_skipped_total'), 0)
})

test('pages of one token, which are SGLang’s default, are predicted to the token', async (t) => {
  const fleet = await fleetFor(t, engines({ engine: { blockSize: 1, capacityBlocks: 4096 } }))
  const text = prose('by the token', 70)
  const first = await chat(fleet, text)
  const again = await chat(fleet, text)
  assert.equal(again.worker, first.worker)
  assert.equal(again.predicted, again.actual)
  const longer = await chat(fleet, `${text} and on`)
  assert.equal(longer.predicted, longer.actual)
  assert.notEqual(again.actual % 16, 0)
})

test('an explained decision shows what each rank holds, exactly', async (t) => {
  const fleet = await fleetFor(t, engines())
  const text = prose('explained', 80)
  const { worker } = await chat(fleet, text)
  await fleet.measured()
  const messages = [{ role: 'user', content: text }]
  const { candidates } = (await (await fleet.explain({ model, messages })).json()) as DecisionRecord
  assert.equal(candidates.length, 2)
  for (const candidate of candidates) {
    assert.equal(candidate.exact, true)
    assert.equal(candidate.matchedBlocks.gpu > 4, candidate.worker === worker)
  }
})

test('after a restart nothing is believed that the new process does not have', async (t) => {
  const fleet = await fleetFor(t, engines())
  const texts = [prose('before one', 60), prose('before two', 60)]
  for (const text of texts) await chat(fleet, text)
  await fleet.worker(0).restart()
  await until(
    async () => (await fleet.workers()).every(({ events, state }) => events.state === 'live' && state === 'healthy'),
    'it is back',
  )
  await fleet.settled()
  for (const text of texts) {
    const first = await chat(fleet, text)
    assert.deepEqual([first.predicted, first.actual], [0, 0])
    const again = await chat(fleet, text)
    assert.equal(again.predicted, again.actual)
    assert(again.actual > 0)
  }
})

test('events that were lost on the way are asked for again; those that cannot be had clear the rank', async (t) => {
  const fleet = await fleetFor(t, engines({ simulators: { worker: { ranks: 1 } } }))
  const [lost, later] = [prose('lost', 60), prose('later', 60)]
  fleet.worker(0).dropEvents(100)
  await (await fleet.chat(lost)).text()
  fleet.worker(0).dropEvents(0)
  await chat(fleet, later)
  const repaired = await chat(fleet, lost)
  assert.equal(repaired.predicted, repaired.actual)
  assert(repaired.predicted > 30)
  fleet.worker(0).dropEvents(100)
  await (await fleet.chat(prose('gone', 60))).text()
  fleet.worker(0).dropEvents(0, { forget: true })
  await chat(fleet, prose('the next', 60))
  assert.deepEqual(
    (await fleet.workers()).map(({ events }) => events.gaps),
    [2],
  )
  const { predicted } = await chat(fleet, lost)
  assert.equal(predicted, 0, 'nothing is claimed of what may be gone')
})

test('a load that is published is not asked for; when it is silent, it is', async (t) => {
  const fleet = await fleetFor(t, engines())
  const sources = async (): Promise<readonly string[]> => {
    const { workers } = await fleet.admin<{ workers: { load: { source: string } | null }[] }>('/admin/workers')
    return workers.map(({ load }) => load?.source ?? 'none')
  }
  const asked = (): number => fleet.worker(0).counters?.requests['/v1/loads'] ?? 0
  await until(async () => (await sources()).every((source) => source === 'feed'), 'both ranks are heard')
  const before = asked()
  await until(async () => (await fleet.metric('load_feed_messages_total', { result: 'used' })) > 4, 'they go on')
  assert.equal(asked(), before)
  fleet.worker(0).silenceLoad()
  await until(async () => (await sources()).every((source) => source === 'poll'), 'both ranks are asked instead')
  assert(asked() > before)
})
