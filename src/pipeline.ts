import type { ServerResponse } from 'node:http'
import type { Admission } from './admission/admission.ts'
import { anonymous } from './admission/caller.ts'
import type { Pass } from './admission/pass.ts'
import { rateLimitHeaders } from './admission/rates.ts'
import { RouterError } from './errors.ts'
import type { SentPrompts, UnderWay } from './map/sent-prompts.ts'
import { Accounting } from './pipeline/accounting.ts'
import { Attempts, isBroken, type AttemptsParts } from './pipeline/attempts.ts'
import { Decider, type DeciderParts, type Decision } from './pipeline/decider.ts'
import { addedHeaders, bodyFor, requestIdHeaders } from './pipeline/forwarding.ts'
import { promptTokensOf, type Incoming, type Prepared } from './pipeline/incoming.ts'
import type { RequestRecorder } from './pipeline/recorded.ts'
import { Preparation } from './pipeline/preparation.ts'
import { ResponseOwners, type OwnersElsewhere } from './pipeline/response-owners.ts'
import type { Forwarder } from './proxy/forward.ts'
import { requestHeaders } from './proxy/headers.ts'
import type { AnswerFacts, ForwardOutcome } from './proxy/outcome.ts'
import type { DecisionLog, DecisionRecord } from './routing/decisions.ts'
import type { PolicyHooks } from './routing/policy.ts'
import type { Profile } from './routing/profile.ts'
import type { Log } from './telemetry/log.ts'
import type { PromptService } from './tokenize/service.ts'
import { InFlight } from './workers/fleet.ts'
import { LinearRelease } from './workers/linear-release.ts'
import type { Pool, Pools } from './workers/pool.ts'
import type { Worker } from './workers/worker.ts'

export type { Endpoint, Incoming } from './pipeline/incoming.ts'

export interface PipelineOptions extends DeciderParts, AttemptsParts {
  readonly prompts: PromptService
  readonly pools: Pools
  readonly sentPrompts: SentPrompts
  readonly forwarder: Forwarder
  readonly admission: Admission
  /** A prompt that no adapter or salt sets apart was sent; returns at once. */
  readonly onRouted?: (pool: Pool, tokens: Uint32Array) => void
  /** Holds one decision at a time: what /admin/explain would have chosen. */
  readonly explained: DecisionLog
  readonly log: Log
  /** Responses of the Responses API whose worker is remembered. */
  readonly responsesKept: number
  /** Absent where this router is the only one. */
  readonly ownersElsewhere?: OwnersElsewhere
  /** Keeps what a replay needs of each answered request; absent where nobody asked for it. */
  readonly recorder?: RequestRecorder
  /** Hears of requests what the pool's policy hears of them, so that other replicas can be told. */
  readonly dispatches?: PolicyHooks
}

/** THE request in six calls: read, tokenize, keys, match, choose, forward. */
export class Pipeline {
  readonly #o: PipelineOptions
  readonly #decider: Decider
  readonly #attempts: Attempts
  readonly #release: LinearRelease
  readonly #owners: ResponseOwners
  readonly #preparation: Preparation
  readonly #accounting: Accounting
  #requestsInFlight = 0

  constructor(options: PipelineOptions) {
    this.#o = options
    this.#decider = new Decider(options)
    this.#attempts = new Attempts(options)
    this.#release = new LinearRelease(options.clock)
    this.#owners = new ResponseOwners(options.fleet, options.responsesKept, options.ownersElsewhere)
    this.#preparation = new Preparation({ ...options, owners: this.#owners })
    this.#accounting = new Accounting(options)
  }

  /**
   * Routes one request and answers it. Throws RouterError while nothing has been written to the client; afterwards
   * whatever happens is told within the answer.
   */
  async serve(incoming: Incoming, response: ServerResponse): Promise<void> {
    let request: Prepared
    let pass: Pass | null
    try {
      request = await this.#preparation.of(incoming)
      this.#o.metrics.tokenize.observe(request.tokenizeUs / 1e6)
      const admitted = response.destroyed ? null : this.#admit(request, response)
      // Nearly all are admitted at once: they need not wait for a promise's turn.
      pass = admitted instanceof Promise ? await admitted : admitted
    } catch (error) {
      this.#refused(incoming, error)
      throw error
    }
    if (pass === null) {
      this.#accounting.clientLeft()
      return
    }
    this.#requestsInFlight++
    let generatedTokens = 0
    try {
      generatedTokens = await this.#route(request, pass, response)
    } finally {
      this.#requestsInFlight--
      pass.done(generatedTokens)
    }
  }

