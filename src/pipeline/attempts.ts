import type { RetryBudget } from '../proxy/retry-budget.ts'
import { isBackPressure } from '../proxy/held-answer.ts'
import type { ForwardOutcome } from '../proxy/outcome.ts'
import type { Outliers } from '../workers/outliers.ts'
import type { Worker } from '../workers/worker.ts'
import type { Prepared } from './incoming.ts'

export interface AttemptsParts {
  readonly outliers: Outliers
  readonly retries: RetryBudget
  /**
   * A worker broke off a request: whoever watches its health wants to know at once. `refused` says that it did not take
   * the connection; else it may only have closed one that was idle.
   */
  readonly onUnreachable: (worker: Worker, refused: boolean) => void
}

/** What came of an attempt says something about the worker, and whether there may be another. */
export class Attempts {
  readonly #o: AttemptsParts

  constructor(parts: AttemptsParts) {
    this.#o = parts
  }

  /** What the outcome says of the worker, whoever asked. */
  judge({ target }: Prepared, worker: Worker, outcome: ForwardOutcome): void {
    const { outliers } = this.#o
    switch (outcome.kind) {
      case 'answered':
        outliers.succeeded(worker)
        break
      case 'errored':
        if (isBackPressure(outcome.status))
          outliers.pressed(worker, (outcome.answer.retryAfterSeconds ?? defaultPressureSeconds) * 1000)
        else if (outcome.status >= 500 && outcome.status !== 501) outliers.failed(worker, target.pool.workers)
        else outliers.succeeded(worker)
        break
      case 'failed':
      case 'died':
        outliers.failed(worker, target.pool.workers)
        if (outcome.kind === 'died') this.#o.onUnreachable(worker, false)
        else if (isBroken(outcome)) this.#o.onUnreachable(worker, outcome.refused)
        break
      case 'clientGone':
        outliers.undecided(worker)
        break
      default:
        outcome satisfies never
    }
  }

  /** Why the request is tried again, null if it is not. Adds the worker to those that it was tried on. */
  mayTryAgain(
    { target, owner }: Prepared,
    worker: Worker,
    outcome: ForwardOutcome,
    attempt: number,
    tried: Set<number>,
  ): string | null {
    const { outliers, retries } = this.#o
    if (attempt > retries.limits.attempts || owner !== null) return null
    if (outcome.kind === 'errored') {
      if (!retriedStatuses.has(outcome.status)) return null
    } else if (outcome.kind !== 'failed' || !outcome.mayRetry) return null
    tried.add(worker.serial)
    const reason = outcome.kind === 'errored' ? `status_${outcome.status}` : outcome.error.code.toLowerCase()
    if (outliers.hasOther(target.pool.workers, tried)) return reason
    // A connection that broke may have been an idle one that the engine was just closing; a new one tells.
    if (isBroken(outcome) && !outcome.refused) {
      tried.delete(worker.serial)
      return reason
    }
    return null
  }
}

/** Seconds for which a worker that is too busy, and does not say for how long, is given less. */
const defaultPressureSeconds = 1
/** Error answers for which another worker may do better. */
const retriedStatuses: ReadonlySet<number> = new Set([429, 500, 502, 503, 504, 529])

/** The worker did not take the connection, or broke it before it answered. */
export function isBroken(outcome: ForwardOutcome): outcome is ForwardOutcome & { kind: 'failed' } {
  return outcome.kind === 'failed' && outcome.error.code === 'UPSTREAM_UNREACHABLE'
}
