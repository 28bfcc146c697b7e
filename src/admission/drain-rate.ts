const windowMs = 10_000
/** Less time than this says nothing about a rate. */
const leastMs = 1000

/** How many requests end per second, over the last ten to twenty seconds; nothing is kept of the single one. */
export class DrainRate {
  readonly #startMs: number
  #windowMs: number
  #current = 0
  #previous = 0

  constructor(nowMs: number) {
    this.#startMs = nowMs
    this.#windowMs = nowMs
  }

  note(nowMs: number): void {
    this.#advance(nowMs)
    this.#current++
  }

  perSecond(nowMs: number): number {
    this.#advance(nowMs)
    // The window before counts by the share of it that a window ending now still covers.
    const covered = Math.max(0, 1 - (nowMs - this.#windowMs) / windowMs)
    const spanMs = Math.min(windowMs, Math.max(leastMs, nowMs - this.#startMs))
    return (this.#previous * covered + this.#current) / (spanMs / 1000)
  }

  #advance(nowMs: number): void {
    const passed = Math.floor((nowMs - this.#windowMs) / windowMs)
    if (passed < 1) return
    this.#previous = passed === 1 ? this.#current : 0
    this.#current = 0
    this.#windowMs += passed * windowMs
  }
}
