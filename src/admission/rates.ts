import { RouterError } from '../errors.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { Caller } from './caller.ts'
import { TokenBucket } from './token-bucket.ts'

/** SDKs obey `retry-after` in full, so that it stays short even where a key has overdrawn its limit by far. */
const longestRetrySeconds = 60

export interface RateFigure {
  readonly limit: number
  /** Whole requests or tokens that are left now. */
  readonly remaining: number
  /** Milliseconds until all of the limit is left again. */
  readonly resetMs: number
}

export interface RateFigures {
  readonly requests: RateFigure | null
  readonly tokens: RateFigure | null
}

/** What is kept of one key. It outlives a reload of the list of keys. */
interface KeyState {
  requests: TokenBucket | null
  tokens: TokenBucket | null
  running: number
}

/** How much each key has used. Keys without limits cost nothing and are not kept. */
export class Rates {
  readonly #clock: () => number
  readonly #metrics: Pick<Metrics, 'rateLimited'>
  readonly #states = new Map<string, KeyState>()

  /** The clock counts monotonic milliseconds. */
  constructor(clock: () => number, metrics: Pick<Metrics, 'rateLimited'>) {
    this.#clock = clock
    this.#metrics = metrics
  }

  /** Throws RouterError RATE_LIMITED where the caller is over one of its limits; takes nothing. */
  check(caller: Caller, promptTokens: number): void {
    const { requestsPerMinute, tokensPerMinute, concurrency } = caller.limits
    const state = this.#state(caller)
    if (state === null) return
    if (concurrency !== null && state.running >= concurrency) {
      throw this.#refusal(caller, 'concurrency', `${concurrency} requests at a time`, 0)
    }
    const nowMs = this.#clock()
    const requestsMs = requestsPerMinute === null ? 0 : (state.requests?.waitMs(1, requestsPerMinute, nowMs) ?? 0)
    const tokensMs = tokensPerMinute === null ? 0 : (state.tokens?.waitMs(promptTokens, tokensPerMinute, nowMs) ?? 0)
    if (requestsMs > 0 && requestsMs >= tokensMs)
      throw this.#refusal(caller, 'requests', `${String(requestsPerMinute)} requests a minute`, requestsMs)
    if (tokensMs > 0) throw this.#refusal(caller, 'tokens', `${String(tokensPerMinute)} tokens a minute`, tokensMs)
  }

  /** Counts a request that was let in; null where the caller has no limits. */
  charge(caller: Caller, promptTokens: number): Charge | null {
    const state = this.#state(caller)
    return state === null ? null : new Charge(state, promptTokens)
  }

  /** What the `x-ratelimit-*` headers tell; null where the caller has no limits by the minute. */
  figures(caller: Caller): RateFigures | null {
    const { requestsPerMinute, tokensPerMinute } = caller.limits
    if (requestsPerMinute === null && tokensPerMinute === null) return null
    const state = this.#state(caller)
    const nowMs = this.#clock()
    return {
      requests: figure(state?.requests ?? null, requestsPerMinute, nowMs),
      tokens: figure(state?.tokens ?? null, tokensPerMinute, nowMs),
    }
  }

  /** Forgets the keys that are not among these. */
  retain(keyIds: ReadonlySet<string>): void {
    for (const id of this.#states.keys()) if (!keyIds.has(id)) this.#states.delete(id)
  }

  #state({ keyId, limits }: Caller): KeyState | null {
    const { requestsPerMinute, tokensPerMinute, concurrency } = limits
    if (requestsPerMinute === null && tokensPerMinute === null && concurrency === null) return null
    let state = this.#states.get(keyId)
    if (state === undefined) {
      state = { requests: null, tokens: null, running: 0 }
      this.#states.set(keyId, state)
    }
    // A limit may be added to a key that is known already.
    if (requestsPerMinute !== null) state.requests ??= new TokenBucket(requestsPerMinute, this.#clock())
    if (tokensPerMinute !== null) state.tokens ??= new TokenBucket(tokensPerMinute, this.#clock())
    return state
  }

  #refusal(caller: Caller, limit: string, told: string, waitMs: number): RouterError {
    this.#metrics.rateLimited.add(1, caller.keyId, limit)
    const retryAfterSeconds = Math.min(longestRetrySeconds, Math.max(1, Math.ceil(waitMs / 1000)))
    return new RouterError('RATE_LIMITED', `The limit of this API key is reached: ${told}`, { retryAfterSeconds })
  }
}

/** What one request has taken of its key's limits; given back or made final once. */
export class Charge {
  readonly #state: KeyState
  readonly #promptTokens: number
  #settled = false

  constructor(state: KeyState, promptTokens: number) {
    this.#state = state
    this.#promptTokens = promptTokens
    state.running++
    state.requests?.take(1)
    state.tokens?.take(promptTokens)
  }

  /** The request was served: what it generated counts too, into debt where the limit does not cover it. */
  settle(generatedTokens: number): void {
    if (this.#settled) return
    this.#settled = true
    this.#state.running--
    this.#state.tokens?.take(generatedTokens)
  }

  /** The request never got to a worker: it counts for nothing. */
  refund(): void {
    if (this.#settled) return
    this.#settled = true
    this.#state.running--
    this.#state.requests?.take(-1)
    this.#state.tokens?.take(-this.#promptTokens)
  }
}

/** `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` as a flat list of names and values; the reset is a duration in whole seconds, as `12s`. */
export function rateLimitHeaders(figures: RateFigures | null): string[] {
  const headers: string[] = []
  for (const name of ['requests', 'tokens'] as const) {
    const row = figures?.[name] ?? null
    if (row === null) continue
    headers.push(`x-ratelimit-limit-${name}`, String(row.limit))
    headers.push(`x-ratelimit-remaining-${name}`, String(row.remaining))
    headers.push(`x-ratelimit-reset-${name}`, `${Math.ceil(row.resetMs / 1000)}s`)
  }
  return headers
}

function figure(bucket: TokenBucket | null, perMinute: number | null, nowMs: number): RateFigure | null {
  if (bucket === null || perMinute === null) return null
  const level = bucket.level(perMinute, nowMs)
  return {
    limit: perMinute,
    remaining: Math.max(0, Math.floor(level)),
    resetMs: ((perMinute - level) * 60_000) / perMinute,
  }
}
