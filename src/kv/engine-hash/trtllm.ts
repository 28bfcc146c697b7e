import { createHash } from 'node:crypto'

/**
 * Block hashes of TensorRT-LLM, algorithm `v1_block_key`: a 64-bit chain over the tokens, the parent's hash in its seed.
 * UNPROVEN: written from the description of `tensorrt_llm/runtime/kv_cache_hash.py` (2026 main), which calls itself equal to
 * the native code; it was never compared with a running engine. `v2_sha256` and `v2_sha256_64` are other algorithms.
 */
export interface TrtllmScope {
  /** The salt's id (`trtllmSaltId`); in the first block's seed. The native manager of the C++ runtime mixes another one. */
  readonly saltId?: bigint
  /** The adapter's number; mixed into every block. */
  readonly loraTaskId?: bigint
  /**
   * Whether a token's word wraps at 32 bits before it is mixed, as in native code. An earlier Python manager did not wrap:
   * NVIDIA's own test values of that time are of this kind.
   */
  readonly wraps?: boolean
}

/** A hash as two words. */
export interface TrtllmHash {
  readonly low: number
  readonly high: number
}

/** The hash of a block; `parent` is null at the start of a chain. */
export function trtllmBlockHash(tokens: Uint32Array, parent: TrtllmHash | null, scope: TrtllmScope = {}): TrtllmHash {
  const { saltId, loraTaskId, wraps = true } = scope
  const parentHash = parent === null ? 0n : wordsToBigInt(parent)
  let seed = BigInt(tokens.length) ^ ((parentHash * parentFactor) & mask64)
  if (parentHash === 0n && saltId !== undefined) seed = mix64(saltId, seed)
  let low = Number(seed & 0xffffffffn)
  let high = Number(seed >> 32n)
  for (const token of tokens) {
    // seed ^= token' + (seed << 6) + (seed >> 2), in words.
    const value = finalize32(token) + combine
    const carryOfValue = wraps || value < word ? 0 : 1
    const sumLow = (value % word) + ((low << 6) >>> 0) + (((low >>> 2) | (high << 30)) >>> 0)
    const sumHigh = ((high << 6) | (low >>> 26)) + (high >>> 2) + Math.floor(sumLow / word) + carryOfValue
    low = (low ^ sumLow) >>> 0
    high = (high ^ sumHigh) >>> 0
  }
  if (loraTaskId === undefined) return { low, high }
  return bigIntToWords(mix64(loraTaskId, wordsToBigInt({ low, high })))
}

/** The number that stands for a cache salt: the first eight bytes of its SHA-256, as a little-endian word. */
export function trtllmSaltId(salt: string): bigint {
  return createHash('sha256').update(salt).digest().readBigUInt64LE(0)
}

const word = 0x1_0000_0000
const mask64 = 0xffff_ffff_ffff_ffffn
const combine = 0x9e3779b9
const parentFactor = 0xbf58476d1ce4e5b9n

function finalize32(value: number): number {
  let mixed = Math.imul((value >>> 16) ^ value, 0x45d9f3b)
  mixed = Math.imul((mixed >>> 16) ^ mixed, 0x45d9f3b)
  return ((mixed >>> 16) ^ mixed) >>> 0
}

function mix64(value: bigint, seed: bigint): bigint {
  let mixed = ((value ^ (value >> 30n)) * 0xbf58476d1ce4e5b9n) & mask64
  mixed = ((mixed ^ (mixed >> 27n)) * 0x94d049bb133111ebn) & mask64
  mixed ^= mixed >> 31n
  return seed ^ ((mixed + BigInt(combine) + ((seed << 6n) & mask64) + (seed >> 2n)) & mask64)
}

function wordsToBigInt({ low, high }: TrtllmHash): bigint {
  return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0)
}

function bigIntToWords(value: bigint): TrtllmHash {
  return { low: Number(value & 0xffffffffn), high: Number(value >> 32n) }
}
