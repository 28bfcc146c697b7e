import { RouterError } from '../errors.ts'
import type { WorkerSlot } from '../kv/batch.ts'
import type { KeyMaker } from '../kv/keys.ts'
import { PromptKeys } from '../kv/prompt-keys.ts'
import type { Coming } from '../map/coming.ts'
import { newPrefixMatch, type MapReader, type MatchQuery } from '../map/map.ts'
import type { SentPrompt } from '../map/sent-prompts.ts'
import { Candidates, type MatchBySlot } from '../routing/candidates.ts'
import type { DecisionLog } from '../routing/decisions.ts'
import { heldBlocks, type HeldBlocks } from '../routing/held-blocks.ts'
import type { Dispatch } from '../routing/policy.ts'
import type { Profile } from '../routing/profile.ts'
import { reasonOf } from '../routing/reason.ts'
import { RoutedRequest } from '../routing/request.ts'
import type { TierCredit } from '../routing/tier-credit.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { PromptKind } from '../tokenize/service.ts'
import type { TruthCheck } from '../truth/check.ts'
import type { Watched } from '../truth/watched.ts'
import type { FleetLoad } from '../workers/fleet-load.ts'
import type { Fleet } from '../workers/fleet.ts'
import type { Outliers } from '../workers/outliers.ts'
import type { Pool } from '../workers/pool.ts'
import type { Worker } from '../workers/worker.ts'
import type { Accounted } from './accounting.ts'
import { promptTokensOf, type Prepared } from './incoming.ts'

export interface DeciderParts {
  readonly keys: KeyMaker
  readonly map: MapReader
  readonly coming: Coming
  /** Places in the map: those of workers, then those of stores. */
  readonly mapSlots: number
  readonly fleet: Fleet
  readonly load: FleetLoad
  readonly profileOf: (pool: Pool) => Profile
  readonly tierCreditOf: (pool: Pool) => TierCredit
  /** Whether the worker has a place left, where places are counted. */
  readonly hasPlaceOn: (worker: Worker) => boolean
  readonly outliers: Outliers
  /** Decisions that are carried out; any other log takes what is only asked for. */
  readonly decisions: DecisionLog
  readonly metrics: Metrics
  /** Monotonic milliseconds, with a fraction. */
  readonly clock: () => number
  readonly wallClock: () => number
  readonly staleLoadMs: number
  readonly truth: TruthCheck
}

/** Prefill rate for releasing outstanding tokens where the profile predicts no time itself. */
const assumedTokensPerMs = 8

export interface Decision extends Accounted {
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

/** Chooses a worker for a request: three of its six calls, keys, match and choose. */
export class Decider {
  readonly #o: DeciderParts
  readonly #match: MatchBySlot
  readonly #routes = new Map<Pool, Route>()
  readonly #promptKeys: PromptKeys
  readonly #asked = new RoutedRequest()
  /** Reused by each decision. */
  readonly #free: Worker[] = []
  readonly #held: HeldBlocks = { gpu: 0, host: 0, disk: 0, shared: 0, toldRun: 0 }

  constructor(parts: DeciderParts) {
    this.#o = parts
    const { mapSlots } = parts
    this.#match = { ...newPrefixMatch(mapSlots), coming: new Uint32Array(mapSlots) }
    this.#promptKeys = new PromptKeys(parts.keys)
  }

  /** The pool's profile is made anew at its next request; what runs goes on with the one that it has. */
  renewProfile(pool: Pool): void {
    this.#routes.delete(pool)
  }

  profileOf(pool: Pool): Profile {
    return this.#routeOf(pool).profile
  }

  /** No `await` in between, so that a decision sees one consistent picture. @throws RouterError NO_WORKER, NO_SUITABLE_WORKER */
  decide(request: Prepared, tried: ReadonlySet<number>, attempt: number, log: DecisionLog): Decision {
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
    const asked = this.#asked.is(request.policy, queries)
    const workers = request.owner === null ? pool.workers : [request.owner]
    candidates.gather(this.#withPlace(outliers.eligible(workers, tried)), load, this.#match, {
      nowMs: startMs,
      staleLoadMs: this.#o.staleLoadMs,
      promptTokens,
      adapter: request.policy.adapter,
      stores: pool.stores,
    })
    if (candidates.count === 0) throw noWorker(pool)
    const chosen = profile.choose(asked, candidates, candidates)
    if (chosen < 0) throw refused(pool, profile.refusedBy ?? '')
    const chosenMs = clock()

    const worker = candidates.workers[chosen] as Worker
    const query = queries.find(({ blockSize }) => blockSize === worker.blockSize)
    const predictedCachedTokens = this.#predicted(request, worker, candidates.cachedTokens[chosen] as number)
    const { reason, fallback, best } = reasonOf(candidates, chosen, request.fallback, profile.fallback)
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
      metrics.decisions.add(1, reason)
      if (fallback !== null) metrics.fallbacks.add(1, fallback)
    }
    return {
      worker,
      profile,
      ticket,
      attempt,
      predictedCachedTokens,
      predictedPrefillMs: profile.predictedMs(chosen) ?? uncached / assumedTokensPerMs,
      watched: log === this.#o.decisions ? this.#watched(request, candidates, chosen, query) : null,
      prompt: promptFor(worker, query, candidates.gpu[chosen] as number, promptTokens),
      dispatch: {
        serial: worker.serial,
        promptTokens: promptTokensOf(request),
        uncachedTokens: uncached,
        loadTokens: (candidates.cachedTokens[chosen] as number) - candidates.creditTokens(chosen),
        prefillTokensAhead: candidates.prefillTokens[chosen] as number,
        requestsAhead: candidates.requests[chosen] as number,
        stream: request.policy.stream,
        atMs: chosenMs,
        keys: query?.keys ?? null,
        held: candidates.held(chosen),
        adapter: request.policy.adapter,
        session: request.policy.session,
        maxTokens: request.policy.maxTokens,
      },
      summary: { reason, ...(fallback === null ? {} : { fallback }), candidates: candidates.count, ...best },
    }
  }

  /** What the request should find and leave behind on its worker; null where its prompt is not wholly known. */
  #watched(
    { longest, prompts, fallback, unknownTokens, incoming, read, target }: Prepared,
    candidates: Candidates,
    chosen: number,
    query: MatchQuery | undefined,
  ): Watched | null {
    const worker = candidates.workers[chosen] as Worker
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
  query: MatchQuery | undefined,
  heldBlocks: number,
  promptTokens: number,
): SentPrompt | null {
  if (query === undefined) return null
  const { keys, blockSize } = query
  const { slot, capacityBlocks } = worker
  const believedBlocks = Math.min(heldBlocks, Math.floor(Math.max(0, promptTokens - 1) / blockSize))
  return { slot: slot as WorkerSlot, blockSize, keys, believedBlocks, capacityBlocks }
}

/** Prompts that a template makes of messages. */
const chatKinds: ReadonlySet<PromptKind> = new Set<PromptKind>(['chat', 'messages', 'responses'])

function noWorker(pool: Pool): RouterError {
  return new RouterError('NO_WORKER', `No healthy worker serves "${pool.model}" (${pool.workers.length} known)`, {
    retryAfterSeconds: 1,
  })
}

function refused(pool: Pool, filter: string): RouterError {
  return new RouterError(
    'NO_SUITABLE_WORKER',
    `No worker that serves "${pool.model}" now is one that the request may go to (${filter})`,
    { retryAfterSeconds: 1 },
  )
}
