import type { WorkerFigures } from './saturation.ts'

/**
 * How many requests an engine runs before others wait in it: no engine tells, and it varies with their length. Learned from
 * its readings; Infinity until it has been seen.
 */
export class RunningLimit {
  #value = Infinity
  #running = 0
  #waiting = 0

  get value(): number {
    return this.#value
  }

  /**
   * Only where requests waited in two readings in a row was the engine full: a burst that has just arrived waits for a
   * moment in an idle one too. One that runs more than the limit, with nobody waiting, proves it too low.
   */
  read({ running, waiting }: Pick<WorkerFigures, 'running' | 'waiting'>): void {
    if (waiting > 0 && this.#waiting > 0) this.#value = Math.max(1, running, this.#running)
    else if (waiting === 0) this.#value = Math.max(this.#value, running)
    this.#running = running
    this.#waiting = waiting
  }

  /** The engine is another one now. */
  clear(): void {
    this.#value = Infinity
    this.#waiting = 0
  }
}
