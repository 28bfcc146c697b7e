import { createHash } from 'node:crypto'
import { xxh3With128Bits } from './xxh3.ts'

/**
 * vLLM 0.32's own names for blocks: the hash of the serialised tuple (digest of the parent, tokens, extra keys), chained by
 * whole digests; the parent of a first block is the hash of a seed string. Events carry the last 8 bytes, big-endian.
 * Names are those of --prefix-caching-hash-algo.
 */
export type VllmAlgorithm = (typeof vllmAlgorithms)[number]

export const vllmAlgorithms = ['sha256', 'sha256_cbor', 'xxhash', 'xxhash_cbor'] as const

/** What vLLM 0.32 takes where PYTHONHASHSEED is not set; the xxhash algorithms then take random bytes. */
export const vllmDefaultSeed = 'vllm-none-hash'

/**
 * What a block's hash covers besides its tokens, in this order: `['lora', name, path]` on every block, `['mm', id, offset]`
 * where media overlap it, `['cache_salt', salt]` on the first block, `['prompt_embeds', digest]`. Older releases put the bare
 * values in.
 */
export type VllmExtraKey = string | readonly (string | number | Buffer)[]

/** The parent of first blocks. */
export function vllmRootDigest(algorithm: VllmAlgorithm, seed: string): Buffer {
  return hash(algorithm, serialisation(algorithm).text(seed))
}

export function vllmBlockDigest(
  algorithm: VllmAlgorithm,
  parent: Buffer,
  tokens: Uint32Array,
  extra: readonly VllmExtraKey[],
): Buffer {
  return hash(algorithm, serialisation(algorithm).block(parent, tokens, extra))
}

interface Serialisation {
  text(value: string): Buffer
  block(parent: Buffer, tokens: Uint32Array, extra: readonly VllmExtraKey[]): Buffer
}

function serialisation(algorithm: VllmAlgorithm): Serialisation {
  return algorithm.endsWith('cbor') ? cbor : pickle
}

function hash(algorithm: VllmAlgorithm, bytes: Buffer): Buffer {
  return algorithm.startsWith('xxhash') ? xxh3With128Bits(bytes) : createHash('sha256').update(bytes).digest()
}

/** Python's pickle protocol 5, one frame: every text, byte string and tuple is memoized (0x94) after it is made. */
const pickle: Serialisation = {
  text: (value) => framed(pickled(value)),
  block(parent, tokens, extra) {
    const body = [...pickled(parent), 0x28]
    for (const token of tokens) body.push(...pickledNumber(token))
    body.push(0x74, 0x94)
    if (extra.length === 0) body.push(0x4e)
    else body.push(...pickledTuple(extra.map((key) => (isText(key) ? pickled(key) : pickledTuple(key.map(pickled))))))
    body.push(0x87, 0x94)
    return framed(body)
  },
}

function framed(body: readonly number[]): Buffer {
  const head = Buffer.from([0x80, 0x05, 0x95, 0, 0, 0, 0, 0, 0, 0, 0])
  head.writeUInt32LE(body.length + 1, 3)
  return Buffer.concat([head, Buffer.from(body), Buffer.of(0x2e)])
}

function pickled(value: string | number | Buffer): readonly number[] {
  if (typeof value === 'number') return pickledNumber(value)
  const isBytes = typeof value !== 'string'
  const bytes = Buffer.from(value)
  const { length } = bytes
  const long = [length & 255, (length >>> 8) & 255, (length >>> 16) & 255, length >>> 24]
  const head = length < 256 ? [isBytes ? 0x43 : 0x8c, length] : [isBytes ? 0x42 : 0x58, ...long]
  return [...head, ...bytes, 0x94]
}

/** Up to three items have an opcode of their own. */
function pickledTuple(items: readonly (readonly number[])[]): number[] {
  return items.length <= 3 ? [...items.flat(), 0x84 + items.length, 0x94] : [0x28, ...items.flat(), 0x74, 0x94]
}

function pickledNumber(value: number): readonly number[] {
  if (value >= 0 && value < 0x100) return [0x4b, value]
  if (value >= 0 && value < 0x10000) return [0x4d, value & 255, value >>> 8]
  const bytes = [value & 255, (value >>> 8) & 255, (value >>> 16) & 255, (value >>> 24) & 255]
  // Its four-byte form is signed.
  return value < 0x80000000 ? [0x4a, ...bytes] : [0x8a, 5, ...bytes, 0]
}

/** Canonical CBOR (RFC 8949, section 4.2). */
const cbor: Serialisation = {
  text: (value) => Buffer.from(inCbor(value)),
  block(parent, tokens, extra) {
    const body = [0x83, ...inCbor(parent), ...cborHead(4, tokens.length)]
    for (const token of tokens) body.push(...cborHead(0, token))
    if (extra.length === 0) body.push(0xf6)
    else body.push(...cborList(extra.map((key) => (isText(key) ? inCbor(key) : cborList(key.map(inCbor))))))
    return Buffer.from(body)
  },
}

function cborList(items: readonly (readonly number[])[]): number[] {
  return [...cborHead(4, items.length), ...items.flat()]
}

function inCbor(value: string | number | Buffer): readonly number[] {
  if (typeof value === 'number') return value < 0 ? cborHead(1, -1 - value) : cborHead(0, value)
  const bytes = Buffer.from(value)
  return [...cborHead(typeof value === 'string' ? 3 : 2, bytes.length), ...bytes]
}

function cborHead(major: number, value: number): readonly number[] {
  const tag = major << 5
  if (value < 24) return [tag | value]
  if (value < 0x100) return [tag | 24, value]
  if (value < 0x10000) return [tag | 25, value >>> 8, value & 255]
  return [tag | 26, value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255]
}

function isText(key: VllmExtraKey): key is string {
  return typeof key === 'string'
}
