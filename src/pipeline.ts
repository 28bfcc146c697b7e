import type { ServerResponse } from 'node:http'
import { RouterError } from './errors.ts'
import type { KeyMaker } from './kv/keys.ts'
import { PromptKeys } from './kv/prompt-keys.ts'
import type { MapReader, MatchQuery, PrefixMatch } from './map/map.ts'
import { openAiDeathNote } from './proxy/death-note.ts'
import type { Forwarder, ForwardOutcome } from './proxy/forward.ts'
import { requestHeaders } from './proxy/headers.ts'
import { Candidates } from './routing/candidates.ts'
import type { DecisionLog, DecisionRecord } from './routing/decisions.ts'
import type { Dispatch, PolicyRequest } from './routing/policy.ts'
import type { Profile } from './routing/profile.ts'
import { predictedMs, reasonOf } from './routing/reason.ts'
import type { Log } from './telemetry/log.ts'
import type { Metrics } from './telemetry/metrics.ts'
import type { PromptKind, PromptService, ReadBody } from './tokenize/service.ts'
import { InFlight, type Fleet } from './workers/fleet.ts'
import { LinearRelease } from './workers/linear-release.ts'
import type { ModelTarget, Pool, Pools } from './workers/pool.ts'
import { agree, type Worker } from './workers/worker.ts'

export interface Incoming {
  readonly requestId: string
  readonly kind: PromptKind
  /** Path and query as the client sent them. */
  readonly path: string
  readonly rawHeaders: readonly string[]
  readonly body: Buffer
  readonly sessionId: string | null
  /** Whether this client may see `x-warmroute-*` (decision 24). */
  readonly trusted: boolean
  /** Whether it asked for the decision in a header. */
  readonly wantsDecision: boolean
}

export interface PipelineOptions {
  readonly prompts: PromptService
  readonly pools: Pools
  readonly keys: KeyMaker
  readonly map: MapReader
  readonly fleet: Fleet
  readonly profileOf: (pool: Pool) => Profile
  readonly forwarder: Forwarder
  readonly decisions: DecisionLog
  /** Holds one decision at a time: what /admin/explain would have chosen. */
  readonly explained: DecisionLog
  readonly metrics: Metrics
  readonly log: Log
  /** Monotonic milliseconds, with a fraction. */
  readonly clock: () => number
  readonly wallClock: () => number
  readonly staleLoadMs: number
  /**
   * A worker broke off a request: whoever watches its health wants to know at once. `refused` says that it did not take
   * the connection; else it may only have closed one that was idle.
   */
  readonly onUnreachable: (worker: Worker, refused: boolean) => void
}

/** Every request is tried on at most this many workers. */
const maxAttempts = 2
/** Prefill rate for releasing outstanding tokens where the profile predicts no time itself. */
const assumedTokensPerMs = 8

/** What is known of a request once it has been read, resolved and tokenized. */
interface Prepared {
  readonly incoming: Incoming
  readonly read: ReadBody
  readonly target: ModelTarget
  /** Empty where the prompt could not be tokenized. */
  readonly prompts: readonly Uint32Array[]
  /** The longest prompt: the request is routed by it (decision 17). */
  readonly longest: Uint32Array | null
  /** Why the prefix match cannot be used, if it cannot. */
  readonly fallback: string | null
  readonly policy: PolicyRequest
  readonly tokenizeUs: number
  readonly arrivedMs: number
}

interface Decision {
  readonly worker: Worker
  readonly profile: Profile
  readonly ticket: number
  readonly predictedCachedTokens: number
  readonly predictedPrefillMs: number
  readonly credited: boolean
  readonly dispatch: Dispatch
  readonly summary: object
}

interface Route {
  readonly candidates: Candidates
  readonly profile: Profile
}

/** THE request in six calls: read, tokenize, keys, match, choose, forward. */
export class Pipeline {
  readonly #o: PipelineOptions
  readonly #match: PrefixMatch
  readonly #routes = new Map<Pool, Route>()
  readonly #promptKeys: PromptKeys
  readonly #release: LinearRelease
  /** Errors of requests that a worker had: they are in the log and the metrics already. */
  readonly #accounted = new WeakSet<RouterError>()

