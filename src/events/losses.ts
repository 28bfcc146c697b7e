export interface LossLimits {
  /** So many losses are no accident. */
  readonly gaps: number
  /** Within which they have to come. */
  readonly withinSeconds: number
}

/**
 * Batches of one worker that were lost for good. After a single loss the worker's blocks are forgotten, and what comes later
 * counts. A stream that keeps losing batches would have them forgotten again and again: what a worker is sent then tells
 * more of what it holds than its events do, which are left alone until nothing was lost for a while.
 */
export class Losses {
  readonly #clock: () => number
  readonly #limits: () => LossLimits
  /** When the latest gaps were found, as many as make them frequent. */
  #atMs: number[] = []

  /**
   * @param limits read anew for each use
   * @param clock monotonic milliseconds
   */
  constructor(limits: () => LossLimits, clock: () => number) {
    this.#limits = limits
    this.#clock = clock
  }

  gap(): void {
    this.#atMs = [...this.#atMs, this.#clock()].slice(-this.#limits().gaps)
  }

  get areFrequent(): boolean {
    if (this.#atMs.length === 0) return false
    const { gaps, withinSeconds } = this.#limits()
    const sinceMs = this.#clock() - 1000 * withinSeconds
    return this.#atMs.filter((atMs) => atMs > sinceMs).length >= gaps
  }

  /** The engine is another process, and may be heard better. */
  clear(): void {
    this.#atMs = []
  }
}
