/** Requests that a pool gets in a millisecond, the last half minute counting most. */
export class ArrivalRate {
  readonly #windowMs: number
  #perMs = 0
  #lastMs = NaN

  constructor(windowMs = 30_000) {
    this.#windowMs = windowMs
  }

  add(nowMs: number): void {
    const sinceMs = Number.isNaN(this.#lastMs) ? 0 : Math.max(0, nowMs - this.#lastMs)
    this.#lastMs = nowMs
    this.#perMs = this.#perMs * Math.exp(-sinceMs / this.#windowMs) + 1 / this.#windowMs
  }

  at(nowMs: number): number {
    return Number.isNaN(this.#lastMs) ? 0 : this.#perMs * Math.exp(-Math.max(0, nowMs - this.#lastMs) / this.#windowMs)
  }
}
