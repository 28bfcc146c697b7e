import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import {
  sglangDigest,
  sglangId,
  sglangNamespace,
  sglangNamespacedId,
  sglangRoot,
  type SglangId,
} from '../../src/kv/engine-hash/sglang.ts'

const fixture = (name: string): string => readFileSync(new URL(`../fixtures/sglang/${name}`, import.meta.url), 'utf8')

const { vectors } = JSON.parse(fixture('hash-vectors.json')) as {
  readonly vectors: readonly {
    readonly page_size: number
    readonly tokens: readonly number[]
    readonly sha256_hex: readonly string[]
    readonly event_int64: readonly string[]
  }[]
}

const signed = ({ low, high }: SglangId): string => BigInt.asIntN(64, (BigInt(high) << 32n) | BigInt(low)).toString()

/** Digests of all full pages. */
function chain(tokens: readonly number[], pageTokens: number, root: Buffer): Buffer[] {
  const digests: Buffer[] = []
  for (let from = 0; from + pageTokens <= tokens.length; from += pageTokens)
    digests.push(sglangDigest(digests.at(-1) ?? root, Uint32Array.from(tokens.slice(from, from + pageTokens))))
  return digests
}

for (const { page_size: pageTokens, tokens, sha256_hex: hexes, event_int64: ids } of vectors)
  test(`pages of ${pageTokens} tokens have the digests and ids that SGLang’s own code gives them`, () => {
    const digests = chain(tokens, pageTokens, sglangRoot(null))
    assert.deepEqual(
      digests.map((digest) => digest.toString('hex')),
      hexes,
    )
    assert.deepEqual(
      digests.map((digest) => signed(sglangId(digest))),
      ids,
    )
  })

/** Hashes and tokens of an event that SGLang's recorder built; hashes as text, since they exceed a double. */
function recorded(name: string): { hashes: string[]; tokens: number[] } {
  const line = fixture('events-0.5.23.jsonl')
    .split('\n')
    .find((text) => text.includes(`"case": "${name}"`))
  const [, hashes = '', tokens = ''] =
    /"block_hashes": \[([^\]]*)\].*?"token_ids": (\[.*?\]|\[\[.*?\]\]), "block_size"/.exec(line ?? '') ?? []
  return { hashes: hashes.split(', '), tokens: (JSON.parse(tokens) as (number | number[])[]).flat() }
}

test('a cache salt goes before the first page', () => {
  const { hashes, tokens } = recorded('cache_salt_default_format')
  const digests = chain(tokens, 4, sglangRoot('tenant-a'))
  assert.deepEqual(
    digests.map((digest) => signed(sglangId(digest))),
    hashes,
  )
})

test('EAGLE’s pairs are hashed id by id', () => {
  const { hashes, tokens } = recorded('eagle_bigram_tokens')
  const digests = chain(tokens, 8, sglangRoot(null))
  assert.deepEqual(
    digests.map((digest) => signed(sglangId(digest))),
    hashes,
  )
})

test('an adapter’s ids are hashed again under its own namespace, which nobody else can know', () => {
  const { hashes, tokens } = recorded('lora_default_format')
  const digests = chain(tokens, 4, sglangRoot(null))
  const ids = (extraKey: string): string[] =>
    digests.map((digest) => signed(sglangNamespacedId(sglangNamespace(extraKey, null), digest)))
  assert.notDeepEqual(ids('one'), ids('other'))
  assert.equal(new Set([...ids('one'), ...ids('other'), ...hashes]).size, 3 * digests.length)
})
