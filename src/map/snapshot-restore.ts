import type { WorkerSlot } from '../kv/batch.ts'
import type { MapParts } from './map-parts.ts'
import { Slices, type SnapshotPace } from './snapshot-export.ts'
import { openChunk, openHeader } from './snapshot-format.ts'
import { SnapshotReader } from './snapshot-reader.ts'
import type { SnapshotHeader, SnapshotPart } from './snapshot.ts'
import type { StagedPart } from './staged-part.ts'

/** The frames of one snapshot. */
export interface SnapshotFrames {
  header(): Promise<Uint8Array>
  /** Asked for in order. @throws SnapshotError truncated, where it is missing */
  chunk(number: number): Promise<Uint8Array>
}

export interface RestoreOptions {
  readonly map: { readonly parts: MapParts }
  readonly frames: SnapshotFrames
  readonly fingerprint: string
  /** Which slot of the map a part belongs to; null: none, and it is passed over. */
  readonly slotOf: (part: SnapshotPart) => WorkerSlot | null
  readonly pace: SnapshotPace
  /** Called between slices; throws to break off. */
  readonly check?: () => void
}

export interface Restored {
  readonly header: SnapshotHeader
  /** To be committed or discarded by the caller, each on its own. */
  readonly parts: readonly StagedPart[]
  /** Blocks for which the map had no room. */
  readonly refused: number
  readonly longestSliceMs: number
  readonly workMs: number
}

/**
 * Reads a snapshot into a map while batches go on being applied. What was there stays as it is until parts are committed,
 * also where this throws. @throws SnapshotError, and what the frames throw
 */
export async function restoreSnapshot(options: RestoreOptions): Promise<Restored> {
  const { frames, map, pace } = options
  const { header, id } = await openHeader(await frames.header(), options.fingerprint)
  const slices = new Slices(pace)
  const reader = new SnapshotReader(map.parts, header, options.slotOf)
  const chunk = async (number: number): Promise<Uint8Array> => openChunk(await frames.chunk(number), id, number)
  let isWhole = false
  try {
    // The next chunk is fetched and unpacked while this one is entered.
    const isWanted = header.chunks > 0 && reader.staged.length > 0
    let next = isWanted ? chunk(0) : null
    for (let number = 0; next !== null; number++) {
      const raw = await next
      next = number + 1 < header.chunks ? chunk(number + 1) : null
      next?.catch(() => undefined)
      reader.add(raw)
      while (slices.run((isOver) => reader.step(isOver))) await rest(options)
      await rest(options)
    }
    if (isWanted) reader.checkWhole()
    isWhole = true
  } finally {
    if (!isWhole) for (const staged of reader.staged) staged.discard()
    while (slices.run((isOver) => reader.tidy(isOver))) await pace.pause()
  }
  const { longestMs: longestSliceMs, workMs } = slices
  return { header, parts: reader.staged, refused: reader.refused, longestSliceMs, workMs }
}

async function rest({ pace, check }: RestoreOptions): Promise<void> {
  await pace.pause()
  check?.()
}
