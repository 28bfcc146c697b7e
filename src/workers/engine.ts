import type { EngineHttp } from './engine-http.ts'
import type { PrefixCounters, RankLoad } from './load.ts'

export type { RankLoad } from './load.ts'

/** What an engine tells about itself; null where it does not say. */
export interface EngineFacts {
  /** Empty where it does not say. */
  readonly models: readonly {
    readonly id: string
    readonly parent: string | null
    readonly maxModelLength: number | null
    /** Where an adapter was loaded from. */
    readonly root?: string | null
  }[]
  /** By data-parallel rank. */
  readonly ranks: readonly RankFacts[]
  /** Changes when the engine's process does. */
  readonly startedAt: number | null
  /** Its answers tell how many tokens were cached, and say nothing where none were. */
  readonly omitsMisses?: boolean
  /** It counts what its prefix cache finds, apart from its load. */
  readonly countsHits?: boolean
}

export interface RankFacts {
  /** Null: the engine tells this for every rank, and not how many there are. */
  readonly rank: number | null
  readonly blockSize: number | null
  readonly capacityBlocks: number | null
  /** The engine's own name for the way in which it names blocks. */
  readonly hashAlgorithm?: string | null
  /** Where KV events come from, as reachable from here, or null when events are off. */
  readonly events: EngineEvents | null
  /** Where the engine publishes its load as it changes; left out or null: nowhere. */
  readonly loadFeed?: LoadFeedPlace | null
}

export interface LoadFeedPlace {
  readonly endpoint: string
  readonly topic: string
}

export type EngineEvents =
  | { readonly kind: 'zmq'; readonly endpoint: string; readonly replay: string | null; readonly topic: string }
  /** Taken from the engine by HTTP requests, for all its ranks at once. */
  | { readonly kind: 'poll'; readonly url: string }

/**
 * What an endpoint answers to questions that change nothing in any kind of engine: `owned_by` of its models, and GET
 * /server_info, /version and /kv_event_sources, null where it has no such path.
 */
export interface EngineSigns {
  readonly owners: readonly string[]
  readonly serverInfo: Readonly<Record<string, unknown>> | null
  readonly version: Readonly<Record<string, unknown>> | null
  readonly eventSources: Readonly<Record<string, unknown>> | null
}

export interface EngineLoad {
  readonly byRank: ReadonlyMap<number, RankLoad>
  /** Changes when the engine's process does; null where the engine does not say. */
  readonly startedAt: number | null
}

/** What the router asks of one kind of engine. A new engine adds a file under engines/ and a line in engines.ts. */
export interface Engine {
  readonly name: string
  /** Stores of one block count and need as many removals (decision 6). */
  readonly countsStores: boolean
  /** What is asked to learn whether it lives, where the config names no path; left out: /health. */
  readonly healthPath?: string
  /** Whether an endpoint that says this is such an engine; of all kinds at most one does. */
  recognizes(signs: EngineSigns): boolean
  /** Null when the engine cannot be reached or does not answer properly: it is to be asked again. */
  facts(http: EngineHttp, baseUrl: string, headers: Readonly<Record<string, string>>): Promise<EngineFacts | null>
  /** Load by rank; null when it cannot be read. */
  load(
    http: EngineHttp,
    baseUrl: string,
    headers: Readonly<Record<string, string>>,
    timeoutMs: number,
  ): Promise<EngineLoad | null>
  /**
   * What its prefix cache has counted, of all ranks together, for kinds whose load does not bring it; asked only of an engine
   * whose facts say that it counts. Null when it cannot be read.
   */
  hitCounters?(
    http: EngineHttp,
    baseUrl: string,
    headers: Readonly<Record<string, string>>,
    timeoutMs: number,
  ): Promise<PrefixCounters | null>
}
