import type Type from 'typebox'
import { RouterError } from '../errors.ts'

/**
 * The plugin interface: filters, fallbacks, scorers and pickers make up a profile. Everything here is synchronous and does
 * no I/O; clock and randomness are passed in (decision 15). All arrays are indexed by candidate, 0 … fleet.count − 1,
 * belong to the router and are reused, as the request is: a plugin reads them during the call and keeps none.
 */
export interface PolicyRequest extends PolicyFacts {
  /**
   * Names of the prompt's full blocks of this size, each with everything before it: two words a block, low word first. Empty
   * where the prompt was not tokenized or no worker has blocks of this size. May be kept; not to be changed.
   */
  keys(blockSize: number): Uint32Array
}

/** What a request says of itself. */
export interface PolicyFacts {
  readonly model: string
  readonly adapter: string | null
  /** 0 where the prompt could not be tokenized; `promptTokensEstimate` then stands in. */
  readonly promptTokens: number
  /** Tokens of the prompt, or bytes / 4 where it has not been tokenized. */
  readonly promptTokensEstimate: number
  /** A name for the client's session, made from the id that it sent under the deployment's secret; equal on all replicas. */
  readonly session: string | null
  /** `user` of the body. */
  readonly user: string | null
  /** Id of the API key, `anonymous` where there are none. */
  readonly keyId: string
  readonly priority: number
  readonly stream: boolean
  readonly maxTokens: number | null
  /** A header of the request by its lower-case name; null where it is absent or a secret (keys, cookies). */
  header(name: string): string | null
}

export interface PolicyFleet {
  /** Number of candidates: workers that are healthy, not draining, and not tried before by this request. */
  readonly count: number
  readonly ids: readonly string[]
  /** Never reused, so that a plugin may key what it learns about a worker by it. */
  readonly serials: Int32Array
  readonly labels: readonly Readonly<Record<string, string>>[]
  /** From the accounting of this router and its replicas (decision 17). */
  readonly requests: Int32Array
  readonly prefillTokens: Int32Array
  readonly decodeBlocks: Int32Array
  /** From the engine, NaN where unknown or stale. */
  readonly running: Float64Array
  readonly waiting: Float64Array
  readonly kvUsage: Float64Array
  /** How many of the running and waiting requests came from others than this router; 0 where unknown or stale. */
  readonly foreignRequests: Float64Array
  readonly foreignWaiting: Float64Array
  readonly loadAgeMs: Float64Array
  /** 0 where unknown. */
  readonly capacityBlocks: Float64Array
  readonly blockSize: Float64Array
  /** 1 where the engine says that it has the request's adapter loaded, and everywhere for a request without one. */
  readonly hasAdapter: Uint8Array
}

export interface PolicyMatch {
  /** Blocks of the candidate's run by tier (decision 4), in its own block size. */
  readonly gpu: Uint32Array
  readonly host: Uint32Array
  readonly disk: Uint32Array
  readonly shared: Uint32Array
  /** Prompt tokens predicted to be cached, capped as the engine caps them; 0 for a degraded worker. */
  readonly cachedTokens: Float64Array
  /**
   * Prompt tokens directly behind these that a request on its way to the worker will have computed before this one begins:
   * this one waits for them, as for all that is queued there, but does not compute them again.
   */
  readonly comingTokens: Float64Array
  /**
   * Tokens of prefill that these save on a candidate, blocks in slower tiers than the GPU counted for what their loading
   * leaves: a fraction that follows from the tier's speed and from the prefill time of a token, where it is given.
   */
  creditTokens(candidate: number, prefillMsPerToken?: number): number
  /** 1 where the match comes from the worker's events. */
  readonly exact: Uint8Array
}

export interface PolicyContext {
  /** Monotonic milliseconds. */
  readonly clock: () => number
  /** Unix time in milliseconds; may jump. */
  readonly wallClock: () => number
  /** Uniform in [0, 1). */
  readonly random: () => number
}

/** Follows a request on its worker, for plugins that learn; requests that other replicas of the router send, too. */
export interface PolicyHooks {
  onDispatched?(dispatch: Dispatch): void
  /** First body byte of a streamed answer. */
  onFirstByte?(dispatch: Dispatch, ttftMs: number): void
  onFinished?(dispatch: Dispatch): void
}

export interface Dispatch {
  readonly serial: number
  readonly promptTokens: number
  readonly uncachedTokens: number
  /** What loading the cached ones from slower tiers costs, in tokens of prefill; absent where there is nothing to load. */
  readonly loadTokens?: number
  /** Outstanding prefill tokens and requests on the worker just before this one was sent. */
  readonly prefillTokensAhead: number
  readonly requestsAhead: number
  readonly stream: boolean
  readonly atMs: number
  /** Names of the prompt's blocks in the worker's size, as `PolicyRequest.keys`; null where unknown, as of other replicas. */
  readonly keys: Uint32Array | null
  /** Leading blocks of the prompt that the worker held when it was chosen; absent where unknown, as of other replicas. */
  readonly held?: HeldOnWorker
  readonly adapter: string | null
  readonly session: string | null
  readonly maxTokens: number | null
}

