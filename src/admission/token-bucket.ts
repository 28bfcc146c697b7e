const minuteMs = 60_000
/** What rounding may leave of a wait: who waits as long as was said must get through. */
const roundingMs = 0.01

/**
 * A limit per minute. It holds one minute's worth, fills evenly, and may be overdrawn: what is known only afterwards is
 * taken all the same and keeps the bucket shut for as long as it is worth. The rate is given with each call, so that a
 * changed limit holds at once.
 */
export class TokenBucket {
  #level: number
  #atMs: number

  constructor(perMinute: number, nowMs: number) {
    this.#level = perMinute
    this.#atMs = nowMs
  }

  /** What could be taken now; negative while it is overdrawn. */
  level(perMinute: number, nowMs: number): number {
    const filled = (Math.max(0, nowMs - this.#atMs) * perMinute) / minuteMs
    this.#level = Math.min(perMinute, this.#level + filled)
    this.#atMs = nowMs
    return this.#level
  }

  /** Takes an amount, a negative one gives back; `level` is to be asked first, at the same time. */
  take(amount: number): void {
    this.#level -= amount
  }

  /** Milliseconds until an amount can be taken; what is more than the bucket holds only needs it full. */
  waitMs(amount: number, perMinute: number, nowMs: number): number {
    const lacking = Math.min(amount, perMinute) - this.level(perMinute, nowMs)
    const waitMs = (lacking * minuteMs) / perMinute
    return waitMs <= roundingMs ? 0 : waitMs
  }
}
