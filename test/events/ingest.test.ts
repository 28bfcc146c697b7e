// Recorded event streams through decoding and normalizing into a map: does it say what the engine held?
import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { Ingest } from '../../src/events/ingest.ts'
import { Losses } from '../../src/events/losses.ts'
import type { NamedBatch, WorkerSlot } from '../../src/kv/batch.ts'
import { blockKeys, createKeyMaker, type KeyMaker } from '../../src/kv/keys.ts'
import { FlatMap } from '../../src/map/flat-map.ts'
import type { CacheMap } from '../../src/map/map.ts'
import { encodeMsgpack } from '../support/msgpack.ts'
import { NaiveMap } from '../support/naive-map.ts'
import { countingCounters } from './counting.ts'
import { readBatches, readLines, sglangRecordings, vllmRecordings } from './recorded.ts'

const worker = 0 as WorkerSlot
let keys: KeyMaker
before(async () => {
  keys = await createKeyMaker(Buffer.from('a secret'))
})

function setUp(blockSize: number | null, map: CacheMap = new NaiveMap(), losses?: Losses) {
  const counted = countingCounters()
  const sunk: (NamedBatch | string)[] = []
  const sizes: number[] = []
  map.addWorker(worker, { countsStores: true, blockSize })
  const ingest = new Ingest({
    worker,
    map,
    keys,
    model: 'model',
    blockSize,
    countsStores: true,
    sink: { batch: (batch) => sunk.push(batch), cleared: (reason) => sunk.push(reason) },
    ...(losses === undefined ? {} : { losses }),
    counters: counted.counters,
    onBlockSize: (size) => sizes.push(size),
  })
  const blocksOf = (tokens: readonly number[], options: { adapter?: string; salt?: string; size: number }) => {
    const scope = keys.scope({ model: 'model', blockSize: options.size, adapter: options.adapter ?? null })
    const extras = options.salt === undefined ? undefined : [[`salt:${options.salt}`]]
    const out = {
      gpu: new Uint32Array(1),
      host: new Uint32Array(1),
      disk: new Uint32Array(1),
      shared: new Uint32Array(1),
    }
    map.match([{ blockSize: options.size, keys: blockKeys(Uint32Array.from(tokens), scope, extras) }], out)
    return out.gpu[0] ?? 0
  }
  return { map, ingest, sunk, sizes, counted, blocksOf }
}

for (const [name, makeMap] of [
  ['the plain map', () => new NaiveMap()],
  ['the flat map', () => new FlatMap({ budgetBytes: 64 * 1024 * 1024, maxWorkers: 16 })],
] as const) {
  test(`after each recorded request of vLLM ${name} holds exactly its prompt and answer`, () => {
    const { ingest, blocksOf, counted, sizes } = setUp(null, makeMap())
    const batches = readBatches('vllm/events_A_sha256_bs32.jsonl')
    const steps = readLines('vllm/steps_A_sha256_bs32.jsonl') as {
      step: string
      request: { cache_salt?: string } | null
      prompt_token_ids: number[] | null
      generated_token_ids: number[] | null
      event_seqs: number[]
    }[]
    const cached = new Map<string, number>()
    let checked = 0
    for (const { step, request, prompt_token_ids: prompt, generated_token_ids: generated, event_seqs } of steps) {
      const options = { size: 32, ...(request?.cache_salt !== undefined && { salt: request.cache_salt }) }
      if (prompt !== null) cached.set(step, blocksOf(prompt, options))
      for (const seq of event_seqs) ingest.apply(seq, 0, batches[seq]!.payload)
      if (prompt === null || generated === null) continue
      // The last generated token has no keys and values yet.
      const all = step === '17_batch_two_prompts' ? prompt : [...prompt, ...generated.slice(0, -1)]
      assert.equal(blocksOf(all, options), Math.floor(all.length / 32), step)
      checked++
    }
    assert.equal(checked, 18)
    // Before a request: what it shares with those before it, by what the engine announced as new.
    assert.equal(cached.get('01_fresh_prompt'), 0)
    assert.equal(cached.get('02_repeat_same_prompt'), 13)
    assert.equal(cached.get('03_longer_shared_prefix'), 13)
    assert.deepEqual(
      [cached.get('07_cache_salt_A'), cached.get('08_cache_salt_B'), cached.get('09_cache_salt_A_again')],
      [0, 0, 3],
      'tenants share nothing',
    )
    assert.equal(cached.get('19_after_reset'), 3, 'a reset is announced with the next request only')
    assert.equal(
      blocksOf((steps[0] as { prompt_token_ids: number[] }).prompt_token_ids, { size: 32 }),
      0,
      'and then forgets the rest',
    )
    assert.deepEqual(sizes, [32])
    assert.deepEqual(counted.skipped(), {})
  })
}

