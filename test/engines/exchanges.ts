import type { Journal } from './journal.ts'

/** A request that was answered, and what router and engine said of its cache. */
export interface Exchange {
  readonly title: string
  readonly worker: string
  readonly promptIds: readonly number[]
  readonly predicted: number
  /** Null where the engine did not report it. */
  readonly actual: number | null
  /** When the router decided, in ms since 1970, where it was asked. */
  readonly decidedMs: number
  readonly answeredMs: number
}

export interface Difference {
  readonly exchange: Exchange
  /** Null where nothing that is known explains it. */
  readonly cause: string | null
}

/** A rule by which an engine reports other figures than its events say; null where it does not apply. */
export type OwnRule = (exchange: Exchange, journal: Journal) => string | null

/** How late an event may be: published, on its way, decoded, and the loop that applies it busy. */
const underWayMs = 300

export const causes = {
  evicted: 'evicted between decision and admission',
  stored: 'computed by another request between decision and admission',
  underWayEvicted: 'evicted, and the event still under way when the router decided',
  underWayStored: 'computed, and the event still under way when the router decided',
} as const

/** All requests of a run, and why prediction and report differ where they do. */
export class Exchanges {
  readonly #blockSize: number
  readonly #rules: readonly OwnRule[]
  readonly #all: Exchange[] = []

  constructor(blockSize: number, rules: readonly OwnRule[] = []) {
    this.#blockSize = blockSize
    this.#rules = rules
  }

  add(exchange: Exchange): void {
    this.#all.push(exchange)
  }

  get all(): readonly Exchange[] {
    return this.#all
  }

  /**
   * Where an engine reports no cached tokens its events say it: what a request found it did not store. The journals must
   * have heard everything by now. Returns for how many requests.
   */
  askEvents(journals: ReadonlyMap<string, Journal>): number {
    let found = 0
    for (const [at, exchange] of this.#all.entries()) {
      const journal = journals.get(exchange.worker)
      if (exchange.actual !== null || journal === undefined) continue
      const { promptIds, decidedMs, answeredMs } = exchange
      const names = journal.namesOf(promptIds)
      const until = journal.momentAt(answeredMs + underWayMs)
      const blocks = journal.firstStored(names, journal.momentAt(decidedMs), until)
      const most = Math.floor((promptIds.length - 1) / this.#blockSize)
      this.#all[at] = { ...exchange, actual: Math.min(blocks, most) * this.#blockSize }
      found++
    }
    return found
  }

  /** 1 − Σ|predicted − actual| / Σ max(predicted, actual), and the share of requests that could be compared. */
  agreement(): { ratio: number; coverage: number; predicted: number; actual: number } {
    let difference = 0
    let larger = 0
    let compared = 0
    let sums = { predicted: 0, actual: 0 }
    for (const { predicted, actual } of this.#all) {
      if (actual === null) continue
      compared++
      difference += Math.abs(predicted - actual)
      larger += Math.max(predicted, actual)
      sums = { predicted: sums.predicted + predicted, actual: sums.actual + actual }
    }
    return { ratio: larger === 0 ? 1 : 1 - difference / larger, coverage: compared / this.#all.length, ...sums }
  }

  /** Every request in which the two differ; the journals must have heard everything by now. */
  differences(journals: ReadonlyMap<string, Journal>): Difference[] {
    const differing = this.#all.filter(({ predicted, actual }) => actual !== null && actual !== predicted)
    return differing.map((exchange) => {
      const journal = journals.get(exchange.worker)
      return { exchange, cause: journal === undefined ? null : this.#causeOf(exchange, journal) }
    })
  }

  /**
   * The engine's own events, in its own times, must tell a story: at the decision (or at most so much before as an event
   * may be late) it held what was predicted, and at a later moment before the answer what it reported.
   */
  #causeOf(exchange: Exchange, journal: Journal): string | null {
    const { predicted, decidedMs, answeredMs } = exchange
    const actual = exchange.actual ?? 0
    const names = journal.namesOf(exchange.promptIds)
    const decision = journal.momentAt(decidedMs)
    const told = this.#tokensAt(exchange, journal, names, decision)
    const earliest = journal.momentAt(decidedMs - underWayMs)
    const wasSo = this.#someMoment(exchange, journal, names, earliest, decision, predicted)
    const becameSo =
      wasSo !== null &&
      this.#someMoment(exchange, journal, names, wasSo, journal.momentAt(answeredMs + underWayMs), actual) !== null
    // What the request itself has computed was not cached when it came.
    const byOther = actual < predicted || this.#sharesWithOther(exchange, actual)
    if (becameSo && byOther) {
      if (told === actual) return actual < predicted ? causes.underWayEvicted : causes.underWayStored
      return actual < predicted ? causes.evicted : causes.stored
    }
    for (const rule of this.#rules) {
      const cause = rule(exchange, journal)
      if (cause !== null) return cause
    }
    return null
  }

  /** The latest moment within the bounds at which the engine held so many tokens of the prompt. */
  #someMoment(
    exchange: Exchange,
    journal: Journal,
    names: readonly string[],
    from: number,
    to: number,
    tokens: number,
  ): number | null {
    for (let moment = to; moment >= from; moment--)
      if (this.#tokensAt(exchange, journal, names, moment) === tokens) return moment
    return null
  }

  #tokensAt({ promptIds }: Exchange, journal: Journal, names: readonly string[], moment: number): number {
    // The last token is always computed.
    const most = Math.floor((promptIds.length - 1) / this.#blockSize)
    return Math.min(journal.held(names, moment), most) * this.#blockSize
  }

  /** Whether another request on the engine, at about the same time, begins with as many tokens. */
  #sharesWithOther(exchange: Exchange, tokens: number): boolean {
    return this.#all.some(
      (other) =>
        other !== exchange &&
        other.worker === exchange.worker &&
        other.decidedMs <= exchange.answeredMs &&
        other.answeredMs >= exchange.decidedMs - underWayMs &&
        other.promptIds.length >= tokens &&
        exchange.promptIds.slice(0, tokens).every((token, at) => token === other.promptIds[at]),
    )
  }
}
