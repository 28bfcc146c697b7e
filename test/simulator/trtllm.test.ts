import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { decodeEvents, type TrtllmEvent } from '../../src/events/trtllm/decode.ts'
import { trtllm, type TrtllmSettings } from '../../src/simulator/flavours/trtllm.ts'
import type { SimulatorsOptions } from '../../src/simulator/simulate.ts'
import type { SimulatedWorker } from '../../src/simulator/worker.ts'
import { trtllm as engine } from '../../src/workers/engines/trtllm.ts'
import { post, simulator } from './simulators.ts'

const tokens = (count: number, first = 1_000): number[] => Array.from({ length: count }, (_, i) => first + i)

function engineFor(t: TestContext, settings: Partial<TrtllmSettings> = {}, more: Partial<SimulatorsOptions> = {}) {
  return simulator(t, {
    ...more,
    engine: { blockSize: 4, ...more.engine },
    worker: { flavour: trtllm(settings), ...more.worker },
  })
}

async function poll(worker: SimulatedWorker, method = 'POST'): Promise<readonly TrtllmEvent[]> {
  const answer = await fetch(`${worker.url}/kv_cache_events`, { method, headers: { connection: 'close' } })
  assert.equal(answer.status, 200)
  const { events, malformed } = await decodeEvents(new Uint8Array(await answer.arrayBuffer()), () => Promise.resolve())
  assert.equal(malformed, 0)
  return events
}

async function complete(worker: SimulatedWorker, prompt: readonly number[], more: object = {}): Promise<number> {
  const answer = await post(worker, '/v1/completions', { model: 'model', prompt, max_tokens: 1, ...more })
  const { usage } = (await answer.json()) as { usage: { prompt_tokens_details: { cached_tokens: number } } }
  return usage.prompt_tokens_details.cached_tokens
}

const shown = (events: readonly TrtllmEvent[]): string[] =>
  events.map(({ id, data }) => {
    if (data.kind === 'stored') return `${id} stored ${data.blocks.map((block) => block.tokens.length).join('+')}`
    if (data.kind === 'updated') return `${id} updated ${data.level?.from} to ${data.level?.to}`
    return `${id} ${data.kind}${data.kind === 'removed' ? ` ${data.hashes.length / 2}` : ''}`
  })

test('a poll takes the events away; they are numbered from the pools’ announcement on', async (t) => {
  const worker = await engineFor(t)
  assert.equal(await complete(worker, tokens(14)), 0)
  assert.deepEqual(shown(await poll(worker)), ['0 created', '1 stored 4+4+4'])
  assert.deepEqual(await poll(worker), [])
  assert.equal(await complete(worker, tokens(14)), 12)
  assert.deepEqual(await poll(worker), [])
  assert.equal(await complete(worker, tokens(18)), 12)
  assert.deepEqual(shown(await poll(worker)), ['2 stored 4'])
})

test('a second window announces the same blocks under ids of the same row, and partial blocks stand beside full ones', async (t) => {
  const worker = await engineFor(t, { slidingWindow: 16, partialBlocks: true })
  await complete(worker, tokens(9))
  const events = await poll(worker)
  assert.deepEqual(shown(events), [
    '0 created',
    '1 created',
    '2 stored 4',
    '3 stored 4',
    '4 stored 2',
    '5 stored 2',
    '6 stored 4',
    '7 stored 4',
  ])
  assert.deepEqual(new Set(events.map(({ windowSize }) => windowSize)).size, 2)
})

test('a block that leaves the GPU for the host is updated, comes back, and is removed when neither holds it', async (t) => {
  const worker = await engineFor(t, {}, { engine: { capacityBlocks: 4, hostBlocks: 4 } })
  await complete(worker, tokens(13))
  await complete(worker, tokens(13, 2_000))
  const offloaded = shown(await poll(worker))
  assert.ok(
    offloaded.some((event) => event.endsWith('updated 0 to 1')),
    offloaded.join(),
  )
  assert.ok((await complete(worker, tokens(13))) > 0)
  const back = shown(await poll(worker))
  assert.ok(
    back.some((event) => event.endsWith('updated 1 to 0')),
    back.join(),
  )
  for (let i = 0; i < 5; i++) await complete(worker, tokens(13, 3_000 + 100 * i))
  assert.ok(shown(await poll(worker)).some((event) => event.includes('removed')))
})

test('dropped batches leave a gap in the ids, a restart begins them anew, and paused events wait', async (t) => {
  const worker = await engineFor(t)
  await poll(worker)
  worker.dropEvents(1)
  await complete(worker, tokens(9))
  await complete(worker, tokens(9, 2_000))
  assert.deepEqual(shown(await poll(worker)), ['2 stored 4+4'])
  worker.pauseEvents()
  await complete(worker, tokens(9, 3_000))
  assert.deepEqual(await poll(worker), [])
  worker.resumeEvents()
  assert.deepEqual(shown(await poll(worker)), ['3 stored 4+4'])
  await worker.restart()
  assert.deepEqual(shown(await poll(worker)), ['0 created'])
})

test('a full buffer gives up its oldest events', async (t) => {
  const worker = await engineFor(t, { bufferedEvents: 2 })
  for (let i = 0; i < 3; i++) await complete(worker, tokens(9, 1_000 * (i + 1)))
  assert.deepEqual(shown(await poll(worker)), ['2 stored 4+4', '3 stored 4+4'])
})

test('events tell their rank where there are several, and one poll is for all', async (t) => {
  const worker = await engineFor(t, {}, { worker: { ranks: 2 } })
  assert.deepEqual(
    (await poll(worker)).map(({ id, rank }) => [id, rank]),
    [
      [0, 0],
      [0, 1],
    ],
  )
})

test('the router reads its facts and load from its metrics, or from its iteration statistics, which reading takes away', async (t) => {
  const http = {
    ask: async (url: string) => {
      const answer = await fetch(url)
      return { status: answer.status, text: await answer.text() }
    },
    close: () => Promise.resolve(),
  }
  for (const metrics of [true, false]) {
    const worker = await engineFor(t, { metrics }, { engine: { capacityBlocks: 100 } })
    await complete(worker, tokens(9))
    const load = await engine.load(http, worker.url, {}, 1_000)
    assert.deepEqual([load?.byRank.get(0)?.waiting, load?.byRank.size], [0, 1])
    await complete(worker, tokens(9))
    const facts = await engine.facts(http, worker.url, {})
    assert.deepEqual(
      [facts?.models[0]?.id, facts?.ranks[0]?.blockSize, facts?.ranks[0]?.capacityBlocks],
      ['model', 4, 100],
    )
    assert.equal((await engine.load(http, worker.url, {}, 1_000))?.byRank.size, metrics ? 1 : 0)
  }
})
