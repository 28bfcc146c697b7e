import type { EventPosition, NamedBatch } from '../kv/batch.ts'

/**
 * What the log of events says of one worker. Whoever holds the worker's lease writes in a session of its own; only frames
 * of the session that was opened last count.
 */
export type LogFrame = BatchFrame | ClearFrame | MarkFrame

interface OfSession {
  /** The worker's id. */
  readonly worker: string
  /** Random, below 2^53: one term of one replica. */
  readonly session: number
}

/** A batch of the engine. */
export interface BatchFrame extends OfSession {
  readonly kind: 'batch'
  readonly batch: NamedBatch
}

/** What was known of the worker is not believed any more. */
export interface ClearFrame extends OfSession {
  readonly kind: 'clear'
  readonly reason: string
}

/** Opens a session, and says now and then where it stands. */
export interface MarkFrame extends OfSession {
  readonly kind: 'mark'
  readonly position: EventPosition | null
}
