// KV events as subscribers receive them, with libzmq (npm zeromq) as the other side.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test, type TestContext } from 'node:test'
import * as zmq from 'zeromq'
import { encodeBatch } from '../../src/simulator/event-encoding.ts'
import type { KvEvent } from '../../src/simulator/kv-event.ts'
import type { SimulatedWorker } from '../../src/simulator/worker.ts'
import { until } from '../support/until.ts'
import { decodeMsgpack } from './msgpack-decoder.ts'
import { post, simulator, simulators } from './simulators.ts'

type EventMap = Readonly<Record<string, unknown>>
type Batch = [timestampSeconds: number, events: EventMap[], rank: number]

interface Received {
  readonly topic: string
  readonly sequence: number
  readonly batch: Batch
}

const tokens = (count: number, first = 1_000): number[] => Array.from({ length: count }, (_, i) => first + i)
const fresh = (frames: readonly Buffer[]): Received => ({
  topic: String(frames.at(-3)),
  sequence: Number(frames.at(-2)?.readBigUInt64BE()),
  batch: decodeMsgpack(frames.at(-1) ?? Buffer.alloc(0)) as Batch,
})

async function subscribe(t: TestContext, worker: SimulatedWorker, rank = 0, topic = ''): Promise<Received[]> {
  const socket = new zmq.Subscriber({ linger: 0 })
  t.after(() => socket.close())
  socket.connect(worker.eventEndpoints(rank).events)
  socket.subscribe(topic)
  const received: Received[] = []
  void (async () => {
    for await (const frames of socket) received.push(fresh(frames))
  })().catch(() => undefined)
  await until(() => worker.publishers[rank]?.subscribers === 1, 'the subscription has arrived')
  return received
}

/** Everything from `start` on, up to and with the end marker. */
async function replayOf(t: TestContext, worker: SimulatedWorker, start: bigint, rank = 0): Promise<Buffer[][]> {
  const socket = new zmq.Dealer({ linger: 0 })
  t.after(() => socket.close())
  socket.connect(worker.eventEndpoints(rank).replay)
  const from = Buffer.alloc(8)
  from.writeBigUInt64BE(start)
  await socket.send(['', from])
  const messages: Buffer[][] = []
  for await (const frames of socket) {
    messages.push(frames)
    if (frames.at(-2)?.equals(Buffer.alloc(8, 0xff)) === true) return messages
  }
  return messages
}

const complete = async (worker: SimulatedWorker, prompt: unknown, more: object = {}, headers = {}): Promise<void> => {
  const answer = await post(worker, '/v1/completions', { prompt, max_tokens: 1, ...more }, { headers })
  assert.equal(answer.status, 200)
  await answer.arrayBuffer()
}

const recorded = readFileSync(new URL('../fixtures/vllm-http/events.jsonl', import.meta.url), 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line) as { payload_base64: string })

/** A decoded event of the engine as the simulator has it. */
function eventOf(event: EventMap): KvEvent {
  const words = (hash: unknown): [number, number] => [
    Number(BigInt(hash as number) & 0xffffffffn),
    Number(BigInt(hash as number) >> 32n),
  ]
  if (event['type'] === 'AllBlocksCleared') return { kind: 'cleared' }
  const hashes = event['block_hashes'] as unknown[]
  if (event['type'] === 'BlockRemoved') {
    const [low, high] = words(hashes[0])
    return { kind: 'removed', tier: 'gpu', low, high }
  }
  const extra = event['extra_keys'] as (string[] | null)[]
  return {
    kind: 'stored',
    tier: 'gpu',
    blockSize: Number(event['block_size']),
    hashes: Uint32Array.from(hashes.flatMap(words)),
    parent: event['parent_block_hash'] === null ? null : words(event['parent_block_hash']),
    tokens: Uint32Array.from(event['token_ids'] as number[]),
    fromStart: event['parent_block_hash'] === null,
    cacheSalt: extra[0]?.[0] ?? null,
    loraName: null,
    loraId: null,
    sessionId: (event['session_id'] as string | undefined) ?? null,
  }
}

