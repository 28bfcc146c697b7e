import { createHash } from 'node:crypto'
import type { BlockHash, HashScope } from './block-hash.ts'

/**
 * vLLM 0.32's own block hashes, for byte-for-byte equal events: SHA-256 over the serialised tuple (parent digest, tokens,
 * extra keys), chained by whole digests; the first parent is the digest of a seed string. Events carry the last 8 bytes.
 *
 * @param serialisation `pickle` is --prefix-caching-hash-algo sha256 (vLLM's default), `cbor` is sha256_cbor
 * @param seed PYTHONHASHSEED where it is set, else vLLM's constant
 */
export function vllmBlockHash(serialisation: 'pickle' | 'cbor', seed = 'vllm-none-hash'): BlockHash {
  const serialised = serialisation === 'pickle' ? pickle : cbor
  const root = sha256(serialised.text(seed))
  return (scope, blockSize) => {
    let parent = root
    let first = true
    return {
      append(tokens, from) {
        parent = sha256(serialised.block(parent, tokens.subarray(from, from + blockSize), extraKeys(scope, first)))
        first = false
      },
      get low() {
        return parent.readUInt32BE(28)
      },
      get high() {
        return parent.readUInt32BE(24)
      },
    }
  }
}

type ExtraKeys = readonly (readonly string[])[]

interface Serialisation {
  text(value: string): Buffer
  block(parent: Buffer, tokens: Uint32Array, extra: ExtraKeys): Buffer
}

/** The adapter belongs to every block, the salt to the first. */
function extraKeys({ loraName, loraPath, cacheSalt }: HashScope, first: boolean): ExtraKeys {
  return [
    ...(loraName === null ? [] : [['lora', loraName, loraPath ?? '']]),
    ...(first && cacheSalt !== null ? [['cache_salt', cacheSalt]] : []),
  ]
}

/** Python's pickle protocol 5, one frame: every text, byte string and tuple is memoized (0x94) after it is made. */
const pickle: Serialisation = {
  text: (value) => framed([...pickledText(value)]),
  block(parent, tokens, extra) {
    const body = [0x43, parent.length, ...parent, 0x94, 0x28]
    for (const token of tokens) body.push(...pickledNumber(token))
    body.push(0x74, 0x94)
    if (extra.length === 0) body.push(0x4e)
    else body.push(...pickledTuple(extra.map((key) => pickledTuple(key.map(pickledText)))))
    body.push(0x87, 0x94)
    return framed(body)
  },
}

function framed(body: readonly number[]): Buffer {
  const head = Buffer.from([0x80, 0x05, 0x95, 0, 0, 0, 0, 0, 0, 0, 0])
  head.writeUInt32LE(body.length + 1, 3)
  return Buffer.concat([head, Buffer.from(body), Buffer.of(0x2e)])
}

function pickledText(value: string): number[] {
  const bytes = Buffer.from(value)
  const { length } = bytes
  const head = length < 256 ? [0x8c, length] : [0x58, length & 255, (length >>> 8) & 255, (length >>> 16) & 255, 0]
  return [...head, ...bytes, 0x94]
}

/** Up to three items have an opcode of their own; an engine's extra keys are never more. */
function pickledTuple(items: readonly (readonly number[])[]): number[] {
  return [...items.flat(), 0x84 + items.length, 0x94]
}

function pickledNumber(value: number): readonly number[] {
  if (value < 0x100) return [0x4b, value]
  if (value < 0x10000) return [0x4d, value & 255, value >>> 8]
  const bytes = [value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24]
  // Its four-byte form is signed.
  return value < 0x80000000 ? [0x4a, ...bytes] : [0x8a, 5, ...bytes, 0]
}

/** Canonical CBOR (RFC 8949, section 4.2). */
const cbor: Serialisation = {
  text: (value) => Buffer.from(cborText(value)),
  block(parent, tokens, extra) {
    const body = [0x83, ...cborHead(2, parent.length), ...parent, ...cborHead(4, tokens.length)]
    for (const token of tokens) body.push(...cborHead(0, token))
    if (extra.length === 0) body.push(0xf6)
    else body.push(...cborList(extra.map((key) => cborList(key.map(cborText)))))
    return Buffer.from(body)
  },
}

function cborList(items: readonly (readonly number[])[]): number[] {
  return [...cborHead(4, items.length), ...items.flat()]
}

function cborText(value: string): number[] {
  const bytes = Buffer.from(value)
  return [...cborHead(3, bytes.length), ...bytes]
}

function cborHead(major: number, value: number): readonly number[] {
  const tag = major << 5
  if (value < 24) return [tag | value]
  if (value < 0x100) return [tag | 24, value]
  if (value < 0x10000) return [tag | 25, value >>> 8, value & 255]
  return [tag | 26, value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255]
}

function sha256(bytes: Buffer): Buffer {
  return createHash('sha256').update(bytes).digest()
}
