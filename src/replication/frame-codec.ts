import assert from 'node:assert/strict'
import type { EventPosition, KvEvent, KvParent, NamedBatch, StoreEvent, StorePart } from '../kv/batch.ts'
import { tiers } from '../kv/tier.ts'
import { ByteReader } from './byte-reader.ts'
import { ByteWriter } from './byte-writer.ts'
import type { LogFrame } from './frame.ts'

/**
 * Frames of the log as bytes, one behind the other; all numbers are little-endian, a text is a u16 with its bytes and then
 * these, in UTF-8:
 *
 *     frame      u8 version | u32 bytes that follow | u8 kind | text worker | f64 session | body
 *     batch      f64 sequence, f64 timestamp | position of the batch before | u32 tokens in a block (0: unknown)
 *                | u32 removed twice | u32 events, event … | u32 others, other …
 *     clear      text reason
 *     mark       position
 *     position   u8 whether there is one | f64 sequence, f64 timestamp, if there is
 *     event      u8 kind | of all but clear: u8 tier (255: all), u16 group, u32 blocks, two words of each engine hash
 *                | of a store: u8 parent kind and its two words, two words of each local hash
 *     other      u8 part | u32 tokens in a block | event
 *
 * The first five bytes hold for every version. Hashes and keys only: there is no place for a token id (decision 2).
 */
export const frameVersion = 1

const kinds = ['batch', 'clear', 'mark'] as const
const eventKinds = ['store', 'present', 'remove', 'clear'] as const
const parts: readonly StorePart[] = ['chunks', 'shared']
const parents = ['root', 'block'] as const
const allTiers = 255
/** Of ids and reasons. */
const mostTextBytes = 4096

export function encodeFrame(frame: LogFrame): Buffer {
  const writer = new ByteWriter()
  writer.u8(frameVersion)
  writer.measured(() => {
    writer.u8(kinds.indexOf(frame.kind))
    writer.text(frame.worker)
    writer.f64(frame.session)
    switch (frame.kind) {
      case 'batch':
        writeBatch(writer, frame.batch)
        break
      case 'clear':
        writer.text(frame.reason)
        break
      case 'mark':
        writePosition(writer, frame.position)
        break
      default:
        frame satisfies never
    }
  })
  return writer.done()
}

/** Reads the frames of an entry of the log. Answers how many could not be read: of another version or kind, or damaged. */
export function decodeFrames(bytes: Uint8Array, visit: (frame: LogFrame) => void): number {
  const all = new ByteReader(bytes)
  let unread = 0
  try {
    while (all.left > 0) {
      const version = all.u8()
      const body = all.measured()
      const frame = version === frameVersion ? decodeFrame(body) : null
      if (frame === null) unread++
      else visit(frame)
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    return unread + 1
  }
  return unread
}

function decodeFrame(reader: ByteReader): LogFrame | null {
  try {
    const frame = readFrame(reader)
    return reader.left === 0 ? frame : null
  } catch (error) {
    if (error instanceof RangeError) return null
    throw error
  }
}

function readFrame(reader: ByteReader): LogFrame {
  const kind = oneOf(kinds, reader.u8())
  const worker = reader.text(mostTextBytes)
  const session = reader.f64()
  switch (kind) {
    case 'batch':
      return { kind, worker, session, batch: readBatch(reader) }
    case 'clear':
      return { kind, worker, session, reason: reader.text(mostTextBytes) }
    case 'mark':
      return { kind, worker, session, position: readPosition(reader) }
    default:
      return kind satisfies never
  }
}

function writeBatch(writer: ByteWriter, batch: NamedBatch): void {
  writer.f64(batch.sequence)
  writer.f64(batch.timestamp)
  writePosition(writer, batch.previous)
  writer.u32(batch.blockSize ?? 0)
  writer.u32(batch.removedTwice)
  writer.u32(batch.events.length)
  for (const event of batch.events) writeEvent(writer, event)
  writer.u32(batch.others.length)
  for (const { part, blockSize, event } of batch.others) {
    writer.u8(parts.indexOf(part))
    writer.u32(blockSize)
    writeEvent(writer, event)
  }
}

function readBatch(reader: ByteReader): NamedBatch {
  const sequence = reader.f64()
  const timestamp = reader.f64()
  const previous = readPosition(reader)
  const blockSize = reader.u32()
  const removedTwice = reader.u32()
  const events = list(reader, readEvent)
  const others = list(reader, readOther)
  return { sequence, timestamp, previous, blockSize: blockSize === 0 ? null : blockSize, removedTwice, events, others }
}

function writePosition(writer: ByteWriter, position: EventPosition | null): void {
  writer.u8(position === null ? 0 : 1)
  if (position === null) return
  writer.f64(position.sequence)
  writer.f64(position.timestamp)
}

function readPosition(reader: ByteReader): EventPosition | null {
  return reader.u8() === 0 ? null : { sequence: reader.f64(), timestamp: reader.f64() }
}

function writeEvent(writer: ByteWriter, event: KvEvent): void {
  assert.ok(event.kind !== 'hold', 'what a router concludes itself is not for others')
  writer.u8(eventKinds.indexOf(event.kind))
  if (event.kind === 'clear') return
  writer.u8(event.tier ?? allTiers)
  writer.u16(event.group)
  writer.u32(event.engineHashes.length / 2)
  writer.words(event.engineHashes)
  if (event.kind !== 'store') return
  writeParent(writer, event.parent)
  writer.words(event.locals)
}

function readEvent(reader: ByteReader): KvEvent {
  const kind = oneOf(eventKinds, reader.u8())
  if (kind === 'clear') return { kind }
  const place = reader.u8()
  const group = reader.u16()
  const blocks = reader.u32()
  const engineHashes = reader.words(2 * blocks)
  if (kind === 'remove') return { kind, tier: place === allTiers ? null : tierOf(place), group, engineHashes }
  const tier = tierOf(place)
  if (kind === 'present') return { kind, tier, group, engineHashes }
  const parent = readParent(reader)
  return { kind, tier, group, engineHashes, locals: reader.words(2 * blocks), parent }
}

function readOther(reader: ByteReader): StoreEvent {
  return { part: oneOf(parts, reader.u8()), blockSize: reader.u32(), event: readEvent(reader) }
}

function writeParent(writer: ByteWriter, parent: KvParent): void {
  writer.u8(parents.indexOf(parent.kind))
  writer.u32(parent.kind === 'root' ? parent.keyLow : parent.hashLow)
  writer.u32(parent.kind === 'root' ? parent.keyHigh : parent.hashHigh)
}

function readParent(reader: ByteReader): KvParent {
  const kind = oneOf(parents, reader.u8())
  const low = reader.u32()
  const high = reader.u32()
  return kind === 'root' ? { kind, keyLow: low, keyHigh: high } : { kind, hashLow: low, hashHigh: high }
}

/** Each element takes a byte at least, so that a wrong length ends with the bytes. */
function list<Element>(reader: ByteReader, read: (reader: ByteReader) => Element): Element[] {
  const length = reader.u32()
  const elements: Element[] = []
  for (let i = 0; i < length; i++) elements.push(read(reader))
  return elements
}

function tierOf(place: number): number {
  if (place >= tiers.length) throw new RangeError(`tier ${place}`)
  return place
}

function oneOf<Name>(names: readonly Name[], index: number): Name {
  const name = names[index]
  if (name === undefined) throw new RangeError(`kind ${index}`)
  return name
}
