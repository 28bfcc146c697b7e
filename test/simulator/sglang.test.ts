import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test, type TestContext } from 'node:test'
import { decodeBatch, type DecodedEvent } from '../../src/events/decode.ts'
import { sglang } from '../../src/simulator/flavours/sglang.ts'
import type { BlockStored, KvEvent } from '../../src/simulator/kv-event.ts'
import { SetLike } from '../../src/simulator/set-like.ts'
import { encodeSglangBatch } from '../../src/simulator/sglang-events.ts'
import type { SimulatorsOptions } from '../../src/simulator/simulate.ts'
import type { SimulatedWorker } from '../../src/simulator/worker.ts'
import { systemClock } from '../../src/zmtp/clock.ts'
import { SubSocket } from '../../src/zmtp/sub-socket.ts'
import { until } from '../support/until.ts'
import { decodeMsgpack } from './msgpack-decoder.ts'
import { eventsOf, post, simulator } from './simulators.ts'

const tokens = (count: number, first = 1_000): number[] => Array.from({ length: count }, (_, i) => first + i)

function engine(t: TestContext, settings: Parameters<typeof sglang>[0], more: Partial<SimulatorsOptions> = {}) {
  return simulator(t, { ...more, worker: { flavour: sglang(settings), ...more.worker } })
}

async function get(worker: SimulatedWorker, path: string): Promise<Record<string, unknown>> {
  return (await (await fetch(worker.url + path)).json()) as Record<string, unknown>
}

const tiers = { GPU: 'gpu', CPU_PINNED: 'host', DISK: 'disk', EXTERNAL: 'shared' } as const

function simulated(event: DecodedEvent): readonly KvEvent[] {
  if (event.kind === 'clear') return [{ kind: 'cleared' }]
  const { hashes } = event
  const tier = tiers[(event.medium ?? 'GPU') as keyof typeof tiers]
  if (event.kind === 'remove')
    return Array.from({ length: hashes.length / 2 }, (_, i) => ({
      kind: 'removed',
      tier,
      low: hashes[2 * i] ?? 0,
      high: hashes[2 * i + 1] ?? 0,
    }))
  const parent = event.parent === null ? null : ([event.parent[0] ?? 0, event.parent[1] ?? 0] as const)
  const { blockSize, cacheSalt, loraName, sessionId } = event
  const scope = { cacheSalt, loraName, loraId: null, sessionId, fromStart: parent === null }
  return [{ kind: 'stored', tier, hashes, parent, tokens: event.tokens, blockSize, ...scope }]
}

for (const line of readFileSync(new URL('../fixtures/sglang/events-0.5.23.jsonl', import.meta.url), 'utf8').split(
  '\n',
)) {
  if (line === '' || line.includes('eagle')) continue
  const { case: name, payload_base64: text } = JSON.parse(line) as { case: string; payload_base64: string }
  test(`its events are byte for byte what SGLang’s own structures make of them: ${name}`, () => {
    const payload = Buffer.from(text, 'base64')
    const { timestamp, rank, events } = decodeBatch(payload)
    assert.deepEqual(encodeSglangBatch(events.flatMap(simulated), timestamp, rank ?? 0), payload)
  })
}

test('a second copy of a block is not told, nor is its end while the first one stays', () => {
  const tree = new SetLike()
  const stored = (first: number, end: number): BlockStored => ({
    kind: 'stored',
    tier: 'gpu',
    blockSize: 2,
    hashes: Uint32Array.from({ length: 2 * (end - first) }, (_, i) => 10 * first + i),
    parent: first === 0 ? null : [10, 10],
    tokens: Uint32Array.from({ length: 2 * (end - first) }, (_, i) => i),
    fromStart: first === 0,
    cacheSalt: null,
    loraName: null,
    loraId: null,
    sessionId: null,
  })
  const removed: KvEvent = { kind: 'removed', tier: 'gpu', low: 2, high: 3 }
  assert.equal(tree.of([stored(0, 2)]).length, 1)
  const [more, ...none] = tree.of([stored(0, 3)])
  assert.deepEqual(none, [])
  assert(more?.kind === 'stored')
  assert.deepEqual([...more.hashes, ...(more.parent ?? []), ...more.tokens], [4, 5, 2, 3, 4, 5])
  assert.deepEqual(tree.of([removed]), [])
  assert.deepEqual(tree.of([removed]), [removed])
  assert.equal(tree.of([{ kind: 'cleared' }, stored(0, 2)]).length, 2)
})