/** In blocks of the worker's size, by tier; a degraded worker counts as holding nothing. */
export interface HeldOnWorker {
  readonly blockSize: number
  readonly gpu: number
  readonly host: number
  readonly disk: number
}

export interface Filter extends PolicyHooks {
  /** Whether a request that it leaves no candidate to is refused; otherwise its verdict is then dropped. */
  readonly required?: boolean
  /** Sets `keep[i]` to 0 for candidates that must not be chosen. */
  filter(request: PolicyRequest, fleet: PolicyFleet, match: PolicyMatch, keep: Uint8Array): void
}

export interface Fallback extends PolicyHooks {
  /** Whether the request has to be routed another way, among the candidates with `keep[i] === 1`. */
  applies(request: PolicyRequest, fleet: PolicyFleet, match: PolicyMatch, keep: Uint8Array): boolean
}

export interface Scorer extends PolicyHooks {
  /** Writes a score for every candidate; higher is better. Costs are written negated, in milliseconds. */
  score(
    request: PolicyRequest,
    fleet: PolicyFleet,
    match: PolicyMatch,
    out: Float64Array,
    /** 1 for candidates that no filter left out, for scores that compare candidates with each other. */
    keep: Uint8Array,
  ): void
  /** The time to first token that it expects of a candidate of its last call, where it predicts one. */
  predictedMs?(candidate: number): number
}

export interface Picker extends PolicyHooks {
  /** Index of the chosen candidate among those with `keep[i] === 1`; at least one is kept. */
  pick(request: PolicyRequest, fleet: PolicyFleet, match: PolicyMatch, totals: Float64Array, keep: Uint8Array): number
}

interface PluginBase<Kind extends string, Made, Parameters extends Type.TSchema> {
  readonly kind: Kind
  /** Name in the config. */
  readonly type: string
  /** One sentence for the docs. */
  readonly description: string
  readonly parameters: Parameters
  readonly create: (parameters: Type.Static<Parameters>, context: PolicyContext) => Made
}

export interface FilterPlugin<Parameters extends Type.TSchema = Type.TSchema> extends PluginBase<
  'filter',
  Filter,
  Parameters
> {
  /** Under which decisions are counted as fallbacks where it left out the worker with the longest match; none: they are not. */
  readonly reason?: string
}
export interface FallbackPlugin<Parameters extends Type.TSchema = Type.TSchema> extends PluginBase<
  'fallback',
  Fallback,
  Parameters
> {
  /** Under which decisions are counted where it applies. */
  readonly reason: string
}
export type ScorerPlugin<Parameters extends Type.TSchema = Type.TSchema> = PluginBase<'scorer', Scorer, Parameters>
export type PickerPlugin<Parameters extends Type.TSchema = Type.TSchema> = PluginBase<'picker', Picker, Parameters>
export type PolicyPlugin = FilterPlugin | FallbackPlugin | ScorerPlugin | PickerPlugin

export const pluginKinds: readonly PolicyPlugin['kind'][] = ['filter', 'fallback', 'scorer', 'picker']

/** Declares a plugin. Plain data comes back: no registry and no class to be an instance of. */
export function definePolicy<Parameters extends Type.TSchema>(plugin: FilterPlugin<Parameters>): FilterPlugin
export function definePolicy<Parameters extends Type.TSchema>(plugin: FallbackPlugin<Parameters>): FallbackPlugin
export function definePolicy<Parameters extends Type.TSchema>(plugin: ScorerPlugin<Parameters>): ScorerPlugin
export function definePolicy<Parameters extends Type.TSchema>(plugin: PickerPlugin<Parameters>): PickerPlugin
export function definePolicy(plugin: object): PolicyPlugin {
  const { kind, type, create, reason } = plugin as Partial<FallbackPlugin>
  if (!pluginKinds.some((known) => known === kind)) {
    const kinds = `${pluginKinds.slice(0, -1).join(', ')} or ${pluginKinds.at(-1) ?? ''}`
    throw new RouterError('PLUGIN_INVALID', `A policy plugin's kind is ${kinds}, not ${JSON.stringify(kind)}`)
  }
  if (typeof type !== 'string' || type === '' || typeof create !== 'function') {
    throw new RouterError(
      'PLUGIN_INVALID',
      `A ${String(kind)} plugin needs a "type" (its name) and a "create" function`,
    )
  }
  if (kind === 'fallback' && (typeof reason !== 'string' || !/^[a-z][a-z0-9_]*$/.test(reason))) {
    throw new RouterError('PLUGIN_INVALID', `The fallback plugin "${type}" needs a "reason" of the form lower_case`)
  }
  return plugin as PolicyPlugin
}