  constructor(options: PipelineOptions) {
    this.#o = options
    const { limit } = options.fleet
    this.#match = {
      gpu: new Uint32Array(limit),
      host: new Uint32Array(limit),
      disk: new Uint32Array(limit),
      shared: new Uint32Array(limit),
    }
    this.#promptKeys = new PromptKeys(options.keys)
    this.#release = new LinearRelease(options.clock)
  }

  /**
   * Routes one request and answers it. Throws RouterError while nothing has been written to the client; afterwards
   * whatever happens is told within the answer.
   */
  async serve(incoming: Incoming, response: ServerResponse): Promise<void> {
    try {
      await this.#serve(incoming, response)
    } catch (error) {
      if (error instanceof RouterError) this.#refused(incoming, error)
      throw error
    }
  }

  async #serve(incoming: Incoming, response: ServerResponse): Promise<void> {
    const request = await this.#prepare(incoming, this.#o.clock())
    this.#o.metrics.tokenize.observe(request.tokenizeUs / 1e6)
    const tried = new Set<number>()
    for (let attempt = 1; ; attempt++) {
      if (response.destroyed) {
        this.#o.metrics.clientAborts.add(1)
        return
      }
      const decision = this.#decide(request, tried, attempt, this.#o.decisions)
      const outcome = await this.#dispatch(request, decision, response)
      tried.add(decision.worker.serial)
      if (outcome.kind === 'died' || (outcome.kind === 'failed' && outcome.error.code === 'UPSTREAM_UNREACHABLE')) {
        this.#o.onUnreachable(decision.worker, outcome.kind === 'failed' && outcome.refused)
      }
      if (outcome.kind === 'failed' && this.#mayTryAgain(outcome, request, attempt, tried)) {
        this.#o.metrics.retries.add(1, outcome.error.code.toLowerCase())
        continue
      }
      this.#account(request, decision, outcome, attempt)
      if (outcome.kind === 'failed') {
        this.#accounted.add(outcome.error)
        throw outcome.error
      }
      return
    }
  }

  /** The decision that `serve` would make now; sends nothing and changes nothing. Throws what the client would get. */
  async explain(incoming: Incoming): Promise<DecisionRecord> {
    const request = await this.#prepare(incoming, this.#o.clock())
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

  async #prepare(incoming: Incoming, arrivedMs: number): Promise<Prepared> {
    const { prompts: service, pools, clock } = this.#o
    const read = await service.read(incoming.body, incoming.kind)
    if (read.fields.model === '') throw new RouterError('BODY_INVALID', '"model" is missing', { param: 'model' })
    const target = pools.target(read.fields.model)
    if (target === null) throw unknownModel(read.fields.model, pools)
    const startMs = clock()
    let prompts: readonly Uint32Array[] = []
    let fallback: string | null = null
    try {
      const tokenized = await service.tokens(read, target.pool.model)
      prompts = tokenized.prompts
      fallback = tokenized.unusable
    } catch (error) {
      if (!(error instanceof RouterError) || (error.code !== 'TOKENIZER_BUSY' && error.code !== 'TOKENIZER_FAILED'))
        throw error
      fallback = error.code.toLowerCase()
    }
    const tokenizeMs = clock() - startMs
    const longest = prompts.reduce<Uint32Array | null>(
      (best, prompt) => (best === null || prompt.length > best.length ? prompt : best),
      null,
    )
    const { fields } = read
    return {
      incoming,
      read,
      target,
      prompts,
      longest,
      fallback,
      tokenizeUs: tokenizeMs * 1000,
      arrivedMs,
      policy: {
        model: target.pool.model,
        adapter: target.adapter,
        promptTokens: longest?.length ?? 0,
        promptTokensEstimate: longest?.length ?? Math.ceil(incoming.body.length / 4),
        sessionId: incoming.sessionId ?? fields.sessionId,
        priority: fields.priority,
        stream: fields.stream,
        maxTokens: fields.maxTokens,
      },
    }
  }

  /** Keys, match, choose: no `await` in between, so that a decision sees one consistent picture. */
  #decide(request: Prepared, tried: ReadonlySet<number>, attempt: number, log: DecisionLog): Decision {
    const { clock, fleet, map, metrics } = this.#o
    const { pool } = request.target
    const route = this.#route(pool)
    const { candidates, profile } = route

    const startMs = clock()
    const queries = request.longest === null || request.fallback !== null ? [] : this.#queries(request, request.longest)
    const keyedMs = clock()
    map.match(queries, this.#match)
    const matchedMs = clock()
    const promptTokens = queries.length > 0 ? request.policy.promptTokens : 0
    candidates.gather(pool.workers, fleet.counters, this.#match, {
      nowMs: startMs,
      staleLoadMs: this.#o.staleLoadMs,
      promptTokens,
      tried,
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
    const uncached = Math.max(0, this.#promptTokens(request) - predictedCachedTokens)
    if (log === this.#o.decisions) {
      metrics.decision.observe((chosenMs - startMs) / 1000)
      if (fallback !== null) metrics.fallbacks.add(1, fallback)
    }
    return {
      worker,
      profile,
      ticket,
      predictedCachedTokens,
      predictedPrefillMs: predictedMs(profile, chosen) ?? uncached / assumedTokensPerMs,
      // Engines report the cached tokens of one prompt only where a request has several.
      credited: (fallback === null || fallback === 'no_match') && request.prompts.length === 1,
      dispatch: {
        serial: worker.serial,
        promptTokens: this.#promptTokens(request),
        uncachedTokens: uncached,
        prefillTokensAhead: candidates.prefillTokens[chosen] as number,
        requestsAhead: candidates.requests[chosen] as number,
        stream: request.policy.stream,
        atMs: chosenMs,
      },
      summary: { reason, ...(fallback === null ? {} : { fallback }), candidates: candidates.count, ...best },
    }
  }

  async #dispatch(request: Prepared, decision: Decision, response: ServerResponse): Promise<ForwardOutcome> {
    const { incoming, read } = request
    const { worker, profile, dispatch } = decision
    const { clock, metrics } = this.#o
    const inFlight = new InFlight(this.#o.fleet.counters, worker.slot, {
      promptTokens: dispatch.promptTokens,
      uncachedTokens: dispatch.uncachedTokens,
      blockSize: worker.blockSize ?? 16,
      sequences: Math.max(1, read.fields.n) * Math.max(1, request.prompts.length),
    })
    const releasing = dispatch.stream
      ? null
      : this.#release.add(inFlight, dispatch.atMs, decision.predictedPrefillMs, dispatch.uncachedTokens)
    profile.dispatched(dispatch)
    try {
      return await this.#o.forwarder.send(
        {
          worker,
          method: 'POST',
          path: incoming.path,
          headers: requestHeaders(incoming.rawHeaders, {
            requestId: incoming.requestId,
            rank: worker.rank,
            worker: worker.headers,
          }),
          body: bodyFor(request, worker),
          stream: dispatch.stream,
          answerHeaders: this.#answerHeaders(incoming, decision),
          deathNote: openAiDeathNote,
          onFirstByte: () => {
            const nowMs = clock()
            metrics.timeToFirstToken.observe((nowMs - request.arrivedMs) / 1000)
            if (!dispatch.stream) return
            inFlight.prefilledTo(0)
            profile.firstByte(dispatch, nowMs - dispatch.atMs)
          },
          onEvents: (count) => inFlight.generated(count),
        },
        response,
      )
    } finally {
      if (releasing !== null) this.#release.remove(releasing)
      inFlight.release()
      profile.finished(dispatch)
    }
  }

  #mayTryAgain(
    outcome: ForwardOutcome & { kind: 'failed' },
    request: Prepared,
    attempt: number,
    tried: ReadonlySet<number>,
  ): boolean {
    if (!outcome.mayRetry || attempt >= maxAttempts) return false
    return request.target.pool.workers.some(
      (worker) => worker.standing.state === 'healthy' && !tried.has(worker.serial),
    )
  }

  /** Metrics, truth check and the one log line of a request. */
  #account(request: Prepared, decision: Decision, outcome: ForwardOutcome, attempt: number): void {
    const { metrics, log, clock } = this.#o
    const { worker, predictedCachedTokens } = decision
    const status = outcome.kind === 'failed' ? outcome.error.status : outcome.status
    const durationMs = clock() - request.arrivedMs
    metrics.requests.add(1, request.target.adapter ?? request.target.pool.model, worker.id, String(status))
    metrics.promptTokens.add(decision.dispatch.promptTokens)
    metrics.predictedCachedTokens.add(predictedCachedTokens, worker.id)
    metrics.requestDuration.observe(durationMs / 1000)
    let actual: number | null = null
    switch (outcome.kind) {
      case 'answered':
        actual = outcome.cachedTokens
        if (status < 300) this.#verify(decision, actual)
        break
      case 'clientGone':
        metrics.clientAborts.add(1)
        break
      case 'died':
        metrics.upstreamDied.add(1, worker.id)
        break
      case 'failed':
        break
      default:
        outcome satisfies never
    }
    log.info(
      {
        requestId: request.incoming.requestId,
        model: request.read.fields.model,
        worker: worker.id,
        status,
        outcome: outcome.kind,
        promptTokens: decision.dispatch.promptTokens,
        predictedCachedTokens,
        ...(actual === null ? {} : { actualCachedTokens: actual }),
        ...(attempt === 1 ? {} : { attempt }),
        ...decision.summary,
        durationMs: Math.round(durationMs * 10) / 10,
      },
      'request',
    )
  }

  /** A request that no worker had: counted without a model, which may be anything that a client makes up. */
  #refused({ requestId }: Incoming, error: RouterError): void {
    if (this.#accounted.has(error)) return
    const { status, code } = error
    this.#o.metrics.requests.add(1, '', '', String(status))
    this.#o.log.info({ requestId, status, code: code.toLowerCase() }, 'request refused')
  }

  #verify(decision: Decision, actual: number | null): void {
    const { metrics, decisions } = this.#o
    const { worker } = decision
    if (actual !== null) {
      metrics.actualCachedTokens.add(actual, worker.id)
      metrics.verifiedRequests.add(1, worker.id)
      decisions.actual(decision.ticket, actual)
    }
    if (decision.credited) agree(worker.agreement, decision.predictedCachedTokens, actual)
  }

  #route(pool: Pool): Route {
    let route = this.#routes.get(pool)
    if (route === undefined) {
      route = { candidates: new Candidates(this.#o.fleet.limit), profile: this.#o.profileOf(pool) }
      this.#routes.set(pool, route)
    }
    return route
  }

  /** One query per distinct block size of the pool's workers (decision 3). */
  #queries(request: Prepared, tokens: Uint32Array): MatchQuery[] {
    const queries: MatchQuery[] = []
    for (const { blockSize } of request.target.pool.workers) {
      if (blockSize === null || queries.some((query) => query.blockSize === blockSize)) continue
      queries.push({ blockSize, keys: this.#keys(request, tokens, blockSize) })
    }
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
      this.#o.map.match(
        [{ blockSize: worker.blockSize, keys: this.#keys(request, prompt, worker.blockSize) }],
        this.#match,
      )
      const { gpu, host, disk, shared } = this.#match
      const blocks = [gpu, host, disk, shared].reduce((total, held) => total + (held[worker.slot] as number), 0)
      sum += Math.min(blocks, Math.floor(Math.max(0, prompt.length - 1) / worker.blockSize)) * worker.blockSize
    }
    return sum
  }

  #promptTokens(request: Prepared): number {
    if (request.prompts.length < 2) return request.policy.promptTokensEstimate
    return request.prompts.reduce((total, prompt) => total + prompt.length, 0)
  }

  #answerHeaders(incoming: Incoming, decision: Decision): string[] {
    const headers = ['x-request-id', incoming.requestId]
    if (!incoming.trusted) return headers
    headers.push(
      'x-warmroute-worker',
      decision.worker.id,
      'x-warmroute-cached-tokens',
      String(decision.predictedCachedTokens),
    )
    if (incoming.wantsDecision) {
      const record = this.#o.decisions.find(incoming.requestId)
      if (record !== null) headers.push('x-warmroute-decision', asciiJson(record))
    }
    return headers
  }
}

