import type { ServerResponse } from 'node:http'
import type { Admission } from './admission/admission.ts'
import { anonymous } from './admission/caller.ts'
import type { Pass } from './admission/pass.ts'
import { rateLimitHeaders } from './admission/rates.ts'
import { RouterError } from './errors.ts'
import type { KeyMaker } from './kv/keys.ts'
import { PromptKeys } from './kv/prompt-keys.ts'
import type { WorkerSlot } from './kv/batch.ts'
import type { Coming } from './map/coming.ts'
import type { MapReader, MatchQuery } from './map/map.ts'
import type { SentPrompt, SentPrompts, UnderWay } from './map/sent-prompts.ts'
import { Accounting, type Accounted } from './pipeline/accounting.ts'
import { addedHeaders, bodyFor, requestIdHeaders } from './pipeline/forwarding.ts'
import { promptTokensOf, type Incoming, type Prepared } from './pipeline/incoming.ts'
import { Preparation } from './pipeline/preparation.ts'
import { ResponseOwners } from './pipeline/response-owners.ts'
import type { Forwarder } from './proxy/forward.ts'
import type { ForwardOutcome } from './proxy/outcome.ts'
import { requestHeaders } from './proxy/headers.ts'
import { isBackPressure } from './proxy/held-answer.ts'
import type { RetryBudget } from './proxy/retry-budget.ts'
import { Candidates, type MatchBySlot } from './routing/candidates.ts'
import type { DecisionLog, DecisionRecord } from './routing/decisions.ts'
import { heldBlocks, type HeldBlocks } from './routing/held-blocks.ts'
import type { Dispatch } from './routing/policy.ts'
import type { Profile } from './routing/profile.ts'
import { predictedMs, reasonOf } from './routing/reason.ts'
import type { TierCredit } from './routing/tier-credit.ts'
import type { Log } from './telemetry/log.ts'
import type { Metrics } from './telemetry/metrics.ts'
import type { PromptKind, PromptService } from './tokenize/service.ts'
import type { TruthCheck } from './truth/check.ts'
import type { Watched } from './truth/watched.ts'
import { InFlight, type Fleet } from './workers/fleet.ts'
import type { FleetLoad } from './workers/fleet-load.ts'
import { LinearRelease } from './workers/linear-release.ts'
import type { Outliers } from './workers/outliers.ts'
import type { Pool, Pools } from './workers/pool.ts'
import type { Worker } from './workers/worker.ts'

export type { Endpoint, Incoming } from './pipeline/incoming.ts'

export interface PipelineOptions {
  readonly prompts: PromptService
  readonly pools: Pools
  readonly keys: KeyMaker
  readonly map: MapReader
  readonly coming: Coming
  readonly sentPrompts: SentPrompts
  /** Places in the map: those of workers, then those of stores. */
  readonly mapSlots: number
  readonly fleet: Fleet
  readonly load: FleetLoad
  readonly profileOf: (pool: Pool) => Profile
  readonly tierCreditOf: (pool: Pool) => TierCredit
  readonly forwarder: Forwarder
  readonly admission: Admission
  /** Whether the worker has a place left, where places are counted. */
  readonly hasPlaceOn: (worker: Worker) => boolean
  readonly outliers: Outliers
  readonly retries: RetryBudget
  readonly decisions: DecisionLog
  /** A prompt that no adapter or salt sets apart was sent; returns at once. */
  readonly onRouted?: (pool: Pool, tokens: Uint32Array) => void
  /** Holds one decision at a time: what /admin/explain would have chosen. */
  readonly explained: DecisionLog
  readonly metrics: Metrics
  readonly log: Log
  /** Monotonic milliseconds, with a fraction. */
  readonly clock: () => number
  readonly wallClock: () => number
  readonly staleLoadMs: number
  readonly truth: TruthCheck
  /** Responses of the Responses API whose worker is remembered. */
  readonly responsesKept: number
  /**
   * A worker broke off a request: whoever watches its health wants to know at once. `refused` says that it did not take
   * the connection; else it may only have closed one that was idle.
   */
  readonly onUnreachable: (worker: Worker, refused: boolean) => void
}

