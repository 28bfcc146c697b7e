import { RouterError } from '../errors.ts'

/** Where an integer hash or the last 8 bytes of a binary one go: two 32-bit words, low word first. */
export type HashWords = Uint32Array

const floatBytes = new Uint8Array(8)
const floatView = new DataView(floatBytes.buffer)

/**
 * A forward cursor over one MessagePack value (msgpack/spec.md, 2017 edition with bin and ext). It reads straight into typed
 * arrays and makes no object per number. Every fault is a RouterError EVENT_MALFORMED; memory asked for is bounded by
 * the bytes that are really there, since each item of a collection takes at least one.
 */
export class MsgpackCursor {
  readonly bytes: Buffer
  at = 0
  /** Whether token ids were read that came in pairs; the caller takes it back. */
  hadPairs = false

  constructor(bytes: Buffer) {
    this.bytes = bytes
  }

  /** The type byte of the next value, which is not consumed. */
  peek(): number {
    const byte = this.bytes[this.at]
    if (byte === undefined) throw truncated()
    return byte
  }

  isNil(): boolean {
    return this.peek() === 0xc0
  }

  isArray(): boolean {
    const byte = this.peek()
    return (byte >= 0x90 && byte <= 0x9f) || byte === 0xdc || byte === 0xdd
  }

  isMap(): boolean {
    const byte = this.peek()
    return (byte >= 0x80 && byte <= 0x8f) || byte === 0xde || byte === 0xdf
  }

  isText(): boolean {
    const byte = this.peek()
    return (byte >= 0xa0 && byte <= 0xbf) || (byte >= 0xd9 && byte <= 0xdb)
  }

  isBinary(): boolean {
    const byte = this.peek()
    return byte >= 0xc4 && byte <= 0xc6
  }

  /** Consumes a nil if one is next. */
  skipNil(): boolean {
    if (!this.isNil()) return false
    this.at++
    return true
  }

  /** Number of items of an array; the items follow. */
  array(): number {
    const byte = this.#next()
    const count =
      byte >= 0x90 && byte <= 0x9f ? byte & 15 : byte === 0xdc ? this.#uint(2) : byte === 0xdd ? this.#uint(4) : -1
    if (count < 0) throw mismatch('a list', byte)
    if (count > this.bytes.length - this.at) throw truncated()
    return count
  }

  /** Number of pairs of a map; key and value of each follow. */
  map(): number {
    const byte = this.#next()
    const count =
      byte >= 0x80 && byte <= 0x8f ? byte & 15 : byte === 0xde ? this.#uint(2) : byte === 0xdf ? this.#uint(4) : -1
    if (count < 0) throw mismatch('a map', byte)
    if (2 * count > this.bytes.length - this.at) throw truncated()
    return count
  }

  /** Length in bytes of a text; its UTF-8 starts at the cursor. */
  textBytes(): number {
    const byte = this.#next()
    const length =
      byte >= 0xa0 && byte <= 0xbf
        ? byte & 31
        : byte === 0xd9
          ? this.#uint(1)
          : byte === 0xda
            ? this.#uint(2)
            : byte === 0xdb
              ? this.#uint(4)
              : -1
    if (length < 0) throw mismatch('a text', byte)
    if (length > this.bytes.length - this.at) throw truncated()
    return length
  }

  /** Length of a binary value; its bytes start at the cursor. */
  binaryBytes(): number {
    const byte = this.#next()
    const length = byte === 0xc4 ? this.#uint(1) : byte === 0xc5 ? this.#uint(2) : byte === 0xc6 ? this.#uint(4) : -1
    if (length < 0) throw mismatch('bytes', byte)
    if (length > this.bytes.length - this.at) throw truncated()
    return length
  }

