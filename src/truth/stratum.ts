import type { Cause } from './causes.ts'
import { Share } from './share.ts'

/** Observations after which a stratum may be named. */
const leastObserved = 8
/** Of them, those with something wrong. */
const leastWrong = 4
/** Share of blocks from which on a fault is named, and below which it is taken back. */
const namedShare = 0.1
const forgottenShare = 0.04
const fadesOver = 40
/** While all is well only every so many prompts are looked up again. */
const sampledEvery = 8

/**
 * The requests of one sort (salted or not, of an adapter or not, chats or not) on one worker, and how much of what was
 * predicted for them cannot be explained. A fault of one sort does not drown in the others' health.
 */
export class Stratum {
  /** Blocks that a prompt must have left on the worker, and those that the map does not have. */
  readonly stored = new Share(fadesOver)
  /** Blocks that were predicted or found, and those of them that were only one. */
  readonly cached = new Share(fadesOver)
  readonly #causes = new Map<Cause, number>()
  #untilSample = 0

  /** Whether the next prompt's own blocks are to be looked up in the map. */
  get isDue(): boolean {
    if (this.stored.observed < 2 * leastObserved || this.stored.wrongs > 0.2) return true
    if (--this.#untilSample > 0) return false
    this.#untilSample = sampledEvery
    return true
  }

  blame(cause: Cause): void {
    for (const [other, times] of this.#causes) this.#causes.set(other, times * (1 - 1 / fadesOver))
    this.#causes.set(cause, (this.#causes.get(cause) ?? 0) + 1)
  }

  /** The cause of most faults once there are enough; 'none' once they are gone, null in between. */
  get verdict(): Cause | 'none' | null {
    const shares = [this.stored, this.cached].filter(({ observed }) => observed >= leastObserved)
    if (shares.some(({ wrongShare, wrongs }) => wrongShare > namedShare && wrongs >= leastWrong - 1)) {
      return this.#mostly()
    }
    if (shares.length === 0) return null
    return shares.every(({ wrongShare }) => wrongShare < forgottenShare) ? 'none' : null
  }

  forget(): void {
    this.stored.forget()
    this.cached.forget()
    this.#causes.clear()
  }

  #mostly(): Cause | null {
    let most: Cause | null = null
    let times = 0
    for (const [cause, count] of this.#causes) {
      if (count <= times) continue
      most = cause
      times = count
    }
    return most
  }
}