  /** Hands a request on to the worker that holds a response: there is nothing to choose. */
  async serveOwned(incoming: Incoming, method: 'GET' | 'POST', responseId: string, response: ServerResponse) {
    try {
      const worker = this.#owners.owner(responseId)
      const outcome = await this.#o.forwarder.send(
        {
          worker,
          method,
          path: incoming.path,
          headers: this.#requestHeaders(incoming, worker),
          body: method === 'GET' ? null : incoming.body,
          stream: /[?&]stream=true(&|$)/.test(incoming.path),
          protocol: incoming.endpoint.protocol,
          answerHeaders: requestIdHeaders(incoming),
        },
        response,
      )
      if (outcome.kind === 'errored') outcome.answer.send(response)
      if (outcome.kind === 'failed') throw outcome.error
      this.#o.metrics.requests.add(1, worker.pool, worker.id, String(outcome.status))
    } catch (error) {
      this.#refused(incoming, error)
      throw error
    }
  }

  /** The decision that `serve` would make now; sends nothing and changes nothing. Throws what the client would get. */
  async explain(incoming: Incoming): Promise<DecisionRecord> {
    const request = await this.#preparation.of(incoming)
    this.#decider.decide(request, new Set(), 1, this.#o.explained)
    const [record] = this.#o.explained.latest(1)
    if (record === undefined) throw new RouterError('INTERNAL', 'The decision was not kept')
    return record
  }

  /** The pool's profile is made anew at its next request; what runs goes on with the one that it has. */
  renewProfile(pool: Pool): void {
    this.#decider.renewProfile(pool)
  }

  /** What decides for the pool now, and is to hear also of requests that other replicas send. */
  profileOf(pool: Pool): Profile {
    return this.#decider.profileOf(pool)
  }

  close(): void {
    this.#release.close()
  }

  /** The right to be sent, at once or when it is the request's turn; null where the client left before. */
  #admit(request: Prepared, response: ServerResponse): Pass | Promise<Pass | null> {
    const { admission } = this.#o
    const entry = {
      caller: request.incoming.caller,
      pool: request.target.pool.model,
      promptTokens: promptTokensOf(request),
      priority: request.policy.priority,
      onGone: (gone: () => void) => response.once('close', gone),
    }
    return admission.tryEnter(entry) ?? admission.enter(entry)
  }

  /** Tries workers until one answers, or no other may be tried. Gives the number of tokens that were generated. */
  async #route(request: Prepared, pass: Pass, response: ServerResponse): Promise<number> {
    const { retries, metrics } = this.#o
    const tried = new Set<number>()
    let budgeted = false
    try {
      for (let attempt = 1; ; attempt++) {
        if (response.destroyed) {
          this.#accounting.clientLeft()
          return 0
        }
        const decision = this.#decideOrRefuse(request, tried, attempt)
        const outcome = await this.#dispatch(request, decision, pass, response)
        this.#attempts.judge(request, decision.worker, outcome)
        const reason = this.#attempts.mayTryAgain(request, decision.worker, outcome, attempt, tried)
        if (reason !== null) {
          // What a broken connection cost is lost with its worker; only retries of answered requests multiply the load.
          budgeted ||= !isBroken(outcome) && retries.tryTake(this.#requestsInFlight)
          if (budgeted || isBroken(outcome)) {
            metrics.retries.add(1, reason)
            continue
          }
          metrics.retriesRefused.add(1)
        }
        this.#accounting.settled(request, decision, outcome, pass.waitedMs)
        if (outcome.kind === 'answered') this.#record(request, decision, outcome.facts)
        if (outcome.kind === 'errored') outcome.answer.send(response)
        if (outcome.kind === 'failed') throw outcome.error
        if (outcome.kind === 'errored') return 0
        if (outcome.kind !== 'answered') return outcome.generatedTokens
        if (outcome.facts.responseId !== null) this.#owners.add(outcome.facts.responseId, decision.worker)
        return outcome.facts.generatedTokens
      }
    } finally {
      if (budgeted) retries.release()
    }
  }

  /** What a replay can play again: a prompt that is known by its blocks. */
  #record(
    { arrivedMs, target, policy }: Prepared,
    { worker, dispatch, predictedCachedTokens }: Decision,
    facts: AnswerFacts,
  ) {
    const { recorder, clock, wallClock } = this.#o
    if (recorder === undefined || dispatch.keys === null || worker.blockSize === null || policy.promptTokens === 0)
      return
    recorder.record({
      timeMs: Math.round(wallClock() - (clock() - arrivedMs)),
      model: target.adapter ?? target.pool.model,
      blockSize: worker.blockSize,
      promptTokens: policy.promptTokens,
      outputTokens: facts.generatedTokens,
      keys: dispatch.keys,
      worker: worker.id,
      predictedCachedTokens,
      cachedTokens: facts.cachedTokens,
    })
  }

  #decideOrRefuse(request: Prepared, tried: ReadonlySet<number>, attempt: number): Decision {
    try {
      return this.#decider.decide(request, tried, attempt, this.#o.decisions)
    } catch (error) {
      this.#refused(request.incoming, error)
      throw error
    }
  }

  async #dispatch(
    request: Prepared,
    decision: Decision,
    pass: Pass,
    response: ServerResponse,
  ): Promise<ForwardOutcome> {
    const { incoming, read } = request
    const { worker, profile, dispatch } = decision
    const { clock, metrics, outliers, truth } = this.#o
    const inFlight = new InFlight(this.#o.fleet.counters, worker.slot, {
      promptTokens: dispatch.promptTokens,
      uncachedTokens: dispatch.uncachedTokens,
      blockSize: worker.blockSize ?? 16,
      sequences: Math.max(1, read.fields.n) * Math.max(1, request.prompts.length),
    })
    pass.sent()
    const { target, longest } = request
    if (longest !== null && target.adapter === null && read.fields.cacheSalt === null)
      this.#o.onRouted?.(target.pool, longest)
    const releasing = dispatch.stream
      ? null
      : this.#release.add(inFlight, dispatch.atMs, decision.predictedPrefillMs, dispatch.uncachedTokens)
    outliers.dispatched(worker)
    profile.dispatched(dispatch)
    this.#o.dispatches?.onDispatched?.(dispatch)
    const underWay = this.#expect(decision)
    const { watched } = decision
    let answered = false
    if (watched !== null) truth.sent(watched)
    try {
      const outcome = await this.#o.forwarder.send(
        {
          worker,
          method: 'POST',
          path: incoming.path,
          headers: this.#requestHeaders(incoming, worker),
          body: bodyFor(request, worker),
          stream: dispatch.stream,
          protocol: incoming.endpoint.protocol,
          answerHeaders: this.#answerHeaders(incoming, decision),
          onFirstToken: () => {
            const nowMs = clock()
            metrics.timeToFirstToken.observe((nowMs - request.arrivedMs) / 1000)
            if (!dispatch.stream) return
            if (underWay !== null) this.#o.sentPrompts.computed(underWay, nowMs)
            inFlight.prefilledTo(0)
            profile.firstByte(dispatch, nowMs - dispatch.atMs)
            this.#o.dispatches?.onFirstByte?.(dispatch, nowMs - dispatch.atMs)
          },
          onEvents: (count) => inFlight.generated(count),
        },
        response,
      )
      answered = outcome.kind === 'answered'
      if (underWay !== null && outcome.kind === 'answered')
        // Engines report the cached tokens of one prompt only where a request has several.
        this.#o.sentPrompts.answered(
          underWay,
          request.prompts.length === 1 && request.unknownTokens === 0 ? outcome.facts.cachedTokens : null,
          clock(),
        )
      return outcome
    } finally {
      if (watched !== null) truth.ended(watched, answered)
      if (underWay !== null) this.#o.sentPrompts.ended(underWay)
      if (releasing !== null) this.#release.remove(releasing)
      inFlight.release()
      profile.finished(dispatch)
      this.#o.dispatches?.onFinished?.(dispatch)
    }
  }

  #expect({ prompt, predictedPrefillMs, dispatch }: Decision): UnderWay | null {
    return prompt === null ? null : this.#o.sentPrompts.sent(prompt, predictedPrefillMs, dispatch.atMs)
  }

  #answerHeaders(incoming: Incoming, { worker, predictedCachedTokens }: Decision): string[] {
    const { admission, decisions } = this.#o
    const headers = addedHeaders(incoming, worker, predictedCachedTokens, () => decisions.find(incoming.requestId))
    const figures = admission.rates.figures(incoming.caller)
    if (figures === null) return headers
    return [...headers, ...rateLimitHeaders(figures)]
  }

  #requestHeaders({ rawHeaders, requestId, forwarded, caller }: Incoming, worker: Worker): string[] {
    const withoutKey = caller !== anonymous
    return requestHeaders(rawHeaders, { requestId, rank: worker.rank, worker: worker.headers, forwarded, withoutKey })
  }

  #refused(incoming: Incoming, error: unknown): void {
    if (error instanceof RouterError) this.#accounting.refused(incoming, error)
  }
}
