/**
 * A snapshot in a file: the frames of its chunks, that of its header, and at the end where the header begins:
 *
 *     chunk 0 │ chunk 1 │ … │ header │ offset of the header, u64, little endian │ 'WMRS.END'
 *
 * Written beside it and renamed once it is on the disk, so that whoever reads finds the old one or the new one, whole.
 */
import { open, rename, rm, type FileHandle } from 'node:fs/promises'
import { dirname } from 'node:path'
import { frameBytes, frameHeadBytes } from '../map/snapshot-format.ts'
import { SnapshotError } from '../map/snapshot.ts'
import type { KeptSnapshot, SnapshotDraft, SnapshotStore } from './snapshot-store.ts'

export interface SnapshotFileOptions {
  /** Of one process only. */
  readonly path: string
  /** A larger one is given up. */
  readonly maxBytes: number
}

const ending = Buffer.from('WMRS.END')
const trailerBytes = 8 + ending.length
/** The keys of the map are nobody else's business. */
const mode = 0o600

export class SnapshotFile implements SnapshotStore {
  readonly #o: SnapshotFileOptions

  constructor(options: SnapshotFileOptions) {
    this.#o = options
  }

  async write(): Promise<SnapshotDraft> {
    // What a process left that died may be readable by others.
    await rm(temporary(this.#o.path), { force: true })
    return new FileDraft(await open(temporary(this.#o.path), 'wx', mode), this.#o)
  }

  async read(): Promise<KeptSnapshot | null> {
    const file = await open(this.#o.path, 'r').catch(nullWhereAbsent)
    if (file === null) return null
    try {
      return await FileSnapshot.of(file)
    } catch (error) {
      await file.close()
      throw error
    }
  }
}

class FileDraft implements SnapshotDraft {
  readonly #file: FileHandle
  readonly #o: SnapshotFileOptions
  #bytes = 0
  #isOpen = true

  constructor(file: FileHandle, options: SnapshotFileOptions) {
    this.#file = file
    this.#o = options
  }

  chunk(frame: Buffer): Promise<void> {
    return this.#append(frame)
  }

  async header(frame: Buffer): Promise<void> {
    const { path } = this.#o
    const trailer = Buffer.alloc(trailerBytes)
    trailer.writeBigUInt64LE(BigInt(this.#bytes))
    trailer.set(ending, 8)
    await this.#append(frame)
    await this.#append(trailer)
    await this.#file.sync()
    await this.#close()
    await rename(temporary(path), path)
    await syncFolder(dirname(path))
  }

  async abort(): Promise<void> {
    if (!this.#isOpen) return
    await this.#close()
    await rm(temporary(this.#o.path), { force: true })
  }

  async #append(bytes: Buffer): Promise<void> {
    const { maxBytes } = this.#o
    if (this.#bytes + bytes.length > maxBytes)
      throw new SnapshotError('oversize', `The snapshot is larger than snapshot.maxBytes (${maxBytes})`)
    for (let at = 0; at < bytes.length;) {
      const { bytesWritten } = await this.#file.write(bytes, at, bytes.length - at, this.#bytes + at)
      at += bytesWritten
    }
    this.#bytes += bytes.length
  }

  async #close(): Promise<void> {
    this.#isOpen = false
    await this.#file.close()
  }
}

class FileSnapshot implements KeptSnapshot {
  readonly #file: FileHandle
  readonly #header: Uint8Array
  readonly #headerAt: number
  /** Where each chunk begins, as far as they were read. */
  readonly #starts = [0]

  private constructor(file: FileHandle, header: Uint8Array, headerAt: number) {
    this.#file = file
    this.#header = header
    this.#headerAt = headerAt
  }

  static async of(file: FileHandle): Promise<FileSnapshot> {
    const { size } = await file.stat()
    if (size < trailerBytes + frameHeadBytes) throw cutOff()
    const trailer = await bytesAt(file, size - trailerBytes, trailerBytes)
    if (ending.compare(trailer, 8) !== 0) throw cutOff()
    const headerAt = Number(trailer.readBigUInt64LE())
    if (headerAt > size - trailerBytes - frameHeadBytes) throw cutOff()
    return new FileSnapshot(file, await bytesAt(file, headerAt, size - trailerBytes - headerAt), headerAt)
  }

  header(): Promise<Uint8Array> {
    return Promise.resolve(this.#header)
  }

  async chunk(number: number): Promise<Uint8Array> {
    const start = this.#starts[number]
    if (start === undefined || start + frameHeadBytes > this.#headerAt) throw cutOff()
    const bytes = frameBytes(await bytesAt(this.#file, start, frameHeadBytes))
    if (start + bytes > this.#headerAt) throw cutOff()
    this.#starts[number + 1] = start + bytes
    return bytesAt(this.#file, start, bytes)
  }

  async close(): Promise<void> {
    await this.#file.close()
  }
}

async function bytesAt(file: FileHandle, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafe(length)
  for (let at = 0; at < length;) {
    const { bytesRead } = await file.read(buffer, at, length - at, position + at)
    if (bytesRead === 0) throw cutOff()
    at += bytesRead
  }
  return buffer
}

function cutOff(): SnapshotError {
  return new SnapshotError('truncated', 'The file of the snapshot ends early, or is none')
}

function temporary(path: string): string {
  return `${path}.tmp`
}

/** A rename is on the disk once its folder is. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

function nullWhereAbsent(error: unknown): null {
  if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null
  throw error
}