/** Prefill rate for releasing outstanding tokens where the profile predicts no time itself. */
const assumedTokensPerMs = 8

interface Decision extends Accounted {
  readonly profile: Profile
  readonly predictedPrefillMs: number
  /** The longest prompt in the worker's blocks; null where it has no tokens or the worker no block size. */
  readonly prompt: SentPrompt | null
  readonly dispatch: Dispatch
}

interface Route {
  readonly candidates: Candidates
  readonly profile: Profile
}

/** THE request in six calls: read, tokenize, keys, match, choose, forward. */
export class Pipeline {
  readonly #o: PipelineOptions
  readonly #match: MatchBySlot
  readonly #routes = new Map<Pool, Route>()
  readonly #promptKeys: PromptKeys
  readonly #release: LinearRelease
  readonly #owners: ResponseOwners
  readonly #preparation: Preparation
  readonly #accounting: Accounting
  /** Reused by each decision. */
  readonly #free: Worker[] = []
  readonly #held: HeldBlocks = { gpu: 0, host: 0, disk: 0, shared: 0, toldRun: 0 }
  #requestsInFlight = 0

  constructor(options: PipelineOptions) {
    this.#o = options
    const { mapSlots } = options
    this.#match = {
      gpu: new Uint32Array(mapSlots),
      host: new Uint32Array(mapSlots),
      disk: new Uint32Array(mapSlots),
      shared: new Uint32Array(mapSlots),
      coming: new Uint32Array(mapSlots),
    }
    this.#promptKeys = new PromptKeys(options.keys)
    this.#release = new LinearRelease(options.clock)
    this.#owners = new ResponseOwners(options.fleet, options.responsesKept)
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
    this.#decide(request, new Set(), 1, this.#o.explained)
    const [record] = this.#o.explained.latest(1)
    if (record === undefined) throw new RouterError('INTERNAL', 'The decision was not kept')
    return record
  }

  /** The pool's profile is made anew at its next request; what runs goes on with the one that it has. */
  renewProfile(pool: Pool): void {
    this.#routes.delete(pool)
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
        this.#judge(request, decision.worker, outcome)
        const reason = this.#mayTryAgain(request, decision.worker, outcome, attempt, tried)
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

  #decideOrRefuse(request: Prepared, tried: ReadonlySet<number>, attempt: number): Decision {
    try {
      return this.#decide(request, tried, attempt, this.#o.decisions)
    } catch (error) {
      this.#refused(request.incoming, error)
      throw error
    }
  }

  /** Keys, match, choose: no `await` in between, so that a decision sees one consistent picture. */
  #decide(request: Prepared, tried: ReadonlySet<number>, attempt: number, log: DecisionLog): Decision {
    const { clock, load, map, metrics, outliers } = this.#o
    const { pool } = request.target
    const { candidates, profile } = this.#routeOf(pool)

    const startMs = clock()
    const queries = request.longest === null || request.fallback !== null ? [] : this.#queries(request, request.longest)
    const keyedMs = clock()
    map.match(queries, this.#match)
    this.#o.coming.match(queries, this.#match, keyedMs, this.#match.coming)
    const matchedMs = clock()
    const promptTokens = queries.length > 0 ? request.policy.promptTokens + request.unknownTokens : 0
    const workers = request.owner === null ? pool.workers : [request.owner]
    candidates.gather(this.#withPlace(outliers.eligible(workers, tried)), load, this.#match, {
      nowMs: startMs,
      staleLoadMs: this.#o.staleLoadMs,
      promptTokens,
      stores: pool.stores,
    })
    if (candidates.count === 0) throw noWorker(pool)
    const chosen = profile.choose(request.policy, candidates, candidates)
    const chosenMs = clock()

    const worker = candidates.workers[chosen] as Worker
    const predictedCachedTokens = this.#predicted(request, worker, candidates.cachedTokens[chosen] as number)
    const { reason, fallback, best } = reasonOf(candidates, chosen, request.fallback)
    const facts = {
      requestId: request.incoming.requestId,
      pool: pool.model,
      model: request.read.fields.model,
      attempt,
      timeMs: this.#o.wallClock(),
      promptTokens: request.policy.promptTokens,
      blocks: worker.blockSize === null ? 0 : Math.floor(request.policy.promptTokens / worker.blockSize),
      chosen,
      reason,
      fallback,
      predictedCachedTokens,
      tokenizeUs: request.tokenizeUs,
      keysUs: (keyedMs - startMs) * 1000,
      matchUs: (matchedMs - keyedMs) * 1000,
      chooseUs: (chosenMs - matchedMs) * 1000,
    }
    const ticket = log.keep(facts, candidates, profile)
    const comingTokens = candidates.comingTokens[chosen] as number
    const uncached = Math.max(0, promptTokensOf(request) - predictedCachedTokens - comingTokens)
    if (log === this.#o.decisions) {
      metrics.decision.observe((chosenMs - startMs) / 1000)
      if (fallback !== null) metrics.fallbacks.add(1, fallback)
    }
    return {
      worker,
      profile,
      ticket,
      attempt,
      predictedCachedTokens,
      predictedPrefillMs: predictedMs(profile, chosen) ?? uncached / assumedTokensPerMs,
      watched: log === this.#o.decisions ? this.#watched(request, candidates, chosen, queries) : null,
      prompt: promptFor(worker, queries, candidates.gpu[chosen] as number, promptTokens),
      dispatch: {
        serial: worker.serial,
        promptTokens: promptTokensOf(request),
        uncachedTokens: uncached,
        loadTokens: (candidates.cachedTokens[chosen] as number) - candidates.creditTokens(chosen),
        prefillTokensAhead: candidates.prefillTokens[chosen] as number,
        requestsAhead: candidates.requests[chosen] as number,
        stream: request.policy.stream,
        atMs: chosenMs,
      },
      summary: { reason, ...(fallback === null ? {} : { fallback }), candidates: candidates.count, ...best },
    }
  }

  /** What the request should find and leave behind on its worker; null where its prompt is not wholly known. */
  #watched(
    { longest, prompts, fallback, unknownTokens, incoming, read, target }: Prepared,
    candidates: Candidates,
    chosen: number,
    queries: readonly MatchQuery[],
  ): Watched | null {
    const worker = candidates.workers[chosen] as Worker
    const query = queries.find(({ blockSize }) => blockSize === worker.blockSize)
    if (longest === null || query === undefined || fallback !== null || unknownTokens > 0) return null
    // A hint that proves wrong says nothing of the worker's own events.
    if (worker.exact && candidates.exact[chosen] === 0) return null
    const { prompt } = incoming.endpoint
    return this.#o.truth.watch(worker, {
      keys: query.keys,
      tokens: longest,
      runBlocks:
        (candidates.gpu[chosen] as number) + (candidates.host[chosen] as number) + (candidates.disk[chosen] as number),
      sharedBlocks: candidates.shared[chosen] as number,
      comingBlocks: candidates.coming[chosen] as number,
      adapter: target.adapter,
      salt: read.fields.cacheSalt,
      chat: chatKinds.has(prompt),
      generates: prompt !== 'other' && prompt !== 'tokenize',
      // Engines report the cached tokens of one prompt only where a request has several, and of one answer of several.
      reports: prompts.length === 1 && read.fields.n <= 1,
    })
  }

  /** Those that have a place left, if any. */
  #withPlace(workers: readonly Worker[]): readonly Worker[] {
    const free = this.#free
    free.length = 0
    for (const worker of workers) if (this.#o.hasPlaceOn(worker)) free.push(worker)
    return free.length > 0 ? free : workers
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

  /** What the outcome says of the worker, whoever asked. */
  #judge({ target }: Prepared, worker: Worker, outcome: ForwardOutcome): void {
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
  #mayTryAgain(
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

  #refused(incoming: Incoming, error: unknown): void {
    if (error instanceof RouterError) this.#accounting.refused(incoming, error)
  }

  #routeOf(pool: Pool): Route {
    let route = this.#routes.get(pool)
    if (route === undefined) {
      route = {
        candidates: new Candidates(this.#o.fleet.limit, this.#o.tierCreditOf(pool)),
        profile: this.#o.profileOf(pool),
      }
      this.#routes.set(pool, route)
    }
    return route
  }

  /** One query per distinct block size of the pool's workers (decision 3) and of the stores beside them. */
  #queries(request: Prepared, tokens: Uint32Array): MatchQuery[] {
    const queries: MatchQuery[] = []
    const { workers, stores } = request.target.pool
    const ask = (blockSize: number | null | undefined): void => {
      if (blockSize === null || blockSize === undefined) return
      for (const query of queries) if (query.blockSize === blockSize) return
      queries.push({ blockSize, keys: this.#keys(request, tokens, blockSize) })
    }
    for (const worker of workers) {
      ask(worker.blockSize)
      ask(worker.chunks?.blockSize)
      ask(worker.lookedUp?.blockSize)
    }
    for (const store of stores) ask(store.blockSize)
    return queries
  }

  #keys({ target, read }: Prepared, tokens: Uint32Array, blockSize: number): Uint32Array {
    const { cacheSalt } = read.fields
    return this.#promptKeys.of(tokens, { model: target.pool.model, adapter: target.adapter, blockSize, cacheSalt })
  }

  /** Cached tokens on the worker, summed over all prompts of the request. */
  #predicted(request: Prepared, worker: Worker, ofLongest: number): number {
    if (
      request.prompts.length < 2 ||
      request.fallback !== null ||
      worker.blockSize === null ||
      worker.degraded !== null
    )
      return ofLongest
    let sum = ofLongest
    for (const prompt of request.prompts) {
      if (prompt === request.longest) continue
      this.#o.map.match(this.#queries(request, prompt), this.#match)
      const { gpu, host, disk, shared } = heldBlocks(worker, request.target.pool.stores, this.#match, this.#held)
      const blocks = gpu + host + disk + shared
      sum += Math.min(blocks, Math.floor(Math.max(0, prompt.length - 1) / worker.blockSize)) * worker.blockSize
    }
    return sum
  }
}

