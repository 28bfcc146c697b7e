/**
 * A snapshot: what workers hold, each at one position of its events, as bytes.
 *
 *     chunk 0   blocks by index, then who holds which of them    ┐ any number, in this order; blocks are named by the
 *     chunk 1   blocks from the next index on, …                 ┘ index that they got where they first appeared
 *     header    what the chunks belong to: made last, since only then it is known which parts count
 *
 * Parts are told apart by a number that stands in every record. A part that the header does not name was given up while
 * the snapshot was made (its worker was cleared), and its records are passed over.
 */
import { RouterError } from '../errors.ts'
import type { EventPosition, StorePart } from '../kv/batch.ts'

/** Raised whenever older readers could not read what is written. */
export const snapshotVersion = 1

/** Whose blocks a part of the snapshot are: an engine's own, or those of a store of larger chunks beside it. */
export interface SnapshotName {
  /** The worker's id, the same on every replica. */
  readonly worker: string
  readonly part: 'engine' | StorePart
}

/** What the map does not know of a part, at the moment when the snapshot is closed. */
export interface SnapshotFacts extends SnapshotName {
  readonly engine: string
  /** Of a store, that of its worker. */
  readonly position: EventPosition | null
  /** Events before the position were missed, and blocks with them. */
  readonly partial: boolean
  /** What else its events have shown, as JSON can carry it. */
  readonly state: unknown
}

export interface SnapshotPart extends SnapshotFacts {
  /** As in the records. */
  readonly number: number
  /** Tokens in a block; 0: unknown. */
  readonly blockSize: number
  /** The engine's cache groups; a record names their places here. */
  readonly groups: readonly number[]
  /** The groups that hold a block before it counts: eight bits a tier, one a place in `groups`. */
  readonly announced: number
  /** Records of the part in the chunks, some of which may take others back. */
  readonly records: number
  /** Blocks held, by tier. */
  readonly blocks: readonly number[]
}

export interface SnapshotHeader {
  /** As `keyFormatVersion`. */
  readonly keyFormat: number
  /** Names the secret under which keys were made; says nothing of it. */
  readonly fingerprint: string
  /** Milliseconds since 1970, by the clock of who made it. */
  readonly createdMs: number
  /** Where the log stood from which to go on; opaque here. */
  readonly logPosition: string | null
  readonly parts: readonly SnapshotPart[]
  readonly chunks: number
  readonly entries: number
  readonly records: number
  /** Of all chunks, before compression. */
  readonly rawBytes: number
}

export type SnapshotFault =
  /** It ends early, or a chunk is missing. */
  | 'truncated'
  | 'checksum'
  /** Of the format, or of the way in which keys are made. */
  | 'version'
  /** Its keys were made under another secret. */
  | 'fingerprint'
  /** What it says cannot be. */
  | 'malformed'
  /** While it was made more changed than could be kept in mind. */
  | 'overrun'
  /** It takes more bytes than it may. */
  | 'oversize'
  /** It took more time than it may. */
  | 'deadline'
  | 'stopped'

/** A snapshot that cannot be used, or made; nothing else is touched by that. */
export class SnapshotError extends RouterError {
  readonly reason: SnapshotFault

  constructor(reason: SnapshotFault, message: string) {
    super('SNAPSHOT_UNUSABLE', message)
    this.name = 'SnapshotError'
    this.reason = reason
  }
}
