/** What is known of one worker's load. The reader may use one object for all workers. */
export interface WorkerFigures {
  /** Requests that the engine ran and that waited in it at the last reading. */
  readonly running: number
  readonly waiting: number
  /** Share of its KV cache in use at the last reading, 0..1. */
  readonly kvUsage: number
  /** Milliseconds since the last reading; Infinity before the first. */
  readonly loadAgeMs: number
  /** Requests of this router in flight on it now, and when it was read. */
  readonly ownRequests: number
  readonly ownRequestsAtReading: number
  /** How many it runs before others wait (`RunningLimit`); Infinity while that has not been seen. */
  readonly runningLimit: number
}

export interface SaturationLimits {
  readonly waitingRequests: number
  readonly kvUsage: number
  /** Null is no limit. */
  readonly requestsPerWorker: number | null
  /** Age beyond which a reading says nothing any more. */
  readonly staleMs: number
}

/**
 * How many further requests the worker may get until it is saturated; Infinity where nothing tells.
 *
 * The engine's own queue as it was measured is carried on from the reading to now by what this router has sent less what
 * has ended since:
 *
 *     others wait already      queue = waiting + sent − ended
 *     nobody waited            queue = running + sent − ended − runningLimit      (below zero: free places)
 *
 * The worker is saturated from a queue of `waitingRequests` on, so that it always has something to run next and no more
 * than that. Where its KV cache is full it cannot run more than it does, and one waiting request is enough: a further one
 * would only make it preempt.
 */
export function roomOf(figures: WorkerFigures, limits: SaturationLimits): number {
  const places = limits.requestsPerWorker === null ? Infinity : limits.requestsPerWorker - figures.ownRequests
  if (figures.loadAgeMs > limits.staleMs) return Math.max(0, places)
  const isCacheFull = figures.kvUsage >= limits.kvUsage
  const sinceReading = figures.ownRequests - figures.ownRequestsAtReading
  const runningLimit = isCacheFull ? Math.min(figures.running, figures.runningLimit) : figures.runningLimit
  const queued = figures.waiting > 0 ? figures.waiting + sinceReading : figures.running + sinceReading - runningLimit
  return Math.max(0, Math.min(places, (isCacheFull ? 1 : limits.waitingRequests) - queued))
}

export function isSaturated(figures: WorkerFigures, limits: SaturationLimits): boolean {
  return roomOf(figures, limits) === 0
}
