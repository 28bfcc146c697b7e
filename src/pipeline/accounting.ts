import { anonymous } from '../admission/caller.ts'
import type { RouterError } from '../errors.ts'
import type { ForwardOutcome } from '../proxy/outcome.ts'
import type { DecisionLog } from '../routing/decisions.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { TruthCheck } from '../truth/check.ts'
import type { Watched } from '../truth/watched.ts'
import type { Worker } from '../workers/worker.ts'
import { promptTokensOf, type Incoming, type Prepared } from './incoming.ts'

/** What the books need of a decision. */
export interface Accounted {
  readonly worker: Worker
  readonly ticket: number
  readonly predictedCachedTokens: number
  /** What it should find and leave behind; null where nothing can be said. */
  readonly watched: Watched | null
  readonly attempt: number
  /** Short form of the decision for the log line. */
  readonly summary: object
}

export interface AccountingParts {
  readonly decisions: DecisionLog
  readonly metrics: Metrics
  readonly log: Log
  readonly clock: () => number
  readonly truth: TruthCheck
}

/** The log line of a request; what says nothing is left out. The decision's own short form stands in it, too. */
interface RequestLine {
  readonly requestId: string
  readonly model: string
  readonly worker: string
  readonly status: number
  readonly outcome: ForwardOutcome['kind']
  readonly promptTokens: number
  readonly predictedCachedTokens: number
  actualCachedTokens?: number
  attempt?: number
  clientRetries?: number
  key?: string
  queuedMs?: number
  durationMs?: number
}

/** Metrics, the report to the truth check, and the one log line of every request. */
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
    if (outcome.kind === 'answered') this.#verify(decision, actual, request.policy.stream)
    else if (outcome.kind === 'clientGone') metrics.clientAborts.add(1)
    else if (outcome.kind === 'died') metrics.upstreamDied.add(1, worker.id)
    const line: RequestLine = {
      requestId: incoming.requestId,
      model: read.fields.model,
      worker: worker.id,
      status,
      outcome: outcome.kind,
      promptTokens,
      predictedCachedTokens,
    }
    if (actual !== null) line.actualCachedTokens = actual
    if (attempt !== 1) line.attempt = attempt
    if (incoming.retryCount !== 0) line.clientRetries = incoming.retryCount
    if (incoming.caller !== anonymous) line.key = incoming.caller.keyId
    Object.assign(line, decision.summary)
    if (waitedMs !== 0) line.queuedMs = Math.round(waitedMs)
    line.durationMs = Math.round(durationMs * 10) / 10
    log.info(line, 'request')
  }

  /** A request that no worker had: counted without a model, which may be anything that a client makes up. */
  refused({ requestId }: Incoming, { status, code }: RouterError): void {
    this.#o.metrics.requests.add(1, '', '', String(status))
    this.#o.log.info({ requestId, status, code: code.toLowerCase() }, 'request refused')
  }

  clientLeft(): void {
    this.#o.metrics.clientAborts.add(1)
  }

  #verify({ worker, ticket, watched }: Accounted, cachedTokens: number | null, stream: boolean): void {
    const { metrics, decisions, truth } = this.#o
    if (cachedTokens !== null) {
      metrics.actualCachedTokens.add(cachedTokens, worker.id)
      metrics.verifiedRequests.add(1, worker.id)
      decisions.actual(ticket, cachedTokens)
    }
    if (watched !== null) truth.answered(watched, { cachedTokens, stream })
  }
}
