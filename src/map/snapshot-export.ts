import { keyFormatVersion } from '../kv/keys.ts'
import type { WorkerSlot } from '../kv/batch.ts'
import type { MapParts } from './map-parts.ts'
import { sealChunk, sealHeader } from './snapshot-format.ts'
import { SnapshotWriter, snapshotWriterLimits, type SnapshotWriterLimits } from './snapshot-writer.ts'
import type { SnapshotFacts, SnapshotHeader } from './snapshot.ts'

/** Where the frames of a snapshot go, one after the other; the header comes last, and makes them one. */
export interface SnapshotSink {
  chunk(frame: Buffer): Promise<void>
  header(frame: Buffer): Promise<void>
}

export interface ExportOptions {
  readonly map: { readonly parts: MapParts }
  readonly sink: SnapshotSink
  /** Names the secret under which keys are made, and says nothing of it. */
  readonly fingerprint: string
  /** Eight random bytes. */
  readonly id: Uint8Array
  /** Whether blocks of this slot may have a place in the snapshot. */
  readonly wants: (slot: WorkerSlot) => boolean
  /** Whose blocks they are and where its events stand, called for all slots at one moment; null: left out. */
  readonly factsOf: (slot: WorkerSlot) => SnapshotFacts | null
  /** Where the log stands, called at the same moment; null: there is none. */
  readonly logPosition: () => string | null
  /** Milliseconds since 1970. */
  readonly wallClock: () => number
  readonly pace: SnapshotPace
  readonly limits?: SnapshotWriterLimits
  /** Called between slices; throws to break off. */
  readonly check?: () => void
}

/** How the thread is shared with what else it has to do. */
export interface SnapshotPace {
  /** Monotonic milliseconds. */
  readonly clock: () => number
  /** Work in one go. */
  readonly sliceMs: number
  /** Lets others have the thread. */
  readonly pause: () => Promise<void>
  /** Hears how long each took. */
  readonly onSlice?: (tookMs: number) => void
}

export interface Exported {
  readonly header: SnapshotHeader
  /** Of all frames. */
  readonly bytes: number
  readonly longestSliceMs: number
  /** In slices. */
  readonly workMs: number
}

/** Chunks that wait to be compressed and kept, at most: with as many the export waits for them. */
const chunksUnderWay = 3

/** Makes a snapshot of a map while batches go on being applied. @throws SnapshotError overrun, and what the sink throws */
export async function exportSnapshot(options: ExportOptions): Promise<Exported> {
  const { map, pace, wants, limits = snapshotWriterLimits } = options
  const slices = new Slices(pace)
  const frames = new Frames(options)
  const writer = new SnapshotWriter(map.parts, wants, limits)
  try {
    while (!writer.isReady) {
      slices.run((isOver) => writer.step(isOver))
      for (const draft of writer.take()) {
        frames.add(slices.run(() => draft.encode()))
        writer.giveBack(draft)
      }
      await pace.pause()
      await frames.room()
      options.check?.()
    }
    const createdMs = options.wallClock()
    const contents = slices.run(() => ({ ...writer.finish(options.factsOf), logPosition: options.logPosition() }))
    for (const draft of writer.take()) frames.add(slices.run(() => draft.encode()))
    await frames.flushed()
    const { chunks, rawBytes } = frames
    const { fingerprint } = options
    const header = { ...contents, keyFormat: keyFormatVersion, fingerprint, createdMs, chunks, rawBytes }
    const frame = await sealHeader(header, options.id)
    await options.sink.header(frame)
    const { longestMs: longestSliceMs, workMs } = slices
    return { header, bytes: frames.bytes + frame.length, longestSliceMs, workMs }
  } finally {
    writer.stop()
    await frames.settled()
  }
}

/** Work in slices, measured. */
export class Slices {
  readonly #pace: SnapshotPace
  longestMs = 0
  workMs = 0

  constructor(pace: SnapshotPace) {
    this.#pace = pace
  }

  run<Result>(work: (isOver: () => boolean) => Result): Result {
    const { clock, sliceMs } = this.#pace
    const start = clock()
    const result = work(() => clock() - start >= sliceMs)
    const tookMs = clock() - start
    this.longestMs = Math.max(this.longestMs, tookMs)
    this.workMs += tookMs
    this.#pace.onSlice?.(tookMs)
    return result
  }
}

/** Chunks on their way to the sink: compressed side by side, kept one after the other. */
class Frames {
  readonly #o: Pick<ExportOptions, 'sink' | 'id'>
  #underWay = 0
  /** Ends when all that was added is kept; never rejects. */
  #last: Promise<void> = Promise.resolve()
  #fault: Error | null = null
  #roomWanted: (() => void) | null = null
  chunks = 0
  rawBytes = 0
  bytes = 0

  constructor(options: Pick<ExportOptions, 'sink' | 'id'>) {
    this.#o = options
  }

  add(raw: Uint8Array): void {
    const sealed = sealChunk(raw, this.#o.id, this.chunks++)
    this.rawBytes += raw.length
    this.#underWay++
    const before = this.#last
    this.#last = this.#keep(before, sealed)
  }

  async #keep(before: Promise<void>, sealed: Promise<Buffer>): Promise<void> {
    try {
      const [frame] = await Promise.all([sealed, before])
      this.bytes += frame.length
      if (this.#fault === null) await this.#o.sink.chunk(frame)
    } catch (error) {
      this.#fault ??= error instanceof Error ? error : new Error(String(error))
    } finally {
      this.#underWay--
      this.#roomWanted?.()
      this.#roomWanted = null
    }
  }

  /** Waits until another chunk may be added. */
  async room(): Promise<void> {
    while (this.#underWay > chunksUnderWay && this.#fault === null)
      await new Promise<void>((resolve) => (this.#roomWanted = resolve))
    if (this.#fault !== null) throw this.#fault
  }

  async flushed(): Promise<void> {
    await this.#last
    if (this.#fault !== null) throw this.#fault
  }

  /** Nothing is under way any more, for good or bad. */
  async settled(): Promise<void> {
    await this.#last
  }
}
