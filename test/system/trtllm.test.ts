import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { DecisionRecord } from '../../src/routing/decisions.ts'
import { trtllm, type TrtllmSettings } from '../../src/simulator/flavours/trtllm.ts'
import { fleetFor, model, prose, type Fleet, type FleetOptions } from '../support/fleet.ts'
import { seededRandom } from '../support/random.ts'
import { until } from '../support/until.ts'

/** TensorRT-LLM workers with small blocks, so that short prompts fill some. */
function options(settings: Partial<TrtllmSettings> = {}, more: FleetOptions = {}): FleetOptions {
  return {
    ...more,
    engine: { blockSize: 8, ...more.engine },
    simulators: { ...more.simulators, worker: { flavour: trtllm(settings), ...more.simulators?.worker } },
    worker: more.worker ?? { engine: 'trtllm' },
    config: { eventPolling: { intervalMs: 5, idleIntervalMs: 20 }, ...more.config },
  }
}

/** Sends a chat once nothing is on its way any more; what was predicted and what the engine reports. */
async function turn(
  fleet: Fleet,
  content: string,
  more: object = {},
): Promise<{ predicted: number; cached: number; worker: string | null }> {
  await fleet.settled()
  const answer = await fleet.chat(content, more)
  assert.equal(answer.status, 200)
  const { usage } = (await answer.json()) as { usage: { prompt_tokens_details: { cached_tokens: number } } }
  const [decision] = await fleet.decisions(1)
  return {
    predicted: decision?.predictedCachedTokens ?? -1,
    cached: usage.prompt_tokens_details.cached_tokens,
    worker: decision?.chosen ?? null,
  }
}

async function candidates(fleet: Fleet, prompt: string): Promise<DecisionRecord['candidates']> {
  const answer = await fleet.explain({
    path: '/v1/chat/completions',
    body: { model, messages: [{ role: 'user', content: prompt }] },
  })
  return ((await answer.json()) as DecisionRecord).candidates
}

for (const [name, settings] of [
  ['with metrics', {}],
  [
    'with iteration statistics, two windows, partial blocks, and a poll by GET',
    { metrics: false, slidingWindow: 64, partialBlocks: true, polledBy: 'GET' },
  ],
] as const) {
  test(`TensorRT-LLM workers ${name}: predictions are what the engines report, under eviction`, async (t) => {
    const fleet = await fleetFor(t, options(settings, { workers: 2, engine: { capacityBlocks: 64 } }))
    const random = seededRandom(11)
    let total = 0
    for (let i = 0; i < 40; i++) {
      const session = Math.floor(random() * 8)
      const { predicted, cached } = await turn(fleet, prose(`session ${session}`, 20 + 10 * (i % 4)))
      assert.equal(predicted, cached, `turn ${i}`)
      total += cached
    }
    assert.ok(total > 0)
    for (const view of await fleet.workers()) {
      assert.deepEqual([view.blockSize, view.events.state, view.events.gaps, view.events.restarts], [8, 'live', 0, 0])
    }
    assert.equal(await fleet.metric('warmroute_kv_events_skipped_total', { reason: 'unknown_removal' }), 0)
  })
}

test('offloaded blocks stay credited, as the host’s, and come back', async (t) => {
  const fleet = await fleetFor(t, options({}, { engine: { capacityBlocks: 24, hostBlocks: 200 } }))
  const prompts = Array.from({ length: 6 }, (_, i) => prose(`topic ${i}`, 60))
  for (const prompt of prompts) await turn(fleet, prompt)
  await fleet.settled()
  const [view] = await fleet.workers()
  assert.ok((view?.map.blocks.host ?? 0) > 0, 'blocks are on the host')
  const [first] = await candidates(fleet, prompts[0] ?? '')
  assert.ok((first?.matchedBlocks.host ?? 0) > 0)
  for (const prompt of prompts) {
    const { predicted, cached } = await turn(fleet, prompt)
    assert.equal(predicted, cached)
    assert.ok(cached > 0)
  }
  const truth = fleet.worker(0).trueBlocks()
  await fleet.settled()
  const [after] = await fleet.workers()
  const onHostOnly = [...(truth?.host ?? [])].filter((block) => truth?.gpu.has(block) !== true)
  assert.deepEqual([after?.map.blocks.gpu, after?.map.blocks.host], [truth?.gpu.size, onHostOnly.length])
})

