import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import {
  vllmBlockDigest,
  vllmRootDigest,
  type VllmAlgorithm,
  type VllmExtraKey,
} from '../../../src/kv/engine-hash/vllm.ts'
import { xxh3With128Bits } from '../../../src/kv/engine-hash/xxh3.ts'

type Extra = string | readonly (string | number | { readonly $bytes_hex: string })[]

interface Vector {
  readonly algorithm: VllmAlgorithm
  readonly seed: string
  readonly root: string
  readonly block_size: number
  readonly token_ids: readonly number[]
  readonly extra_keys: readonly (readonly Extra[] | null)[]
  readonly hashes: readonly string[]
}

const vectors = readFileSync(new URL('../../fixtures/vllm/hash_vectors.jsonl', import.meta.url), 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line) as Vector)

const extraKey = (extra: Extra): VllmExtraKey =>
  typeof extra === 'string'
    ? extra
    : extra.map((part) => (typeof part === 'object' ? Buffer.from(part.$bytes_hex, 'hex') : part))

test('vLLM’s block hashes are recomputed byte for byte, in four algorithms, with seeds, salts, adapters and media', () => {
  assert.equal(new Set(vectors.map(({ algorithm }) => algorithm)).size, 4)
  for (const vector of vectors) {
    let parent = vllmRootDigest(vector.algorithm, vector.seed)
    assert.equal(parent.toString('hex'), vector.root)
    vector.hashes.forEach((expected, block) => {
      const tokens = vector.token_ids.slice(block * vector.block_size, (block + 1) * vector.block_size)
      const extra = (vector.extra_keys[block] ?? []).map(extraKey)
      parent = vllmBlockDigest(vector.algorithm, parent, Uint32Array.from(tokens), extra)
      assert.equal(parent.toString('hex'), expected, `${vector.algorithm} ${vector.seed} block ${block}`)
    })
  }
})

test('XXH3 of no bytes is that of its specification', () => {
  assert.equal(xxh3With128Bits(Buffer.alloc(0)).toString('hex'), '99aa06d3014798d86001c324468d497f')
})