/** @param heldBlocks leading blocks that the worker itself holds by the map; engines never find the last token's cached */
function promptFor(
  worker: Worker,
  queries: readonly MatchQuery[],
  heldBlocks: number,
  promptTokens: number,
): SentPrompt | null {
  const query = queries.find(({ blockSize }) => blockSize === worker.blockSize)
  if (query === undefined) return null
  const { keys, blockSize } = query
  const { slot, capacityBlocks } = worker
  const believedBlocks = Math.min(heldBlocks, Math.floor(Math.max(0, promptTokens - 1) / blockSize))
  return { slot: slot as WorkerSlot, blockSize, keys, believedBlocks, capacityBlocks }
}

/** Seconds for which a worker that is too busy, and does not say for how long, is given less. */
const defaultPressureSeconds = 1
/** Prompts that a template makes of messages. */
const chatKinds: ReadonlySet<PromptKind> = new Set<PromptKind>(['chat', 'messages', 'responses'])
/** Error answers for which another worker may do better. */
const retriedStatuses: ReadonlySet<number> = new Set([429, 500, 502, 503, 504, 529])

/** The worker did not take the connection, or broke it before it answered. */
function isBroken(outcome: ForwardOutcome): outcome is ForwardOutcome & { kind: 'failed' } {
  return outcome.kind === 'failed' && outcome.error.code === 'UPSTREAM_UNREACHABLE'
}

function noWorker(pool: Pool): RouterError {
  return new RouterError('NO_WORKER', `No healthy worker serves "${pool.model}" (${pool.workers.length} known)`, {
    retryAfterSeconds: 1,
  })
}
