/**
 * A chunk of a snapshot, column by column, so that what repeats lies together and can be compressed:
 *
 *     first index, entries, records                                u32 each
 *     key low, key high                                            u32 an entry
 *     engine hash low, engine hash high                            u32 a record
 *     steps back to the parent (0: it has none)                    4 planes of one byte an entry
 *     touched                                                      one byte an entry
 *     step to the held entry                                       4 planes of one byte a record
 *     part                                                         2 planes of one byte a record
 *     place (tier, group), override bit                            one byte a record
 *     store count                                                  2 planes of one byte a record
 *
 * A step is counted from the newest entry that a record before named: 2n back to an older one by n, 2n - 1 on to a newer
 * one by n. All little endian. A plane has the lowest bytes of all numbers, the next one the bytes above them, and so on: the
 * higher ones are mostly 0. An override replaces whatever was said before of its (part, place, hash), and takes it back
 * where the count is 0.
 */
import { SnapshotError } from './snapshot.ts'

export const chunkEntries = 131_072
export const chunkRecords = 65_536
/** Beside the place, which takes five bits. */
export const overrideBit = 0x80
const headWords = 3
const entryBytes = 13
const recordBytes = 17
/** Raw bytes of the largest chunk. */
export const maxChunkBytes = 4 * headWords + entryBytes * chunkEntries + recordBytes * chunkRecords

/** What the writer fills; its arrays are as long as a chunk can be. */
export class ChunkDraft {
  firstIndex = 0
  entries = 0
  records = 0
  readonly keyLow = new Int32Array(chunkEntries)
  readonly keyHigh = new Int32Array(chunkEntries)
  readonly parentBack = new Uint32Array(chunkEntries)
  readonly touched = new Uint8Array(chunkEntries)
  readonly hashLow = new Int32Array(chunkRecords)
  readonly hashHigh = new Int32Array(chunkRecords)
  readonly entryStep = new Uint32Array(chunkRecords)
  readonly part = new Uint16Array(chunkRecords)
  readonly place = new Uint8Array(chunkRecords)
  readonly storeCount = new Uint16Array(chunkRecords)

  /** Begins it anew: its arrays are megabytes that need not be garbage. */
  begin(firstIndex: number): this {
    this.firstIndex = firstIndex
    this.entries = 0
    this.records = 0
    return this
  }

  get isFull(): boolean {
    return this.entries === chunkEntries || this.records === chunkRecords
  }

  encode(): Uint8Array {
    const { entries, records } = this
    const out = new Uint8Array(4 * headWords + entryBytes * entries + recordBytes * records)
    const words = new Int32Array(out.buffer, 0, headWords + 2 * (entries + records))
    words.set([this.firstIndex, entries, records])
    words.set(this.keyLow.subarray(0, entries), headWords)
    words.set(this.keyHigh.subarray(0, entries), headWords + entries)
    words.set(this.hashLow.subarray(0, records), headWords + 2 * entries)
    words.set(this.hashHigh.subarray(0, records), headWords + 2 * entries + records)
    let at = words.byteLength
    at = putPlanes(out, at, this.parentBack, entries, 4)
    at = putPlanes(out, at, this.touched, entries, 1)
    at = putPlanes(out, at, this.entryStep, records, 4)
    at = putPlanes(out, at, this.part, records, 2)
    at = putPlanes(out, at, this.place, records, 1)
    putPlanes(out, at, this.storeCount, records, 2)
    return out
  }
}

/** The columns of a chunk to be read. */
export class ChunkView {
  readonly firstIndex: number
  readonly entries: number
  readonly records: number
  readonly keyLow: Int32Array
  readonly keyHigh: Int32Array
  readonly parentBack: Uint32Array
  readonly touched: Uint8Array
  readonly hashLow: Int32Array
  readonly hashHigh: Int32Array
  /** As `stepOf` reads it. */
  readonly entryStep: Uint32Array
  readonly part: Uint32Array
  /** With the override bit. */
  readonly place: Uint8Array
  readonly storeCount: Uint32Array

  /** @throws SnapshotError malformed */
  constructor(raw: Uint8Array) {
    // Typed arrays of words must begin at a multiple of four.
    const bytes = raw.byteOffset % 4 === 0 ? raw : raw.slice()
    if (bytes.length < 4 * headWords) throw new SnapshotError('malformed', 'A chunk of the snapshot has no head')
    const head = new Uint32Array(bytes.buffer, bytes.byteOffset, headWords)
    const [firstIndex = 0, entries = 0, records = 0] = head
    const isWhole = bytes.length === 4 * headWords + entryBytes * entries + recordBytes * records
    if (!isWhole || entries > chunkEntries || records > chunkRecords)
      throw new SnapshotError('malformed', 'A chunk of the snapshot has not the length that it tells')
    const words = (word: number, rows: number): Int32Array =>
      new Int32Array(bytes.buffer, bytes.byteOffset + 4 * (headWords + word), rows)
    const planes = 4 * (headWords + 2 * (entries + records))
    const recordPlanes = planes + 5 * entries
    this.firstIndex = firstIndex
    this.entries = entries
    this.records = records
    this.keyLow = words(0, entries)
    this.keyHigh = words(entries, entries)
    this.parentBack = readPlanes(bytes, planes, entries, 4)
    this.touched = bytes.subarray(planes + 4 * entries, recordPlanes)
    this.hashLow = words(2 * entries, records)
    this.hashHigh = words(2 * entries + records, records)
    this.entryStep = readPlanes(bytes, recordPlanes, records, 4)
    this.part = readPlanes(bytes, recordPlanes + 4 * records, records, 2)
    this.place = bytes.subarray(recordPlanes + 6 * records, recordPlanes + 7 * records)
    this.storeCount = readPlanes(bytes, recordPlanes + 7 * records, records, 2)
  }
}

/** A step as it is written, and back. */
export function writtenStep(step: number): number {
  return step > 0 ? 2 * step - 1 : -2 * step
}

export function stepOf(written: number): number {
  return (written & 1) === 0 ? -(written >>> 1) : (written >>> 1) + 1
}

function readPlanes(bytes: Uint8Array, at: number, rows: number, planes: number): Uint32Array {
  const column = new Uint32Array(rows)
  for (let plane = 0; plane < planes; plane++) {
    const start = at + plane * rows
    const shift = 8 * plane
    for (let row = 0; row < rows; row++)
      column[row] = (column[row] as number) | ((bytes[start + row] as number) << shift)
  }
  return column
}

/** Writes the first `rows` numbers plane by plane; where the last plane ends. */
function putPlanes(
  out: Uint8Array,
  at: number,
  column: Uint8Array | Uint16Array | Uint32Array,
  rows: number,
  planes: number,
): number {
  for (let plane = 0; plane < planes; plane++) {
    const start = at + plane * rows
    const shift = 8 * plane
    for (let row = 0; row < rows; row++) out[start + row] = (column[row] as number) >>> shift
  }
  return at + planes * rows
}
