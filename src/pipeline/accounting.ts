import { anonymous } from '../admission/caller.ts'
import type { RouterError } from '../errors.ts'
import type { ForwardOutcome } from '../proxy/outcome.ts'
import type { DecisionLog } from '../routing/decisions.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import {
  agree,
  agreementRatio,
  forgetRecent,
  likelyCause,
  verdictOf,
  type AgreementLimits,
} from '../workers/agreement.ts'
import type { Worker } from '../workers/worker.ts'
import { promptTokensOf, type Incoming, type Prepared } from './incoming.ts'

/** What the books need of a decision. */
export interface Accounted {
  readonly worker: Worker
  readonly ticket: number
  readonly predictedCachedTokens: number
  /** What the map says, also of a worker that gets no credit for it. */
  readonly matchedTokens: number
  /** Whether that can be held against what the engine reports. */
  readonly verifiable: boolean
  readonly attempt: number
  /** Short form of the decision for the log line. */
  readonly summary: object
}

export interface AccountingParts {
  readonly decisions: DecisionLog
  readonly metrics: Metrics
  readonly log: Log
  readonly clock: () => number
  readonly agreement: AgreementLimits
}

/** Metrics, truth check and the one log line of every request. */
export class Accounting {
  readonly #o: AccountingParts

  constructor(parts: AccountingParts) {
    this.#o = parts
  }

  /** A request that a worker had, whatever came of it. */
  settled(request: Prepared, decision: Accounted, outcome: ForwardOutcome, waitedMs: number): void {
    const { metrics, log, clock } = this.#o
    const { worker, predictedCachedTokens, attempt } = decision
    const { incoming, target, read } = request
    const status = outcome.kind === 'failed' ? outcome.error.status : outcome.status
    const durationMs = clock() - request.arrivedMs
    const promptTokens = promptTokensOf(request)
    metrics.requests.add(1, target.adapter ?? target.pool.model, worker.id, String(status))
    metrics.promptTokens.add(promptTokens)
    if (request.unknownTokens > 0) metrics.promptsWithMedia.add(1)
    metrics.predictedCachedTokens.add(predictedCachedTokens, worker.id)
    metrics.requestDuration.observe(durationMs / 1000)
    const actual = outcome.kind === 'answered' ? outcome.facts.cachedTokens : null
    if (outcome.kind === 'answered') this.#verify(decision, actual)
    else if (outcome.kind === 'clientGone') metrics.clientAborts.add(1)
    else if (outcome.kind === 'died') metrics.upstreamDied.add(1, worker.id)
    log.info(
      {
        requestId: incoming.requestId,
        model: read.fields.model,
        worker: worker.id,
        status,
        outcome: outcome.kind,
        promptTokens,
        predictedCachedTokens,
        ...(actual === null ? {} : { actualCachedTokens: actual }),
        ...(attempt === 1 ? {} : { attempt }),
        ...(incoming.retryCount === 0 ? {} : { clientRetries: incoming.retryCount }),
        ...(incoming.caller === anonymous ? {} : { key: incoming.caller.keyId }),
        ...decision.summary,
        ...(waitedMs === 0 ? {} : { queuedMs: Math.round(waitedMs) }),
        durationMs: Math.round(durationMs * 10) / 10,
      },
      'request',
    )
  }

  /** A request that no worker had: counted without a model, which may be anything that a client makes up. */
  refused({ requestId }: Incoming, { status, code }: RouterError): void {
    this.#o.metrics.requests.add(1, '', '', String(status))
    this.#o.log.info({ requestId, status, code: code.toLowerCase() }, 'request refused')
  }

  clientLeft(): void {
    this.#o.metrics.clientAborts.add(1)
  }

  #verify({ worker, ticket, matchedTokens, verifiable }: Accounted, actual: number | null): void {
    const { metrics, decisions } = this.#o
    if (actual !== null) {
      metrics.actualCachedTokens.add(actual, worker.id)
      metrics.verifiedRequests.add(1, worker.id)
      decisions.actual(ticket, actual)
    }
    if (!verifiable) return
    agree(worker.agreement, matchedTokens, actual, this.#o.agreement)
    this.#judge(worker)
  }

  /** Credits a worker whose predictions fail no longer, loudly, and one whose predictions come true again. */
  #judge(worker: Worker): void {
    const { metrics, log, agreement: limits } = this.#o
    const { agreement } = worker
    const verdict = verdictOf(agreement, limits)
    if (verdict === 'wrong' && worker.degraded === null) {
      worker.degraded = 'predictions_fail'
      metrics.distrusted.add(1, worker.id)
      const { predicted, actual } = agreement.recent
      log.error(
        { worker: worker.id, recentRatio: round(agreementRatio(agreement.recent)), predicted, actual },
        `predictions for this worker fail, it is routed by load only; ${likelyCause(agreement)}`,
      )
    } else if (verdict === 'right' && worker.degraded === 'predictions_fail') {
      worker.degraded = null
      log.warn({ worker: worker.id }, 'predictions for this worker come true again')
    } else return
    forgetRecent(agreement)
  }
}

function round(value: number): number {
  return Math.round(value * 100) / 100
}