test('a block that was stored twice survives its first removal', () => {
  const { ingest, blocksOf } = setUp(128)
  const prompt = Array.from({ length: 256 }, () => 31)
  const held = readBatches('vllm/events_B2_dup_refcount.jsonl').map(({ seq, payload }) => {
    ingest.apply(seq, 0, payload)
    return blocksOf(prompt, { size: 128 })
  })
  assert.deepEqual(held, [2, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 2])
})

test('adapters and salts share nothing with the base model or each other', () => {
  const { ingest, blocksOf } = setUp(64)
  const prompt = Array.from({ length: 192 }, (_, i) => 1000 + i)
  const held = readBatches('vllm/events_C_xxhashcbor_bs64_seed0.jsonl')
    .slice(0, 4)
    .map(({ seq, payload }) => {
      ingest.apply(seq, 0, payload)
      return [{}, { adapter: 'sql-lora' }, { adapter: 'sql-lora', salt: 'tenant-A' }, { adapter: 'dyn-lora' }].map(
        (own) => blocksOf(prompt, { size: 64, ...own }),
      )
    })
  assert.deepEqual(held, [
    [3, 0, 0, 0],
    [3, 3, 0, 0],
    [3, 3, 3, 0],
    [3, 3, 3, 3],
  ])
})

test('a recorded replay leads to the same map as the live stream', () => {
  const { ingest, map, counted } = setUp(128)
  for (const line of readLines('vllm/replay_B.jsonl') as {
    socket: string
    start_seq: number
    frames_base64: string[]
  }[]) {
    const frames = line.frames_base64.map((frame) => Buffer.from(frame, 'base64'))
    if (line.socket === 'DEALER' && line.start_seq === 0 && frames.at(-1)!.length > 0)
      ingest.apply(Number(frames.at(-2)!.readBigUInt64BE()), 0, frames.at(-1)!)
  }
  assert.deepEqual(counted.skipped(), {})
  assert.ok(map.workerBlocks(worker).gpu > 0)
  assert.ok(counted.events()['stored']! > 10)
})

test('recorded events of SGLang: tiers one by one, salts, adapters, a short last page', () => {
  const held: Record<string, unknown> = {}
  for (const path of sglangRecordings) {
    for (const { case: name, payload, seq } of readBatches(path)) {
      const { ingest, map, counted } = setUp(4)
      ingest.apply(seq, 0, payload)
      held[name ?? ''] = { ...map.workerBlocks(worker), skipped: counted.skipped() }
    }
  }
  const none = { gpu: 0, host: 0, disk: 0, skipped: {} }
  assert.deepEqual(held['gpu_store_chain_page4'], { ...none, gpu: 5 })
  assert.deepEqual(held['hicache_cpu_store_then_gpu_remove_then_cpu_remove'], {
    ...none,
    skipped: { unknown_removal: 3 },
  })
  assert.deepEqual(held['all_media'], { ...none, gpu: 1, host: 1, disk: 1, skipped: { store_left_out: 1 } })
  assert.deepEqual(held['partial_last_page'], { ...none, gpu: 1, skipped: { short_page: 1 } })
  assert.deepEqual(held['eagle_bigram_tokens'], { ...none, skipped: { eagle: 1 } })
  assert.deepEqual(held['legacy_store'], { ...none, gpu: 2 })
})

