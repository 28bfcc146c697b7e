import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { Ingest } from '../../src/events/ingest.ts'
import type { WorkerSlot } from '../../src/kv/batch.ts'
import {
  vllmBlockDigest,
  vllmRootDigest,
  type VllmAlgorithm,
  type VllmExtraKey,
} from '../../src/kv/engine-hash/vllm.ts'
import { trtllmBlockHash, trtllmSaltId, type TrtllmScope } from '../../src/kv/engine-hash/trtllm.ts'
import { createKeyMaker, type KeyMaker } from '../../src/kv/keys.ts'
import type { RootBlock } from '../../src/kv/root-block.ts'
import type { NativeHash } from '../../src/truth/native/result.ts'
import { verifyRootBlock } from '../../src/truth/native/verify.ts'
import { countingCounters } from '../events/counting.ts'
import { readBatches } from '../events/recorded.ts'
import { NaiveMap } from '../support/naive-map.ts'

let keys: KeyMaker
before(async () => {
  keys = await createKeyMaker(Buffer.from('a secret'))
})

/** The first blocks of all chains in a recording. */
function rootsOf(recording: string): RootBlock[] {
  return rootsOfBatches(readBatches(recording).map(({ payload }) => payload))
}

function rootsOfBatches(payloads: readonly Buffer[]): RootBlock[] {
  const roots: RootBlock[] = []
  const map = new NaiveMap()
  map.addWorker(0 as WorkerSlot, { countsStores: true, blockSize: null })
  const ingest = new Ingest({
    worker: 0 as WorkerSlot,
    map,
    keys,
    model: 'model',
    blockSize: null,
    countsStores: true,
    counters: countingCounters().counters,
    onBlockSize: () => undefined,
    witness: {
      applied: () => undefined,
      cleared: () => undefined,
      root: (block) => roots.push({ ...block, tokens: block.tokens.slice() }),
    },
  })
  payloads.forEach((payload, at) => ingest.apply(at, 0, payload))
  return roots
}

const paths = new Map([
  ['sql-lora', '/tmp/lora/sql-lora'],
  ['dyn-lora', '/tmp/lora/dyn-lora'],
])
const unknown: NativeHash = { algorithm: null, seed: null, adapterPaths: new Map() }

test('the first blocks that a real vLLM announced are verified, salted ones too, whether or not the algorithm is told', () => {
  const roots = rootsOf('vllm/events_A_sha256_bs32.jsonl')
  assert.ok(roots.length > 5)
  assert.ok(roots.some(({ extras }) => extras.length > 0))
  for (const root of roots) {
    for (const hash of [unknown, { ...unknown, algorithm: 'sha256' }, { ...unknown, seed: 'vllm-none-hash' }]) {
      const result = verifyRootBlock('vllm', root, hash)
      assert.deepEqual(result, { kind: 'verified', algorithm: 'sha256', seed: 'vllm-none-hash' })
    }
  }
})

test('a usual seed is found where none is configured, and a configured one that is wrong is named', () => {
  const roots = rootsOf('vllm/events_C_xxhashcbor_bs64_seed0.jsonl').filter(({ adapter }) => adapter === null)
  assert.ok(roots.length > 1)
  for (const root of roots) {
    assert.deepEqual(verifyRootBlock('vllm', root, { ...unknown, algorithm: 'xxhash_cbor' }), {
      kind: 'verified',
      algorithm: 'xxhash_cbor',
      seed: '0',
    })
    const wrong = verifyRootBlock('vllm', root, { ...unknown, algorithm: 'xxhash_cbor', seed: '7' })
    assert.equal(wrong.kind === 'mismatch' && wrong.cause, 'hash_seed')
  }
})

const tokens = Uint32Array.from({ length: 32 }, (_, i) => 1000 + i)

/** A first block as an engine names it that makes its names in this way. */
function named(
  told: Partial<RootBlock>,
  by: { algorithm?: VllmAlgorithm; seed?: string; tokens?: Uint32Array; extra?: readonly VllmExtraKey[] },
): RootBlock {
  const { algorithm = 'sha256', seed = 'vllm-none-hash', extra = [] } = by
  const digest = vllmBlockDigest(algorithm, vllmRootDigest(algorithm, seed), by.tokens ?? tokens, extra)
  return {
    tokens,
    hashLow: digest.readUInt32BE(digest.length - 4),
    hashHigh: digest.readUInt32BE(digest.length - 8),
    adapter: null,
    extras: [],
    plainLow: 0,
    plainHigh: 0,
    ...told,
  }
}

const told: NativeHash = { algorithm: 'sha256', seed: null, adapterPaths: paths }