test('batches are encoded byte for byte as vLLM 0.32 encoded them', () => {
  for (const { payload_base64: base64 } of recorded) {
    const payload = Buffer.from(base64, 'base64')
    const [timestampSeconds, events, rank] = decodeMsgpack(payload) as Batch
    const ours = encodeBatch(events.map(eventOf), timestampSeconds, { hashes: 'int', rank })
    assert.equal(ours.toString('hex'), payload.toString('hex'))
  }
})

test('a subscriber receives one message a step: topic, sequence from 0, batch', async (t) => {
  const worker = await simulator(t, { worker: { topic: 'kv@127.0.0.1:8000@model' } })
  const received = await subscribe(t, worker, 0, 'kv@')
  await complete(worker, tokens(40), { session_id: 'session-1' })
  await complete(worker, tokens(40))
  await complete(worker, tokens(64), { cache_salt: 'tenant' })
  await until(() => received.length === 2, 'both stores have arrived')
  assert.deepEqual(
    received.map(({ topic, sequence }) => [topic, sequence]),
    [
      ['kv@127.0.0.1:8000@model', 0],
      ['kv@127.0.0.1:8000@model', 1],
    ],
  )
  const [first, second] = received.map(({ batch }) => batch)
  assert(first !== undefined && second !== undefined)
  assert(Math.abs(first[0] - Date.now() / 1_000) < 60)
  assert.equal(first[2], 0)
  const { block_hashes: hashes, token_ids, parent_block_hash, ...rest } = first[1][0] ?? {}
  assert.equal((hashes as unknown[]).length, 2)
  assert.deepEqual([token_ids, parent_block_hash], [tokens(32), null])
  assert.deepEqual(rest, {
    type: 'BlockStored',
    block_size: 16,
    lora_id: null,
    medium: 'GPU',
    lora_name: null,
    extra_keys: [null, null],
    group_idx: 0,
    kv_cache_spec_kind: 'full_attention',
    session_id: 'session-1',
  })
  assert.deepEqual(second[1][0]?.['extra_keys'], [['tenant'], null, null, null])
})

test('hashes are unsigned 64-bit, or bytes whose last eight are the same number', async (t) => {
  const hashes = async (eventHashes: 'int' | 'bytes'): Promise<unknown[]> => {
    const worker = await simulator(t, { worker: { eventHashes } })
    await complete(worker, tokens(640))
    const [message] = await replayOf(t, worker, 0n)
    return fresh(message ?? []).batch[1][0]?.['block_hashes'] as unknown[]
  }
  const ints = (await hashes('int')).map((hash) => BigInt(hash as number))
  const bytes = (await hashes('bytes')) as Buffer[]
  assert(ints.some((hash) => hash > 1n << 63n))
  assert.deepEqual(
    bytes.map((hash) => [hash.length, hash.readBigUInt64BE(24)]),
    ints.map((hash) => [32, hash]),
  )
})

test('adapters are named in their events', async (t) => {
  const worker = await simulator(t, {
    worker: {
      loras: [
        { name: 'a', path: '/a' },
        { name: 'sql', path: '/sql' },
      ],
    },
  })
  await complete(worker, tokens(32), { model: 'sql', cache_salt: 's' })
  const event = fresh((await replayOf(t, worker, 0n))[0] ?? []).batch[1][0]
  assert.deepEqual(
    [event?.['lora_id'], event?.['lora_name'], event?.['extra_keys']],
    [2, 'sql', [['sql', 's'], ['sql']]],
  )
})

test('replay gives what is buffered from a number on, then the end marker', async (t) => {
  const worker = await simulator(t, { worker: { bufferSteps: 3 } })
  for (let i = 0; i < 5; i++) await complete(worker, tokens(20, 1_000 * i))
  const all = await replayOf(t, worker, 0n)
  assert.deepEqual(
    all.slice(0, -1).map((frames) => [frames.length, fresh(frames).sequence]),
    [
      [4, 2],
      [4, 3],
      [4, 4],
    ],
  )
  assert.deepEqual(all.at(-1), [Buffer.alloc(0), Buffer.alloc(0), Buffer.alloc(8, 0xff), Buffer.alloc(0)])
  assert.equal((await replayOf(t, worker, 4n)).length, 2)
  assert.equal((await replayOf(t, worker, 100n)).length, 1)
})