/** The client's bytes; an alias that the engine does not know is replaced in them by the name that it does know. */
function bodyFor({ incoming, read, target }: Prepared, worker: Worker): Buffer {
  const { model } = read.fields
  const range = read.ranges.get('model')
  const { models } = worker
  if (
    range === undefined ||
    target.adapter !== null ||
    models === undefined ||
    models.has(model) ||
    !models.has(target.pool.model)
  ) {
    return incoming.body
  }
  const name = Buffer.from(JSON.stringify(target.pool.model))
  return Buffer.concat([incoming.body.subarray(0, range.start), name, incoming.body.subarray(range.end)])
}

/** JSON for a header, which may hold ASCII only: a model's name may be any text. */
function asciiJson(value: object): string {
  return JSON.stringify(value).replace(
    /[^\x20-\x7e]/g,
    (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

function unknownModel(model: string, pools: Pools): RouterError {
  if (pools.forming) {
    return new RouterError('NOT_READY', 'No worker has told its model yet; try again', { retryAfterSeconds: 1 })
  }
  const known = pools.names().map(({ name }) => name)
  return new RouterError('MODEL_NOT_FOUND', `The model "${model}" does not exist. Known models: ${known.join(', ')}`, {
    param: 'model',
  })
}

function noWorker(pool: Pool): RouterError {
  return new RouterError('NO_WORKER', `No healthy worker serves "${pool.model}" (${pool.workers.length} known)`, {
    retryAfterSeconds: 1,
  })
}
