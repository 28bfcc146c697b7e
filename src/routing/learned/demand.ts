/**
 * Prompt tokens that a worker is asked for in a millisecond, the last window of time counting most: who is sent there comes back there, so that
 * it tells how many will come, and how much they need to remain in its cache.
 */
export class Demand {
  readonly #windowMs: number
  #tokensPerMs = 0
  #lastMs = NaN

  constructor(windowMs: number) {
    this.#windowMs = windowMs
  }

  add(promptTokens: number, nowMs: number): void {
    this.#tokensPerMs = this.tokensPerMs(nowMs) + promptTokens / this.#windowMs
    this.#lastMs = nowMs
  }

  tokensPerMs(nowMs: number): number {
    if (Number.isNaN(this.#lastMs)) return 0
    return this.#tokensPerMs * Math.exp(-Math.max(0, nowMs - this.#lastMs) / this.#windowMs)
  }
}