test('it tells where its events are, with the ports of all ranks in a row', async (t) => {
  const worker = await engine(t, { publishLoad: true }, { worker: { ranks: 3, topic: 'kv' }, engine: { blockSize: 8 } })
  for (const path of ['/server_info', '/get_server_info']) {
    const { kv_events: events, max_total_num_tokens: capacity } = await get(worker, path)
    const { endpoint_port_base: base, load_endpoint_port_base: load } = events as Record<string, number>
    assert.deepEqual(events, {
      publisher: 'zmq',
      endpoint_host: '127.0.0.1',
      endpoint_port_base: base,
      topic: 'kv',
      block_size: 8,
      dp_size: 3,
      replay_endpoint_port_base: (events as Record<string, number>)['replay_endpoint_port_base'],
      load_endpoint_port_base: load,
      load_topic: 'load',
    })
    assert.equal(worker.eventEndpoints(2).events, `tcp://127.0.0.1:${(base ?? 0) + 2}`)
    assert.equal(capacity, 8 * 8_192)
  }
  const { events } = worker.eventEndpoints(1)
  await worker.restart()
  assert.equal(worker.eventEndpoints(1).events, events)
})

test('without events it tells of none', async (t) => {
  const worker = await engine(t, {}, { eventsPort: null })
  assert.equal((await get(worker, '/server_info'))['kv_events'], null)
})

test('usage tells the cached tokens only where that was asked for, and nothing where nothing was cached', async (t) => {
  const ask = async (worker: SimulatedWorker): Promise<unknown> => {
    const answer = await post(worker, '/v1/completions', { prompt: tokens(40), max_tokens: 1 })
    return ((await answer.json()) as { usage: { prompt_tokens_details: unknown } }).usage.prompt_tokens_details
  }
  const telling = await engine(t, { cacheReport: true })
  assert.deepEqual([await ask(telling), await ask(telling)], [null, { cached_tokens: 32 }])
  const silent = await engine(t, {})
  assert.deepEqual([await ask(silent), await ask(silent)], [null, null])
})

test('a stream ends each choice in an event of its own, then tells the usage', async (t) => {
  const worker = await engine(t, { cacheReport: true })
  const messages = [{ role: 'user', content: 'a few words' }]
  const more = { max_tokens: 2, stream: true, stream_options: { include_usage: true } }
  const answer = await post(worker, '/v1/chat/completions', { model: 'model', messages, ...more })
  const events = eventsOf(await answer.text()) as { choices?: { delta: object; finish_reason: string | null }[] }[]
  const deltas = events.flatMap(({ choices }) => choices ?? []).map(({ delta }) => delta as Record<string, unknown>)
  assert.deepEqual(
    deltas.map(({ role, content }) => [role, typeof content]),
    [
      ['assistant', 'string'],
      [null, 'string'],
      [null, 'string'],
      [null, 'object'],
    ],
  )
  assert.equal(events.at(-3)?.choices?.[0]?.finish_reason, 'length')
  assert.deepEqual(events.at(-2)?.choices, [])
  assert.equal(events.at(-1), '[DONE]')
})

