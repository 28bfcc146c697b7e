import { Bag, type Placed } from './bag.ts'
import type { InFlight } from './fleet.ts'

const everyMs = 20

/** A request without a first byte to tell that its prefill is over. */
export interface Releasing extends Placed {
  readonly inFlight: InFlight
  readonly startMs: number
  readonly spanMs: number
  readonly tokens: number
}

/**
 * Takes the prefill tokens of answers that are not streamed off the counters bit by bit, over the time that their prefill
 * was predicted to take (decision 17).
 */
export class LinearRelease {
  readonly #entries = new Bag<Releasing>()
  readonly #clock: () => number
  readonly #timer: NodeJS.Timeout

  constructor(clock: () => number) {
    this.#clock = clock
    this.#timer = setInterval(() => this.#release(), everyMs)
    this.#timer.unref()
  }

  add(inFlight: InFlight, startMs: number, spanMs: number, tokens: number): Releasing {
    const entry: Releasing = { place: -1, inFlight, startMs, spanMs, tokens }
    this.#entries.add(entry)
    return entry
  }

  remove(entry: Releasing): void {
    this.#entries.remove(entry)
  }

  close(): void {
    clearInterval(this.#timer)
  }

  #release(): void {
    const nowMs = this.#clock()
    // What is done leaves the bag, so that the walk goes backwards.
    for (let i = this.#entries.items.length - 1; i >= 0; i--) {
      const entry = this.#entries.items[i] as Releasing
      const left = 1 - (nowMs - entry.startMs) / Math.max(1, entry.spanMs)
      if (left <= 0) this.#entries.remove(entry)
      entry.inFlight.prefilledTo(Math.max(0, Math.floor(entry.tokens * left)))
    }
  }
}