test('a restarted engine loses its blocks in the map, and gets them anew', async (t) => {
  const fleet = await fleetFor(t, options())
  const prompt = prose('before', 60)
  await turn(fleet, prompt)
  assert.ok((await turn(fleet, prompt)).cached > 0)
  await fleet.worker(0).restart()
  await until(async () => {
    const [view] = await fleet.workers()
    return view?.state === 'healthy' && view.map.blocks.gpu === 0 && view.events.state === 'live'
  }, 'the old blocks are gone')
  assert.deepEqual((({ predicted, cached }) => [predicted, cached])(await turn(fleet, prompt)), [0, 0])
  const again = await turn(fleet, prompt)
  assert.equal(again.predicted, again.cached)
  assert.ok(again.cached > 0)
})

test('a gap clears what was known, never believes too much, and is counted', async (t) => {
  const fleet = await fleetFor(t, options())
  const prompt = prose('kept', 60)
  await turn(fleet, prompt)
  await fleet.settled()
  fleet.worker(0).dropEvents(1)
  await (await fleet.chat(prose('lost', 60))).arrayBuffer()
  await (await fleet.chat(prose('heard', 60))).arrayBuffer()
  await until(async () => (await fleet.workers())[0]?.events.gaps === 1, 'the gap is seen')
  const { predicted, cached } = await turn(fleet, prompt)
  assert.ok(predicted === 0 && cached > 0, `${predicted} of ${cached}`)
  const heard = await turn(fleet, prose('heard', 60))
  assert.equal(heard.predicted, heard.cached)
})

test('two readers that steal from each other are noticed as gaps, and the log says so', async (t) => {
  const fleet = await fleetFor(t, options())
  const thief = setInterval(
    () => void fetch(`${fleet.worker(0).url}/kv_cache_events`, { method: 'POST' }).catch(() => undefined),
    3,
  )
  t.after(() => clearInterval(thief))
  let i = 0
  await until(async () => {
    await (await fleet.chat(prose(`stolen ${i++}`, 30))).arrayBuffer()
    return (await fleet.workers())[0]?.events.gaps !== 0
  }, 'a gap is seen')
  clearInterval(thief)
  assert.equal(fleet.log.filter(({ message }) => message.includes('somebody else polls')).length, 1)
})

test('an engine of several ranks that is one worker is not believed by its events, and the log says why', async (t) => {
  const fleet = await fleetFor(
    t,
    options({}, { simulators: { worker: { flavour: trtllm(), ranks: 2 } }, awaitEvents: false }),
  )
  await until(async () => (await fleet.workers())[0]?.events.state === 'absent', 'the events are given up')
  assert.equal(fleet.log.filter(({ message }) => message.includes('several ranks')).length, 1)
  const prompt = prose('anywhere', 60)
  for (let i = 0; i < 2; i++) await (await fleet.chat(prompt)).arrayBuffer()
  const [candidate] = await candidates(fleet, prompt)
  assert.equal(candidate?.exact, false)
})

test('ranks behind a header are workers of their own, fed by one poll', async (t) => {
  const fleet = await fleetFor(
    t,
    options(
      {},
      {
        // Of the template's own first tokens no block is made, so that nothing but load decides where a prompt goes.
        engine: { blockSize: 16 },
        simulators: { worker: { flavour: trtllm(), ranks: 2 } },
        worker: { engine: 'trtllm', ranks: 2 },
      },
    ),
  )
  const used = new Set<string | null>()
  for (let i = 0; i < 12; i++) {
    const { predicted, cached, worker } = await turn(fleet, prose(`ranked ${i % 4}`, 60))
    assert.equal(predicted, cached)
    used.add(worker)
  }
  assert.equal(used.size, 2)
})

