/**
 * How the pieces of a snapshot are kept: each in a frame that says what it is and proves that it is whole.
 *
 *      0  'WMRS'                      16  chunk's number (of the header: 0)
 *      4  version, u16                20  bytes after decompression
 *      6  kind, u16: 1 header,        24  bytes that follow this head
 *         2 chunk                     28  CRC-32 of the 28 bytes before and all that follow
 *      8  the snapshot's own id,      32  zstd (RFC 8878)
 *         the same in all its frames
 *
 * Little endian. The header is JSON.
 */
import { promisify } from 'node:util'
import { constants, crc32, zstdCompress, zstdDecompress } from 'node:zlib'
import { keyFormatVersion } from '../kv/keys.ts'
import { chunkEntries, chunkRecords, maxChunkBytes } from './snapshot-chunk.ts'
import { SnapshotError, snapshotVersion, type SnapshotHeader } from './snapshot.ts'

export const frameHeadBytes = 32
const magic = 0x53524d57
const kinds = { header: 1, chunk: 2 } as const
/** Its parts carry what events have shown of each worker; a fleet of thousands takes a few MiB. */
const maxHeaderBytes = 256 * 1024 * 1024
/** Compressed bytes of a frame are never many more than those that went in. */
export const maxFrameBytes = frameHeadBytes + maxHeaderBytes + maxHeaderBytes / 64

const compress = promisify<Uint8Array, { params: Record<number, number>; chunkSize: number }, Buffer>(zstdCompress)
const decompress = promisify<Uint8Array, { maxOutputLength: number; chunkSize: number }, Buffer>(zstdDecompress)

/** The frame of one chunk; compressed on another thread. */
export function sealChunk(raw: Uint8Array, id: Uint8Array, number: number): Promise<Buffer> {
  return seal('chunk', raw, id, number)
}

export function sealHeader(header: SnapshotHeader, id: Uint8Array): Promise<Buffer> {
  return seal('header', Buffer.from(JSON.stringify(header)), id, 0)
}

/** A header that was checked, with the id of its snapshot, which the frames of its chunks carry too. */
export interface OpenedHeader {
  readonly header: SnapshotHeader
  readonly id: Uint8Array
}

/** @throws SnapshotError where it is not whole, of another version, or its keys are of another secret. */
export async function openHeader(frame: Uint8Array, fingerprint: string): Promise<OpenedHeader> {
  const { body, id } = await open('header', frame, 0, maxHeaderBytes)
  const header = readHeader(body)
  if (header.keyFormat !== keyFormatVersion)
    throw new SnapshotError('version', `The snapshot has keys of format ${header.keyFormat}, not ${keyFormatVersion}`)
  if (header.fingerprint !== fingerprint)
    throw new SnapshotError('fingerprint', 'The snapshot’s keys were made under another secret (keys.secret)')
  return { header, id }
}

/** @throws SnapshotError where it is not whole, or not this chunk of this snapshot. */
export async function openChunk(frame: Uint8Array, snapshotId: Uint8Array, number: number): Promise<Uint8Array> {
  const { body, id } = await open('chunk', frame, number, maxChunkBytes)
  if (Buffer.compare(id, snapshotId) !== 0)
    throw new SnapshotError('truncated', `Chunk ${number} is of another snapshot than its header`)
  return body
}

/** Bytes of the frame whose head this is. @throws SnapshotError where it is none. */
export function frameBytes(head: Uint8Array): number {
  const view = viewOf(head)
  if (view.getUint32(0, true) !== magic) throw new SnapshotError('malformed', 'This is not a snapshot of the map')
  const bytes = frameHeadBytes + view.getUint32(24, true)
  if (bytes > maxFrameBytes) throw new SnapshotError('malformed', 'The snapshot tells of more bytes than it can have')
  return bytes
}

async function seal(kind: keyof typeof kinds, raw: Uint8Array, id: Uint8Array, number: number): Promise<Buffer> {
  // One piece of output: many small ones would be put together on this thread.
  const chunkSize = raw.length + (raw.length >>> 6) + 1024
  const body = await compress(raw, { params: { [constants.ZSTD_c_compressionLevel]: 1 }, chunkSize })
  const frame = Buffer.allocUnsafe(frameHeadBytes + body.length)
  frame.writeUInt32LE(magic, 0)
  frame.writeUInt16LE(snapshotVersion, 4)
  frame.writeUInt16LE(kinds[kind], 6)
  frame.set(id.subarray(0, 8), 8)
  frame.writeUInt32LE(number, 16)
  frame.writeUInt32LE(raw.length, 20)
  frame.writeUInt32LE(body.length, 24)
  frame.set(body, frameHeadBytes)
  frame.writeUInt32LE(checksum(frame), 28)
  return frame
}

async function open(
  kind: keyof typeof kinds,
  frame: Uint8Array,
  number: number,
  maxBytes: number,
): Promise<{ body: Buffer; id: Uint8Array }> {
  if (frame.length < frameHeadBytes) throw new SnapshotError('truncated', 'The snapshot ends early')
  const bytes = frameBytes(frame)
  const view = viewOf(frame)
  const version = view.getUint16(4, true)
  if (version !== snapshotVersion)
    throw new SnapshotError('version', `The snapshot is of version ${version}; this router reads ${snapshotVersion}`)
  if (frame.length !== bytes) throw new SnapshotError('truncated', 'The snapshot ends early')
  if (view.getUint32(28, true) !== checksum(frame))
    throw new SnapshotError('checksum', `The snapshot is damaged: the checksum of its ${kind} ${number} is wrong`)
  const rawBytes = view.getUint32(20, true)
  if (view.getUint16(6, true) !== kinds[kind] || view.getUint32(16, true) !== number || rawBytes > maxBytes)
    throw new SnapshotError('malformed', `The snapshot has something else in the place of its ${kind} ${number}`)
  const packed = frame.subarray(frameHeadBytes)
  const limits = { maxOutputLength: Math.max(1, rawBytes), chunkSize: Math.max(64, rawBytes) }
  const body = await decompress(packed, limits).catch(() => null)
  if (body?.length !== rawBytes)
    throw new SnapshotError('malformed', `The snapshot’s ${kind} ${number} does not unpack`)
  return { body, id: frame.subarray(8, 16) }
}

/** What is written there by this version, which the checksum proves, is not gone through field by field. */
function readHeader(body: Buffer): SnapshotHeader {
  const header = parsed(body) as Partial<SnapshotHeader> | null
  const { chunks = -1, entries = -1, records = -1, parts } = header ?? {}
  const isPossible = [chunks, entries, records].every((count) => Number.isSafeInteger(count) && count >= 0)
  if (!isPossible || !Array.isArray(parts) || entries > chunks * chunkEntries || records > chunks * chunkRecords)
    throw new SnapshotError('malformed', 'The header of the snapshot is not one')
  return header as SnapshotHeader
}

function parsed(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString()) as unknown
  } catch {
    return null
  }
}

/** Of all but the checksum itself. */
function checksum(frame: Uint8Array): number {
  return crc32(frame.subarray(frameHeadBytes), crc32(frame.subarray(0, 28)))
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
