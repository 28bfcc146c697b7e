import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { Worker } from '../workers/worker.ts'
import { causeTexts, isMild, type Cause } from './causes.ts'

export interface Finding {
  readonly cause: Cause
  /** What was seen, and what to check. */
  readonly text: string
  /** Unix milliseconds. */
  readonly sinceMs: number
  /** Whether its requests show it, who also take it back. */
  readonly judged: boolean
}

export interface FindingsParts {
  readonly wallClock: () => number
  readonly log: Pick<Log, 'warn'>
  readonly metrics: Pick<Metrics, 'truthFindings'>
}

/** What is known to be amiss with a worker; each cause is told once when it comes and once when it goes. */
export class Findings {
  readonly #worker: Worker
  readonly #o: FindingsParts
  readonly #byCause = new Map<Cause, Finding>()

  constructor(worker: Worker, parts: FindingsParts) {
    this.#worker = worker
    this.#o = parts
  }

  get size(): number {
    return this.#byCause.size
  }

  list(): readonly Finding[] {
    return [...this.#byCause.values()]
  }

  /** Those that make predictions wrong. */
  grave(): readonly Finding[] {
    return this.list().filter(({ cause }) => !isMild(cause))
  }

  add(cause: Cause, { detail = '', judged = false } = {}): void {
    if (this.#byCause.has(cause)) return
    const text = causeTexts[cause] + (detail === '' ? '' : ` (${detail})`)
    this.#byCause.set(cause, { cause, text, sinceMs: this.#o.wallClock(), judged })
    this.#o.metrics.truthFindings.add(1, this.#worker.id, cause)
    this.#o.log.warn({ worker: this.#worker.id, cause }, text)
  }

  remove(cause: Cause): void {
    if (this.#byCause.delete(cause))
      this.#o.log.warn({ worker: this.#worker.id, cause }, 'a finding of the truth check is gone')
  }

  /** Takes back what requests have shown and show no longer. */
  removeJudged(except: ReadonlySet<Cause>): void {
    for (const { cause, judged } of this.#byCause.values()) if (judged && !except.has(cause)) this.remove(cause)
  }
}