test('salts and adapters are kept apart', async (t) => {
  const fleet = await fleetFor(
    t,
    options(
      {},
      {
        simulators: { worker: { flavour: trtllm(), loras: [{ name: 'sql', path: '/sql' }] } },
        pool: { adapters: ['sql'] },
      },
    ),
  )
  const prompt = prose('shared text', 60)
  await turn(fleet, prompt, { cache_salt: 'a' })
  for (const more of [{}, { cache_salt: 'b' }, { model: 'sql' }]) {
    const { predicted, cached } = await turn(fleet, prompt, more)
    assert.deepEqual([predicted, cached], [0, 0], JSON.stringify(more))
  }
  for (const more of [{}, { cache_salt: 'a' }, { cache_salt: 'b' }, { model: 'sql' }]) {
    const { predicted, cached } = await turn(fleet, prompt, more)
    assert.ok(cached > 0, JSON.stringify(more))
    assert.equal(predicted, cached, JSON.stringify(more))
  }
})

test('an engine whose events are off is never heard, and routed by what was sent to it', async (t) => {
  const fleet = await fleetFor(t, options({}, { simulators: { eventsPort: null }, awaitEvents: false }))
  const prompt = prose('told by nobody', 60)
  for (let i = 0; i < 12; i++) await (await fleet.chat(prompt)).arrayBuffer()
  const [view] = await fleet.workers()
  assert.deepEqual([view?.events.state, view?.degraded], ['unknown', undefined])
  const { predicted, cached } = await turn(fleet, prompt)
  assert.ok(cached > 0)
  assert.equal(predicted, cached)
  const [candidate] = await candidates(fleet, prompt)
  assert.equal(candidate?.exact, false)
})

test('a server that waits for quiet before it answers a poll is believed as far as it has told, and nothing is cleared', async (t) => {
  const fleet = await fleetFor(t, options({ pollWaitMs: 150 }))
  const prompts = Array.from({ length: 4 }, (_, i) => prose(`busy ${i}`, 60))
  for (let i = 0; i < 12; i++) {
    const answer = await fleet.chat(prompts[i % 4] ?? '')
    const { usage } = (await answer.json()) as { usage: { prompt_tokens_details: { cached_tokens: number } } }
    const [decision] = await fleet.decisions(1)
    assert.ok((decision?.predictedCachedTokens ?? 0) <= usage.prompt_tokens_details.cached_tokens, `turn ${i}`)
  }
  const { predicted, cached } = await turn(fleet, prompts[0] ?? '')
  assert.ok(cached > 0)
  assert.equal(predicted, cached)
  const [view] = await fleet.workers()
  assert.deepEqual([view?.events.gaps, view?.degraded], [0, undefined])
})

test('a server that is never quiet tells too late: it is routed by what was sent to it, and the log says why', async (t) => {
  const config = { eventPolling: { intervalMs: 5, idleIntervalMs: 20, lateMs: 400 } }
  const fleet = await fleetFor(t, options({ pollWaitMs: 300 }, { config }))
  let i = 0
  await until(async () => {
    await (await fleet.chat(prose(`always new ${i++}`, 30))).arrayBuffer()
    return (await fleet.workers())[0]?.events.state === 'absent'
  }, 'the events are given up')
  assert.equal(fleet.log.filter(({ message }) => message.includes('too late')).length, 1)
  const prompt = prose('asked again', 60)
  const first = await turn(fleet, prompt)
  const second = await turn(fleet, prompt)
  assert.deepEqual([first.predicted, first.cached], [0, 0])
  assert.ok(second.cached > 0)
  assert.equal(second.predicted, second.cached)
})
