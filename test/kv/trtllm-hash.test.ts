import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { trtllmBlockHash, trtllmSaltId, type TrtllmHash } from '../../src/kv/engine-hash/trtllm.ts'

interface Vector {
  readonly tokens: readonly number[]
  readonly parent: number | string
  readonly hash: string
  readonly lora_task_id?: number
  readonly cache_salt?: string
  readonly cache_salt_id?: string
}

const { vectors } = JSON.parse(
  readFileSync(new URL('../fixtures/trtllm/hash-vectors-v1.json', import.meta.url), 'utf8'),
) as { readonly vectors: readonly Vector[] }

const wordsOf = (value: bigint): TrtllmHash => ({ low: Number(value & 0xffffffffn), high: Number(value >> 32n) })
const valueOf = ({ low, high }: TrtllmHash): bigint => (BigInt(high) << 32n) | BigInt(low)
const hash = (tokens: readonly number[], parent: bigint | null, scope: object = {}): bigint =>
  valueOf(trtllmBlockHash(Uint32Array.from(tokens), parent === null ? null : wordsOf(parent), scope))

for (const [i, vector] of vectors.entries()) {
  test(`vector ${i} of the ported algorithm is met`, () => {
    const { tokens, parent, lora_task_id: lora, cache_salt: salt } = vector
    const scope = {
      ...(lora === undefined ? {} : { loraTaskId: BigInt(lora) }),
      ...(salt === undefined ? {} : { saltId: trtllmSaltId(salt) }),
    }
    if (salt !== undefined) assert.equal(trtllmSaltId(salt), BigInt(vector.cache_salt_id ?? 0))
    assert.equal(hash(tokens, parent === 0 ? null : BigInt(parent), scope), BigInt(vector.hash))
  })
}

test('without wrapping at 32 bits it gives the values that an earlier manager’s own tests expect', () => {
  const early = { wraps: false }
  const first = hash([1, 2, 3, 4], null, early)
  assert.equal(first, 944812140882783n)
  assert.equal(hash([5, 6], first, early), 12460730416951841444n)
  assert.equal(hash([5, 6, 7, 8], first, early), 1938568495691091294n)
  const salted = hash([1, 2, 3, 4], null, { ...early, saltId: 123n })
  assert.equal(salted, 6269282712567672529n)
  assert.equal(hash([5, 6], salted, { ...early, saltId: 123n }), 9075042320698884212n)
})