test('a mismatch says what differs: salt, adapter, block size, algorithm', () => {
  const salted = { extras: ['salt:tenant'] }
  const cases: [string, RootBlock][] = [
    ['salt', named(salted, {})],
    ['lora', named({ adapter: 'sql-lora' }, {})],
    ['block_size', named({}, { tokens: tokens.subarray(0, 16) })],
    ['hash_seed', named({}, { algorithm: 'sha256_cbor' })],
  ]
  for (const [cause, block] of cases) {
    const result = verifyRootBlock('vllm', block, told)
    assert.equal(result.kind === 'mismatch' && result.cause, cause)
  }
})

test('adapters, media and older releases’ extra keys are verified', () => {
  const lora: VllmExtraKey = ['lora', 'sql-lora', '/tmp/lora/sql-lora']
  const blocks = [
    named({ adapter: 'sql-lora', extras: ['salt:a'] }, { extra: [lora, ['cache_salt', 'a']] }),
    named(
      { extras: ['mm:abc@-3', 'mm:def@9'] },
      {
        extra: [
          ['mm', 'abc', -3],
          ['mm', 'def', 9],
        ],
      },
    ),
    named({ extras: ['salt:a'] }, { extra: ['a'], seed: '0' }),
    named({ extras: ['embeds:00ff'] }, { extra: [['prompt_embeds', Buffer.of(0, 255)]] }),
  ]
  for (const block of blocks) assert.equal(verifyRootBlock('vllm', block, told).kind, 'verified')
})

test('a seed that nobody could know is unverified, not a reproach; and so is another engine’s hash', () => {
  const random = named({}, { algorithm: 'xxhash', seed: 'random bytes' })
  assert.equal(verifyRootBlock('vllm', random, { ...told, algorithm: 'xxhash' }).kind, 'unverified')
  assert.equal(verifyRootBlock('vllm', random, { ...told, algorithm: 'fast' }).kind, 'unverified')
  assert.equal(verifyRootBlock('trtllm', random, unknown).kind, 'unverified')
})

test('the first pages that SGLang announced are verified, salted ones too; those of adapters cannot be', () => {
  // The recording has batches of several engines under one number: each is read on its own.
  const roots = readBatches('sglang/events-0.5.23.jsonl').flatMap(({ payload }) => rootsOfBatches([payload]))
  assert.ok(roots.length > 5)
  const states = roots.map((root) => verifyRootBlock('sglang', root, unknown))
  assert.ok(states.filter(({ kind }) => kind === 'verified').length >= 4, JSON.stringify(states))
  roots.forEach(({ adapter }, at) =>
    assert.equal(states[at]?.kind === 'unverified', adapter !== null, JSON.stringify(states[at])),
  )
  const salted = roots.find(({ extras, adapter }) => extras.length > 0 && adapter === null)
  assert.ok(salted !== undefined)
  const wrong = verifyRootBlock('sglang', { ...salted, extras: ['salt:another'] }, unknown)
  assert.equal(wrong.kind, 'unverified')
  const plain = roots.find(({ extras, adapter }) => extras.length === 0 && adapter === null)
  assert.ok(plain !== undefined)
  const ignored = verifyRootBlock('sglang', { ...plain, extras: ['salt:tenant'] }, unknown)
  assert.equal(ignored.kind === 'mismatch' && ignored.cause, 'salt')
})

test('first blocks of TensorRT-LLM are verified by either form of its hash; an adapter that no event names is found', () => {
  const block = (scope: TrtllmScope, told: Partial<RootBlock> = {}, of = tokens): RootBlock => {
    const { low, high } = trtllmBlockHash(of, null, scope)
    return { ...named(told, {}), hashLow: low, hashHigh: high }
  }
  const salted = { extras: ['salt:tenant'] }
  const kindOf = (root: RootBlock): string => {
    const result = verifyRootBlock('trtllm', root, unknown)
    return result.kind === 'mismatch' ? result.cause : result.kind
  }
  assert.equal(kindOf(block({})), 'verified')
  assert.equal(kindOf(block({ wraps: false })), 'verified')
  assert.equal(kindOf(block({ saltId: trtllmSaltId('tenant') }, salted)), 'verified')
  assert.equal(kindOf(block({ loraTaskId: 3n }, { adapter: 'sql' })), 'verified')
  assert.equal(kindOf(block({ loraTaskId: 3n })), 'lora')
  assert.equal(kindOf(block({}, salted)), 'salt')
  assert.equal(kindOf(block({}, {}, tokens.subarray(0, 16))), 'block_size')
  assert.equal(kindOf(block({ saltId: 99n }, salted)), 'unverified')
  assert.equal(kindOf(named({}, {})), 'unverified')
})