test('what comes out of the sink makes the same map elsewhere, clears included', () => {
  const { ingest, sunk, map, sizes } = setUp(null)
  const twin = setUp(null)
  const [first, second] = vllmRecordings
  for (const { seq, payload } of readBatches(first!)) ingest.apply(seq, 1, payload)
  const epoch = ingest.epoch
  ingest.clear('gap')
  assert.equal(ingest.epoch, epoch + 1)
  assert.deepEqual(map.workerBlocks(worker), { gpu: 0, host: 0, disk: 0 })
  for (const { seq, payload } of readBatches(second!)) ingest.apply(seq, 2, payload)
  for (const told of sunk) {
    if (typeof told === 'string') twin.ingest.forget(told)
    else twin.ingest.follow(told)
  }
  assert.deepEqual(twin.map.workerBlocks(worker), map.workerBlocks(worker))
  assert.ok(map.workerBlocks(worker).gpu > 0)
  assert.deepEqual(twin.sizes, sizes)
  assert.deepEqual(twin.ingest.position, ingest.position)
  assert.deepEqual(twin.ingest.learned, ingest.learned)
  assert.deepEqual(twin.sunk, [], 'what was had from others is not told again')
})

test('each batch names the one before it, and the first after a clear names none', () => {
  const { ingest, sunk } = setUp(32)
  const { payload } = readBatches(vllmRecordings[0]!)[0]!
  ingest.apply(4, 0.5, payload)
  ingest.apply(5, 0.75, Buffer.alloc(0))
  ingest.clear('restart')
  ingest.apply(0, 1.5, payload)
  const previous = sunk.map((told) => (typeof told === 'string' ? told : told.previous))
  assert.deepEqual(previous, [null, { sequence: 4, timestamp: 0.5 }, 'restart', null])
})

test('a batch that cannot be decoded is counted and changes nothing', () => {
  const { ingest, map, counted, sunk } = setUp(32)
  ingest.apply(0, 0, readBatches(vllmRecordings[0]!)[0]!.payload)
  const before = map.workerBlocks(worker)
  ingest.apply(1, 0, Buffer.from('not msgpack'))
  ingest.apply(2, 0, encodeMsgpack([1, [{ type: 'Unheard' }, ['BlockRemoved', 'x']], 0]))
  ingest.apply(2, 0, Buffer.alloc(0))
  assert.deepEqual(map.workerBlocks(worker), before)
  assert.deepEqual(counted.skipped(), { batch_malformed: 2, unknown_kind: 1, event_malformed: 1 })
  assert.equal(sunk.length, 4, 'it has its place in the order all the same')
})

test('a stream that keeps losing batches is left alone, what was concluded meanwhile stays, and later it counts again', () => {
  const now = { ms: 0 }
  const losses = new Losses(
    () => ({ gaps: 2, withinSeconds: 10 }),
    () => now.ms,
  )
  const map = new FlatMap({ budgetBytes: 64 * 1024 * 1024, maxWorkers: 16 })
  const { ingest, counted } = setUp(null, map, losses)
  const batches = readBatches(vllmRecordings[0]!)
  const tell = (): void => batches.forEach(({ payload }, sequence) => ingest.apply(sequence, 1, payload))
  tell()
  const blocks = map.workerBlocks(worker).gpu
  assert.ok(blocks > 0)
  ingest.clear('gap')
  assert.equal(ingest.isLossy, false)
  tell()
  assert.equal(map.workerBlocks(worker).gpu, blocks)
  ingest.clear('gap')
  assert.equal(ingest.isLossy, true)
  tell()
  assert.equal(map.workerBlocks(worker).gpu, 0)
  assert.equal(counted.skipped()['stream_lossy'], batches.length)
  map.assume(worker, [{ kind: 'hold', tier: 0, keys: Uint32Array.of(1, 2, 3, 4), parent: null }])
  now.ms = 5_000
  ingest.clear('gap')
  assert.equal(map.workerBlocks(worker).gpu, 2)
  now.ms = 15_001
  assert.equal(ingest.isLossy, false)
  tell()
  assert.equal(map.workerBlocks(worker).gpu, blocks)
})

test('a restarted engine that was lossy is believed again', () => {
  const losses = new Losses(
    () => ({ gaps: 1, withinSeconds: 10 }),
    () => 0,
  )
  const { ingest } = setUp(null, new NaiveMap(), losses)
  ingest.clear('gap')
  assert.equal(ingest.isLossy, true)
  ingest.clear('restart')
  assert.equal(ingest.isLossy, false)
})
