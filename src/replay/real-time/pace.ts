import { setTimeout as sleep } from 'node:timers/promises'

/** What a timer can wait for; longer pauses are waited for in parts. */
const longestSleepMs = 2 ** 31 - 1

/** The trace's time, which begins now and goes by so many times as fast as the clock. */
export class Pace {
  readonly speed: number
  readonly #clock: () => number
  readonly #originMs: number

  /** @param clock Milliseconds, of which only differences matter. */
  constructor(speed: number, clock: () => number) {
    this.speed = speed
    this.#clock = clock
    this.#originMs = clock()
  }

  get nowMs(): number {
    return this.at(this.#clock())
  }

  /** A moment of the clock in the trace's time. */
  at(clockMs: number): number {
    return (clockMs - this.#originMs) * this.speed
  }

  /** Ends early once the signal comes; never throws. */
  async until(atMs: number, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const leftMs = (atMs - this.nowMs) / this.speed
      if (leftMs <= 0) return
      await sleep(Math.min(leftMs, longestSleepMs), undefined, { signal }).catch(() => undefined)
    }
  }
}