test('dropped events leave a gap that replay fills, unless it has forgotten too', async (t) => {
  const worker = await simulator(t)
  const received = await subscribe(t, worker)
  await complete(worker, tokens(20, 0))
  worker.dropEvents(2)
  for (let i = 1; i < 5; i++) await complete(worker, tokens(20, 1_000 * i))
  await until(() => received.length === 3, 'the batches around the gap have arrived')
  assert.deepEqual(
    received.map(({ sequence }) => sequence),
    [0, 3, 4],
  )
  assert.equal((await replayOf(t, worker, 1n)).length, 5)
  worker.dropEvents(1, { forget: true })
  for (let i = 5; i < 7; i++) await complete(worker, tokens(20, 1_000 * i))
  assert.deepEqual(
    (await replayOf(t, worker, 1n)).slice(0, -1).map((frames) => fresh(frames).sequence),
    [5, 6],
  )
})

test('paused events come later, all and in order', async (t) => {
  const worker = await simulator(t)
  const received = await subscribe(t, worker)
  worker.pauseEvents()
  for (let i = 0; i < 3; i++) await complete(worker, tokens(20, 1_000 * i))
  assert.equal(received.length, 0)
  worker.resumeEvents()
  await until(() => received.length === 3, 'what was held back has arrived')
  assert.deepEqual(
    received.map(({ sequence }) => sequence),
    [0, 1, 2],
  )
})

test('a restarted worker counts from 0 on the same ports', async (t) => {
  const worker = await simulator(t)
  const endpoints = worker.eventEndpoints()
  const received = await subscribe(t, worker)
  await complete(worker, tokens(20))
  await complete(worker, tokens(20, 5_000))
  await until(() => received.length === 2, 'both batches have arrived')
  await worker.restart()
  assert.deepEqual(worker.eventEndpoints(), endpoints)
  await until(() => worker.publishers[0]?.subscribers === 1, 'the subscriber is back')
  await complete(worker, tokens(20))
  await until(() => received.length === 3, 'the first batch of the new process has arrived')
  assert.equal(received[2]?.sequence, 0)
})

test('each rank has its own cache, ports and events; a header pins one, else the least loaded serves', async (t) => {
  const worker = await simulator(t, { worker: { ranks: 2 } })
  const sources = (await (await fetch(`${worker.url}/kv_event_sources`)).json()) as Record<string, EventMap>
  assert.deepEqual(Object.keys(sources), ['0', '1'])
  assert.equal(sources['1']?.['endpoint'], worker.eventEndpoints(1).events)
  assert.equal(sources['1']['replay_endpoint'], worker.eventEndpoints(1).replay)
  const received = await subscribe(t, worker, 1)
  await complete(worker, tokens(20), {}, { 'x-data-parallel-rank': '1' })
  await until(() => received.length === 1, 'rank 1 tells its store')
  assert.equal(received[0]?.batch[2], 1)
  assert.deepEqual(
    worker.stats.map(({ prefixQueryTokens }) => prefixQueryTokens),
    [0, 20],
  )
  const bad = await post(worker, '/v1/completions', { prompt: 'a' }, { headers: { 'x-data-parallel-rank': '2' } })
  assert.equal(bad.status, 400)
})

test('a busy port is named; an engine without events says so', async (t) => {
  const probe = await simulators(t)
  const busy = Number(new URL(probe.urls[0] ?? '').port)
  await assert.rejects(simulators(t, { httpPort: busy }), { code: 'PORT_IN_USE' })
  const quiet = await simulator(t, { eventsPort: null })
  const sources: unknown = await (await fetch(`${quiet.url}/kv_event_sources`)).json()
  assert.deepEqual(sources, { 0: { enable_kv_cache_events: false } })
})
