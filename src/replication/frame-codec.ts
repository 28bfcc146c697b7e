import assert from 'node:assert/strict'
import { endianness } from 'node:os'
import type { EventPosition, KvEvent, KvParent, StoreEvent, StorePart } from '../kv/batch.ts'
import { tiers } from '../kv/tier.ts'
import type { LogFrame } from './frame.ts'

/**
 * Frames as bytes, little-endian, each a multiple of 4 long:
 *
 *     length u32 | kind u8, version u8, id length u16 | session f64 | id, padded
 *     batch:  sequence f64, timestamp f64 | has previous u32, its sequence f64, its timestamp f64
 *             | block size u32 (0: unknown) | removed twice u32 | events u32 | others u32 | events | others
 *     clear:  reason length u32 | reason, padded
 *     mark:   has position u32, its sequence f64, its timestamp f64
 *     event:  kind u8, tier u8 (255: all), group u16 | blocks u32
 *             | store: parent kind u32, its two words | hashes, locals     present, remove: hashes     clear: nothing
 *     other:  part u32 | block size u32 | event
 *
 * Hashes and keys only: there is no place for a token id (decision 2).
 */
const version = 1

const kinds = ['batch', 'clear', 'mark'] as const
const eventKinds = ['store', 'present', 'remove', 'clear'] as const
const parts: readonly StorePart[] = ['chunks', 'shared']
const allTiers = 255
const headBytes = 16
const minimumBytes = 64 * 1024
/** Readers keep text of this length at most. */
const maxTextBytes = 4096

assert.equal(endianness(), 'LE', 'block hashes are copied as they lie in memory')

/** Writes frames into a buffer of its own, which grows to the largest. */
export class FrameEncoder {
  #bytes = Buffer.allocUnsafe(minimumBytes)
  #at = 0

  /** The frame's bytes; a copy, to be kept. */
  encode(frame: LogFrame): Buffer {
    this.#at = 0
    const id = Buffer.from(frame.worker)
    assert.ok(id.length <= maxTextBytes, 'a worker id is too long')
    this.#reserve(headBytes + id.length + 64)
    this.#u32(0)
    this.#u32(kinds.indexOf(frame.kind) | (version << 8) | (id.length << 16))
    this.#f64(frame.session)
    this.#text(id)
    switch (frame.kind) {
      case 'batch': {
        const { batch } = frame
        this.#f64(batch.sequence)
        this.#f64(batch.timestamp)
        this.#position(batch.previous)
        this.#u32(batch.blockSize ?? 0)
        this.#u32(batch.removedTwice)
        this.#u32(batch.events.length)
        this.#u32(batch.others.length)
        for (const event of batch.events) this.#event(event)
        for (const other of batch.others) this.#other(other)
        break
      }
      case 'clear': {
        const reason = Buffer.from(frame.reason)
        this.#reserve(reason.length + 8)
        this.#u32(reason.length)
        this.#text(reason)
        break
      }
      case 'mark':
        this.#position(frame.position)
        break
      default:
        frame satisfies never
    }
    this.#bytes.writeUInt32LE(this.#at, 0)
    return Buffer.from(this.#bytes.subarray(0, this.#at))
  }

  #other({ part, blockSize, event }: StoreEvent): void {
    this.#reserve(8)
    this.#u32(parts.indexOf(part))
    this.#u32(blockSize)
    this.#event(event)
  }

