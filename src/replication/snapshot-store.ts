import type { SnapshotSink } from '../map/snapshot-export.ts'
import type { SnapshotFrames } from '../map/snapshot-restore.ts'

/** Where snapshots of the map are kept: the last one that was finished. */
export interface SnapshotStore {
  /** Begins one; the last one stays what is read until the new one has its header. */
  write(): Promise<SnapshotDraft>
  /** Null: there is none. @throws SnapshotError where there is something else */
  read(): Promise<KeptSnapshot | null>
}

export interface SnapshotDraft extends SnapshotSink {
  /** Forgets what was written without a header; does nothing after it. */
  abort(): Promise<void>
}

export interface KeptSnapshot extends SnapshotFrames {
  close(): Promise<void>
}