test('a chat may come as ids, and an adapter as the part of the model’s name behind a colon', async (t) => {
  const worker = await engine(t, { cacheReport: true }, { worker: { loras: [{ name: 'sql', path: '/sql' }] } })
  const chat = async (model: string, more: object = {}): Promise<number> => {
    const messages = [{ role: 'user', content: 'ignored' }]
    const body = { model, messages, input_ids: tokens(40), max_tokens: 1, ...more }
    const answer = (await (await post(worker, '/v1/chat/completions', body)).json()) as {
      model: string
      usage: { prompt_tokens: number; prompt_tokens_details: { cached_tokens: number } | null }
    }
    assert.equal(answer.model, model)
    assert.equal(answer.usage.prompt_tokens, 40)
    return answer.usage.prompt_tokens_details?.cached_tokens ?? 0
  }
  assert.deepEqual([await chat('model'), await chat('sql'), await chat('model:sql')], [0, 32, 0])
  assert.equal(await chat('model', { lora_path: 'sql' }), 32)
  assert.equal(await chat('model', { cache_salt: 'a' }), 0)
  const rows = (await get(worker, '/v1/models'))['data'] as { id: string; parent: string | null }[]
  assert.deepEqual(
    rows.map(({ id, parent }) => [id, parent]),
    [
      ['model', null],
      ['sql', 'model'],
    ],
  )
})

test('its tokenizer takes texts, one or many, and no chats', async (t) => {
  const worker = await engine(t, {})
  const ask = async (path: string, body: object): Promise<Record<string, unknown>> =>
    (await (await post(worker, path, body)).json()) as Record<string, unknown>
  const plain = { add_special_tokens: false }
  const one = await ask('/tokenize', { prompt: 'a few words', ...plain })
  const many = await ask('/v1/tokenize', { prompt: ['a few words', 'words'], ...plain })
  assert.deepEqual(one['tokens'], (many['tokens'] as unknown[])[0])
  assert.equal(one['count'], (many['count'] as unknown[])[0])
  assert.equal((await ask('/tokenize', { messages: [{ role: 'user', content: 'a' }] }))['code'], 400)
  assert.equal((await ask('/detokenize', { tokens: one['tokens'] }))['text'], 'a few words')
})

test('a refusal is in SGLang’s flat form', async (t) => {
  const worker = await engine(t, {})
  const answer = await post(worker, '/v1/completions', { prompt: 5 })
  assert.equal(answer.status, 400)
  const body = (await answer.json()) as Record<string, unknown>
  assert.deepEqual([body['object'], body['code'], typeof body['message']], ['error', 400, 'string'])
})

test('the load of each rank can be asked for, scraped where metrics are on, and heard where it is published', async (t) => {
  const worker = await engine(t, { metrics: true, publishLoad: true }, { worker: { ranks: 2 } })
  const { loads } = (await get(worker, '/v1/loads?include=core')) as { loads: Record<string, unknown>[] }
  assert.deepEqual(
    loads.map((load) => [load['dp_rank'], load['num_running_reqs'], load['max_total_num_tokens']]),
    [
      [0, 0, 131_072],
      [1, 0, 131_072],
    ],
  )
  const text = await (await fetch(`${worker.url}/metrics`)).text()
  assert.match(text, /^sglang:num_queue_reqs\{dp_rank="1",model_name="model"\} 0$/m)
  const heard: unknown[] = []
  const socket = new SubSocket({
    topics: ['load'],
    clock: systemClock,
    random: Math.random,
    onMessage: (frames) => heard.push(decodeMsgpack(frames[2] ?? Buffer.alloc(0))),
  })
  t.after(() => socket.close())
  socket.connect(worker.places['load'] ?? '')
  await until(() => heard.length > 0, 'an idle rank tells its load')
  assert.deepEqual(heard[0], ['LoadStat', 0, 0, 0, 131_072, 0, 0, 0, 256, 0, 0])
  await post(
    worker,
    '/v1/completions',
    { prompt: tokens(40), max_tokens: 1 },
    { headers: { 'x-data-parallel-rank': '0' } },
  )
  await until(() => (heard.at(-1) as unknown[])[9] === 40, 'the tokens that it computed are told')
})
