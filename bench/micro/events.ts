// Event batches as vLLM 0.32 sends them (maps; 32 blocks of 16 tokens, the recorded fields), from bytes to the map.
import assert from 'node:assert/strict'
import { decodeBatch } from '../../src/events/decode.ts'
import { Ingest } from '../../src/events/ingest.ts'
import { Normalizer } from '../../src/events/normalize.ts'
import type { WorkerSlot } from '../../src/kv/batch.ts'
import { createKeyMaker } from '../../src/kv/keys.ts'
import { FlatMap } from '../../src/map/flat-map.ts'
import { encodeMsgpack, Wide, type Encodable } from '../../test/support/msgpack.ts'
import { median, printResults, type BenchResult } from '../result.ts'

const blocks = 32
const blockSize = 16
const batches = 2_000
const rounds = 9

/** Batches of different chains; token ids spread over a vocabulary of 128k as real ones do. */
function makeBatches(): Buffer[] {
  let state = 1
  const random = (below: number) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 0x1_0000_0000) * below)
  }
  const hash = () => new Wide((BigInt(random(0x1_0000_0000)) << 32n) | BigInt(random(0x1_0000_0000)))
  return Array.from({ length: batches }, (_, index) => {
    const event: Encodable = {
      type: 'BlockStored',
      block_hashes: Array.from({ length: blocks }, hash),
      parent_block_hash: null,
      token_ids: Array.from({ length: blocks * blockSize }, () => random(128_000)),
      block_size: blockSize,
      lora_id: null,
      medium: 'GPU',
      lora_name: null,
      extra_keys: Array.from({ length: blocks }, () => null),
      group_idx: 0,
      kv_cache_spec_kind: 'full_attention',
    }
    return encodeMsgpack([1_795_419_548.5 + index, [event], 0])
  })
}

export async function run(): Promise<BenchResult[]> {
  const payloads = makeBatches()
  const keys = await createKeyMaker(Buffer.from('bench'))
  const worker = 0 as WorkerSlot
  const bytes = payloads.reduce((sum, payload) => sum + payload.length, 0) / payloads.length
  const normalizer = new Normalizer({
    keys,
    model: 'm',
    blockSize,
    skipped: () => assert.fail(),
    onBlockSize: () => assert.fail(),
  })
  const parts = {
    decode: () => {
      for (const payload of payloads) decodeBatch(payload)
    },
    'decode and locals': () => {
      for (const payload of payloads) normalizer.normalize(decodeBatch(payload).events)
    },
  }
  const map = new FlatMap({ budgetBytes: 256 * 1024 * 1024, maxWorkers: 16 })
  map.addWorker(worker, { countsStores: true, blockSize })
  const ingest = new Ingest({
    worker,
    map,
    keys,
    model: 'm',
    blockSize,
    countsStores: true,
    counters: {
      event: () => undefined,
      blocks: () => undefined,
      skipped: () => undefined,
      gap: () => undefined,
      restart: () => undefined,
      disconnect: () => undefined,
    },
    onBlockSize: () => assert.fail(),
  })
  const store = (): void => {
    for (let index = 0; index < payloads.length; index++) ingest.apply(index, 0, payloads[index]!)
  }
  const samples: Record<string, number[]> = { decode: [], 'decode and locals': [], 'decode, locals and store': [] }
  const blocksPerSecond = (work: () => void): number => {
    const startedAt = performance.now()
    work()
    return (batches * blocks * 1000) / (performance.now() - startedAt)
  }
  for (let round = 0; round < rounds + 2; round++) {
    ingest.clear('start')
    while (map.sweep(10_000));
    // The parts in turn within one round, so that a busy moment of the machine meets all of them.
    const rates = [...Object.values(parts), store].map(blocksPerSecond)
    assert.equal(map.workerBlocks(worker).gpu, batches * blocks)
    if (round >= 2) Object.values(samples).forEach((list, index) => list.push(rates[index]!))
  }
  return Object.entries(samples).map(([name, rates]) => {
    const value = median(rates)
    const goal = name.endsWith('store') ? { goal: '≥ 1 M blocks/s', met: value >= 1e6 } : {}
    return {
      name: `events: ${name}`,
      unit: 'blocks/s',
      value,
      samples: rates,
      ...goal,
      notes: { 'bytes a batch': bytes, 'µs a batch': (blocks * 1e6) / value },
    }
  })
}

if (import.meta.main) printResults(await run())
