import type { ServerResponse } from 'node:http'
import type { Counters } from './counters.ts'
import type { Cut } from './faults.ts'

/** Breaks one answer off where a fault wants it. */
export class BreakOff {
  readonly #response: ServerResponse
  readonly #counters: Counters
  readonly #cut: Cut | null
  readonly #dieAfterTokens: () => number | null
  #events = 0
  #tokens = 0

  constructor(
    response: ServerResponse,
    counters: Counters,
    cut: Cut | null,
    /** Asked anew for each token. */
    dieAfterTokens: () => number | null,
  ) {
    this.#response = response
    this.#counters = counters
    this.#cut = cut
    this.#dieAfterTokens = dieAfterTokens
  }

  /** As much of these events as may go out. */
  admit(events: string): string {
    if (this.#cut === null) return events
    const each = events.split(/(?<=\n\n)/)
    const admitted = each.slice(0, Math.max(0, this.#cut.afterEvents - this.#events))
    this.#events += each.length
    return admitted.join('')
  }

  countToken(): void {
    this.#tokens++
  }

  /** Breaks off if the answer has come so far; an answer that is not streamed counts tokens in place of events. */
  breakIfDue(): boolean {
    const streams = this.#response.headersSent
    const cut =
      this.#cut !== null && (streams ? this.#events : this.#tokens) >= this.#cut.afterEvents ? this.#cut : null
    if (cut === null && this.#tokens !== this.#dieAfterTokens()) return false
    if (streams && cut?.clean === true) this.#response.end()
    else this.#counters.sever(this.#response)
    return true
  }
}
