/** Cancels a timer; harmless when it has already run. */
export type Cancel = () => void

/** Time as the sockets see it, passed in so that tests can own it. */
export interface Clock {
  /** Milliseconds of a monotonic clock. */
  now(): number
  after(delayMs: number, run: () => void): Cancel
}

/** The process's own clock. */
export const systemClock: Clock = {
  now: () => performance.now(),
  after(delayMs, run) {
    const timer = setTimeout(run, delayMs)
    return () => clearTimeout(timer)
  },
}
