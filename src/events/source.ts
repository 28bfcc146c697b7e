import type { EventPosition } from '../kv/batch.ts'

/** The KV events of one worker: where they come from is the implementation's own affair (`sources/`). */
export interface EventSource {
  /**
   * @param from What is applied already, which must be proved before it counts; omitted: nothing, and the map forgets
   *   what it may hold of the worker.
   */
  start(from?: StartingPoint): void
  /** Ends; what the map holds of the worker stays until it is removed there. */
  stop(): Promise<void>
  status(): EventSourceState
  /** The worker cannot be reached: what is known of it must be proved before it counts again, or is forgotten. */
  workerDown(): void
}

export interface StartingPoint {
  readonly position: EventPosition | null
  readonly partial: boolean
}

export interface EventSourceState {
  /** `absent` before the start, after the end and where there are none to have; `unknown` while nothing tells. */
  readonly state: 'live' | 'replaying' | 'unknown' | 'absent'
  readonly lastSequence: number | null
  readonly gaps: number
  readonly restarts: number
  /** The engine may hold blocks that were announced before what is known here. */
  readonly partial: boolean
  readonly epoch: number
}
