/** Load of one rank as its engine tells it. */
export interface RankLoad {
  readonly running: number
  readonly waiting: number
  /** Share of the KV cache in use; null where it is not told. */
  readonly kvUsage: number | null
  /** Prompt tokens of waiting requests that are not cached, where the engine tells them. */
  readonly waitingTokens?: number
  /** What its prefix cache has counted since the engine's start, where it tells that. */
  readonly prefix?: PrefixCounters
  /** Prompt tokens computed since the engine's start and the time that this took, where it tells them. */
  readonly prefilled?: { readonly tokens: number; readonly busyUs: number }
}

/** Load that the engine itself reports, with the time at which it was read or heard. */
export interface MeasuredLoad extends RankLoad {
  /** How many of the running and waiting requests came from others than this router and its replicas (`FleetLoad`). */
  readonly foreignRequests?: number
  /** How many of these wait; what is not known is taken for waiting, as far as there are any. */
  readonly foreignWaiting?: number
  /** Whether the engine published it or was asked for it. */
  readonly source: 'feed' | 'poll'
  /** Milliseconds of the router's monotonic clock. */
  readonly atMs: number
}

/** Prompt tokens that were looked up in an engine's prefix caches, and those of them that were found. */
export interface PrefixCounters {
  readonly queriedTokens: number
  readonly hitTokens: number
}