  #event(event: KvEvent): void {
    assert.ok(event.kind !== 'hold', 'what a router concludes itself is not for others')
    const blocks = event.kind === 'clear' ? 0 : event.engineHashes.length / 2
    this.#reserve(24 + 16 * blocks)
    const place = event.kind === 'clear' ? 0 : ((event.tier ?? allTiers) << 8) | (event.group << 16)
    this.#u32(eventKinds.indexOf(event.kind) | place)
    this.#u32(blocks)
    if (event.kind === 'clear') return
    if (event.kind === 'store') this.#parent(event.parent)
    this.#words(event.engineHashes)
    if (event.kind === 'store') this.#words(event.locals)
  }

  #parent(parent: KvParent): void {
    const isRoot = parent.kind === 'root'
    this.#u32(isRoot ? 0 : 1)
    this.#u32(isRoot ? parent.keyLow : parent.hashLow)
    this.#u32(isRoot ? parent.keyHigh : parent.hashHigh)
  }

  #position(position: EventPosition | null): void {
    this.#reserve(24)
    this.#u32(position === null ? 0 : 1)
    this.#f64(position?.sequence ?? 0)
    this.#f64(position?.timestamp ?? 0)
  }

  #text(text: Buffer): void {
    this.#at += text.copy(this.#bytes, this.#at)
    while (this.#at % 4 !== 0) this.#bytes[this.#at++] = 0
  }

  #words(words: Uint32Array): void {
    this.#bytes.set(new Uint8Array(words.buffer, words.byteOffset, words.byteLength), this.#at)
    this.#at += words.byteLength
  }

  #u32(value: number): void {
    this.#at = this.#bytes.writeUInt32LE(value >>> 0, this.#at)
  }

  #f64(value: number): void {
    this.#at = this.#bytes.writeDoubleLE(value, this.#at)
  }

  #reserve(bytes: number): void {
    if (this.#at + bytes <= this.#bytes.length) return
    const grown = Buffer.allocUnsafe(Math.max(2 * this.#bytes.length, this.#at + bytes))
    this.#bytes.copy(grown, 0, 0, this.#at)
    this.#bytes = grown
  }
}

/** Reads what lies one behind the other in an entry of the log. Answers how many frames could not be read. */
export function decodeFrames(bytes: Buffer, visit: (frame: LogFrame) => void): number {
  let at = 0
  let unread = 0
  while (at + headBytes <= bytes.length) {
    const length = bytes.readUInt32LE(at)
    if (length < headBytes || length % 4 !== 0 || at + length > bytes.length) return unread + 1
    const frame = decodeFrame(bytes.subarray(at, at + length))
    if (frame === null) unread++
    else visit(frame)
    at += length
  }
  return at === bytes.length ? unread : unread + 1
}

/** Null where it is of another version or kind, or damaged. */
function decodeFrame(bytes: Buffer): LogFrame | null {
  const reader = new Reader(bytes)
  reader.u32()
  const head = reader.u32()
  if (((head >>> 8) & 255) !== version) return null
  const session = reader.f64()
  const worker = reader.text(head >>> 16)
  const frame = bodyOf(kinds[head & 255], worker, session, reader)
  return reader.isWhole ? frame : null
}

function bodyOf(
  kind: (typeof kinds)[number] | undefined,
  worker: string,
  session: number,
  reader: Reader,
): LogFrame | null {
  switch (kind) {
    case undefined:
      return null
    case 'batch': {
      const sequence = reader.f64()
      const timestamp = reader.f64()
      const previous = reader.position()
      const blockSize = reader.u32()
      const removedTwice = reader.u32()
      const [events, others] = [reader.u32(), reader.u32()]
      const batch = {
        ...{ sequence, timestamp, previous, removedTwice },
        blockSize: blockSize === 0 ? null : blockSize,
        events: reader.list(events, () => reader.event()),
        others: reader.list(others, () => reader.other()),
      }
      return { kind, worker, session, batch }
    }
    case 'clear':
      return { kind, worker, session, reason: reader.text(reader.u32()) }
    case 'mark':
      return { kind, worker, session, position: reader.position() }
    default:
      return kind satisfies never
  }
}

/** Reads on; past the end it answers zeros, and is not whole any more. */
class Reader {
  readonly #bytes: Buffer
  #at = 0
  #damaged = false

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  /** Whether everything was there, and nothing more. */
  get isWhole(): boolean {
    return !this.#damaged && this.#at === this.#bytes.length
  }

  u32(): number {
    return this.#has(4) ? this.#bytes.readUInt32LE(this.#at - 4) : 0
  }

  f64(): number {
    return this.#has(8) ? this.#bytes.readDoubleLE(this.#at - 8) : 0
  }

  text(length: number): string {
    const padded = Math.ceil(length / 4) * 4
    if (length > maxTextBytes || !this.#has(padded)) return ''
    return this.#bytes.toString('utf8', this.#at - padded, this.#at - padded + length)
  }

  position(): EventPosition | null {
    const isThere = this.u32() === 1
    const sequence = this.f64()
    const timestamp = this.f64()
    return isThere ? { sequence, timestamp } : null
  }

  /** Each element takes a byte at least, so that a wrong number cannot ask for more than is there. */
  list<Element>(length: number, read: () => Element | null): Element[] {
    const elements: Element[] = []
    for (let i = 0; i < length && !this.#damaged; i++) {
      const element = read()
      if (element === null) this.#damaged = true
      else elements.push(element)
    }
    return elements
  }

  other(): StoreEvent | null {
    const part = parts[this.u32()]
    const blockSize = this.u32()
    const event = this.event()
    return part === undefined || event === null ? null : { part, blockSize, event }
  }

  event(): KvEvent | null {
    const head = this.u32()
    const blocks = this.u32()
    const kind = eventKinds[head & 255]
    if (kind === undefined) return null
    if (kind === 'clear') return { kind }
    const named = (head >>> 8) & 255
    const tier = named === allTiers ? null : named
    const group = head >>> 16
    const parent = kind === 'store' ? this.#parent() : null
    const engineHashes = this.#words(2 * blocks)
    if (kind === 'remove') return tier === null || isTier(tier) ? { kind, tier, group, engineHashes } : null
    if (!isTier(tier)) return null
    if (parent === null) return { kind: 'present', tier, group, engineHashes }
    return { kind: 'store', tier, group, engineHashes, locals: this.#words(2 * blocks), parent }
  }

  #parent(): KvParent {
    const isRoot = this.u32() === 0
    const low = this.u32()
    const high = this.u32()
    return isRoot ? { kind: 'root', keyLow: low, keyHigh: high } : { kind: 'block', hashLow: low, hashHigh: high }
  }

  #words(count: number): Uint32Array {
    if (!this.#has(4 * count)) return new Uint32Array(0)
    const words = new Uint32Array(count)
    new Uint8Array(words.buffer).set(this.#bytes.subarray(this.#at - 4 * count, this.#at))
    return words
  }

  /** Moves on, if so many bytes are left. */
  #has(bytes: number): boolean {
    if (this.#damaged || this.#at + bytes > this.#bytes.length) {
      this.#damaged = true
      return false
    }
    this.#at += bytes
    return true
  }
}

function isTier(tier: number | null): tier is number {
  return tier !== null && tier < tiers.length
}
