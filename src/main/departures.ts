import type { Worker } from '../workers/worker.ts'

export interface DeparturesOptions {
  /** Requests that the worker has. */
  readonly inFlight: (worker: Worker) => number
  /** How long those may go on. */
  readonly limitMs: () => number
  /** Breaks off what a worker still has. */
  readonly cut: (worker: Worker) => void
  readonly gone: (worker: Worker) => void
  readonly clock: () => number
}

const lookEveryMs = 25

/**
 * Workers on their way out: they get no new requests, and are gone when the last one that they have has ended. At the
 * limit what is left is cut; a worker always goes with nothing in flight, so that its slot is free for another one.
 */
export class Departures {
  readonly #o: DeparturesOptions
  readonly #sinceMs = new Map<Worker, number>()
  #timer: NodeJS.Timeout | null = null

  constructor(options: DeparturesOptions) {
    this.#o = options
  }

  has(worker: Worker): boolean {
    return this.#sinceMs.has(worker)
  }

  workers(): Worker[] {
    return [...this.#sinceMs.keys()]
  }

  add(worker: Worker): void {
    worker.standing.draining = true
    this.#sinceMs.set(worker, this.#o.clock())
    this.#look()
  }

  /** Does not wait for the worker's requests. */
  hurry(worker: Worker): void {
    if (!this.#sinceMs.has(worker)) return
    this.#sinceMs.set(worker, -Infinity)
    this.#look()
  }

  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    this.#sinceMs.clear()
  }

  #look(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    const nowMs = this.#o.clock()
    for (const [worker, sinceMs] of this.#sinceMs) {
      if (this.#o.inFlight(worker) > 0 && nowMs - sinceMs >= this.#o.limitMs()) this.#o.cut(worker)
      if (this.#o.inFlight(worker) > 0) continue
      this.#sinceMs.delete(worker)
      this.#o.gone(worker)
    }
    if (this.#sinceMs.size === 0) return
    this.#timer = setTimeout(() => this.#look(), lookEveryMs)
    this.#timer.unref()
  }
}