  /** An integer as a number; beyond 2^53 it is rounded, which only hashes may not be. */
  integer(): number {
    const byte = this.#next()
    if (byte <= 0x7f) return byte
    if (byte >= 0xe0) return byte - 0x100
    switch (byte) {
      case 0xcc:
        return this.#uint(1)
      case 0xcd:
        return this.#uint(2)
      case 0xce:
        return this.#uint(4)
      case 0xcf:
        return this.#uint(4) * 0x1_0000_0000 + this.#uint(4)
      case 0xd0:
        return (this.#uint(1) << 24) >> 24
      case 0xd1:
        return (this.#uint(2) << 16) >> 16
      case 0xd2:
        return this.#uint(4) | 0
      case 0xd3:
        return (this.#uint(4) | 0) * 0x1_0000_0000 + this.#uint(4)
      default:
        throw mismatch('an integer', byte)
    }
  }

  /** A float or an integer. */
  number(): number {
    const byte = this.peek()
    if (byte !== 0xcb && byte !== 0xca) return this.integer()
    this.at++
    const length = byte === 0xcb ? 8 : 4
    if (length > this.bytes.length - this.at) throw truncated()
    for (let i = 0; i < length; i++) floatBytes[i] = this.bytes[this.at + i] as number
    this.at += length
    return length === 8 ? floatView.getFloat64(0) : floatView.getFloat32(0)
  }

  /**
   * A block hash: an unsigned integer as it is, a signed one by its bits, a binary one by its LAST 8 bytes big-endian,
   * which is what vLLM's integer form shows of a longer digest.
   */
  hash(into: HashWords, word: number): void {
    const byte = this.peek()
    if (byte === 0xcf || byte === 0xd3) {
      this.at++
      into[word + 1] = this.#uint(4)
      into[word] = this.#uint(4)
      return
    }
    if (byte >= 0xc4 && byte <= 0xc6) {
      const end = this.binaryBytes() + this.at
      const length = Math.min(8, end - this.at)
      if (length === 0) throw new RouterError('EVENT_MALFORMED', 'A block hash is empty.')
      into[word] = tail(this.bytes, Math.max(end - 4, this.at), end)
      into[word + 1] = length > 4 ? tail(this.bytes, end - length, end - 4) : 0
      this.at = end
      return
    }
    const value = this.integer()
    into[word] = value
    into[word + 1] = value < 0 ? 0xffff_ffff : 0
  }

  /**
   * Token ids into a Uint32Array. Pairs (SGLang with EAGLE announces each token together with the next one) give their
   * first half, and `hadPairs` tells that they were pairs.
   */
  tokens(): Uint32Array {
    const count = this.array()
    const tokens = new Uint32Array(count)
    const { bytes } = this
    let { at } = this
    for (let i = 0; i < count; i++) {
      const byte = bytes[at] as number
      if (byte <= 0x7f) {
        tokens[i] = byte
        at++
      } else if (byte === 0xcd) {
        tokens[i] = ((bytes[at + 1] as number) << 8) | (bytes[at + 2] as number)
        at += 3
      } else if (byte === 0xce) {
        tokens[i] =
          ((bytes[at + 1] as number) << 24) |
          ((bytes[at + 2] as number) << 16) |
          ((bytes[at + 3] as number) << 8) |
          (bytes[at + 4] as number)
        at += 5
      } else if (byte === 0xcc) {
        tokens[i] = bytes[at + 1] as number
        at += 2
      } else {
        this.at = at
        tokens[i] = this.#rareToken()
        at = this.at
      }
    }
    if (at > bytes.length) throw truncated()
    this.at = at
    return tokens
  }

  /** Passes over one value of any type, however deeply nested, without recursion. */
  skip(): void {
    let open = 1
    while (open > 0) {
      open--
      const byte = this.peek()
      if (this.isArray()) open += this.array()
      else if (this.isMap()) open += 2 * this.map()
      else if (this.isText()) this.#pass(this.textBytes())
      else if (this.isBinary()) this.#pass(this.binaryBytes())
      else {
        this.at++
        this.#pass(this.#scalarBytes(byte))
      }
    }
  }

  #scalarBytes(byte: number): number {
    if (byte <= 0x7f || byte >= 0xe0 || byte === 0xc0 || byte === 0xc2 || byte === 0xc3) return 0
    if (byte === 0xca) return 4
    if (byte === 0xcb) return 8
    if (byte >= 0xcc && byte <= 0xcf) return 1 << (byte - 0xcc)
    if (byte >= 0xd0 && byte <= 0xd3) return 1 << (byte - 0xd0)
    if (byte >= 0xd4 && byte <= 0xd8) return 1 + (1 << (byte - 0xd4))
    if (byte >= 0xc7 && byte <= 0xc9) return 1 + this.#uint(1 << (byte - 0xc7))
    throw mismatch('a value', byte)
  }

  #rareToken(): number {
    if (this.isArray()) {
      this.hadPairs = true
      const count = this.array()
      if (count === 0) throw new RouterError('EVENT_MALFORMED', 'A token pair is empty.')
      const first = this.#rareToken()
      for (let i = 1; i < count; i++) this.skip()
      return first
    }
    const token = this.integer()
    if (token < 0 || token > 0xffff_ffff)
      throw new RouterError('EVENT_MALFORMED', 'A token id is outside 0 … 2^32 − 1.')
    return token
  }

  #next(): number {
    const byte = this.bytes[this.at]
    if (byte === undefined) throw truncated()
    this.at++
    return byte
  }

  #pass(length: number): void {
    if (length > this.bytes.length - this.at) throw truncated()
    this.at += length
  }

  #uint(length: number): number {
    if (length > this.bytes.length - this.at) throw truncated()
    const value = tail(this.bytes, this.at, this.at + length)
    this.at += length
    return value
  }
}

/** Up to four bytes, big-endian. */
function tail(bytes: Buffer, from: number, end: number): number {
  let value = 0
  for (let at = from; at < end; at++) value = ((value << 8) | (bytes[at] as number)) >>> 0
  return value
}

function truncated(): RouterError {
  return new RouterError('EVENT_MALFORMED', 'The payload ends in the middle of a value.')
}

function mismatch(wanted: string, byte: number): RouterError {
  return new RouterError(
    'EVENT_MALFORMED',
    `Where ${wanted} belongs stands the MessagePack type 0x${byte.toString(16)}.`,
  )
}
