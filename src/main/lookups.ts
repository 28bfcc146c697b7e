import { isDeepStrictEqual } from 'node:util'
import type { LookupConfig } from '../config/schema.ts'
import { ChunkLookup } from '../events/chunk-lookup.ts'
import type { ChunkStore } from '../events/chunk-store.ts'
import type { PromptKeys } from '../kv/prompt-keys.ts'
import type { Tier } from '../kv/tier.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { EngineHttp } from '../workers/engine-http.ts'
import { askController } from '../workers/lmcache.ts'
import type { Pool } from '../workers/pool.ts'
import type { ChunkStores } from './chunk-stores.ts'

export interface LookupsOptions {
  readonly stores: ChunkStores
  readonly keys: PromptKeys
  readonly http: EngineHttp
  readonly metrics: Metrics
  /** Monotonic milliseconds. */
  readonly clock: () => number
}

interface Running {
  readonly given: LookupConfig
  readonly lookup: ChunkLookup
  shared: ChunkStore | null
}

/** The label by which a worker says which LMCache instance it has. */
const instanceLabel = 'lmcache-instance'

/** Lookups at LMCache's controller, for pools that have one. */
export class Lookups {
  readonly #o: LookupsOptions
  readonly #running = new Map<Pool, Running>()

  constructor(options: LookupsOptions) {
    this.#o = options
  }

  set(pool: Pool, given: LookupConfig | undefined): void {
    const before = this.#running.get(pool)
    if (isDeepStrictEqual(before?.given, given)) return
    this.#running.delete(pool)
    if (before?.shared !== null && before?.shared !== undefined) this.#o.stores.remove(before.shared)
    if (given === undefined) return
    const { http, keys, metrics, clock } = this.#o
    const { url, chunkTokens, timeoutMs, concurrency, maxTokens, ttlSeconds } = given
    const scope = { model: pool.model, adapter: null, blockSize: chunkTokens, cacheSalt: null }
    const lookup = new ChunkLookup({
      chunkTokens,
      limits: { concurrency, maxTokens, ttlMs: ttlSeconds * 1000 },
      ask: (tokens) => askController(http, url.replace(/\/+$/, ''), tokens, timeoutMs),
      keysOf: (tokens) => keys.of(tokens, scope),
      storeOf: (instance, tier) => this.#storeOf(pool, instance, tier),
      clock,
      later: (run) => void setImmediate(run),
      count: (result) => metrics.chunkLookups.add(1, result),
    })
    this.#running.set(pool, { given, lookup, shared: null })
  }

  /** A prompt without adapter or salt was routed: LMCache's names know neither. */
  routed(pool: Pool, tokens: Uint32Array): void {
    this.#running.get(pool)?.lookup.routed(tokens)
  }

  #storeOf(pool: Pool, instance: string, tier: Tier): ChunkStore | null {
    const running = this.#running.get(pool)
    if (running === undefined) return null
    const limit = { afterMs: running.given.ttlSeconds * 1000, tokens: Infinity }
    const forget = [undefined, limit, limit, limit]
    if (tier === 'shared') return (running.shared ??= this.#o.stores.shared(pool, forget))
    const worker = pool.workers.find(({ id, labels }) => (labels[instanceLabel] ?? id) === instance)
    return worker === undefined ? null : this.#o.stores.of(worker, 'lookedUp', forget)
  }
}
