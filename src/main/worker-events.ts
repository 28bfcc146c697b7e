/** KV events of one worker, as its endpoint starts, questions and stops them. */
export interface WorkerEvents {
  status(): WorkerEventsStatus
  /** Contact was lost: what is known must be verified before it counts again. */
  workerDown(): void
  stop(): Promise<void>
}

export interface WorkerEventsStatus {
  readonly state: 'live' | 'replaying' | 'unknown' | 'absent'
  readonly lastSequence: number | null
  readonly gaps: number
  readonly restarts: number
  /** So much is lost for good that the worker counts as one without events. */
  readonly lossy?: boolean
}

export const noEvents: WorkerEventsStatus = { state: 'absent', lastSequence: null, gaps: 0, restarts: 0 }

/** Where a worker's events come from. */
export type EventsPlace =
  | {
      readonly kind: 'zmq'
      readonly endpoint: string | null
      readonly replay: string | null
      readonly topic: string
      readonly bind: string | null
    }
  /** Taken by HTTP requests, for all ranks of the engine at once. */
  | { readonly kind: 'poll'; readonly url: string }
  /** A Redis stream that somebody else writes; `retainMs` null: and trims. */
  | { readonly kind: 'stream'; readonly name: string; readonly retainMs: number | null }
