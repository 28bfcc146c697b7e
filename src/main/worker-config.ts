import { isDeepStrictEqual } from 'node:util'
import type { WorkerConfig } from '../config/schema.ts'
import { streamName } from '../config/stream-name.ts'
import type { ForgetLimit } from '../events/forgetting.ts'
import type { Tier } from '../kv/tier.ts'
import type { ToldFacts } from '../truth/check.ts'
import type { EngineFacts, RankFacts } from '../workers/engine.ts'
import { newAgreement } from '../workers/agreement.ts'
import type { Pool } from '../workers/pool.ts'
import { Standing } from '../workers/standing.ts'
import { workerAddress, type Worker, type WorkerAddress } from '../workers/worker.ts'
import type { EventsPlace } from './worker-events.ts'

export interface NewWorker {
  readonly given: WorkerConfig
  readonly pool: Pool
  readonly address: WorkerAddress
  readonly rank: number | null
  readonly engine: string
}

/** Makes the worker of a rank from its place in the fleet. */
export function newWorker({ given, pool, address, rank, engine }: NewWorker) {
  return (slot: number, serial: number): Worker => ({
    id: address.id,
    origin: address.origin,
    basePath: address.basePath,
    rank,
    slot,
    serial,
    pool: pool.model,
    engine,
    headers: headersFor(address, given),
    labels: given.labels ?? {},
    standing: new Standing(),
    blockSize: given.blockSize ?? null,
    capacityBlocks: given.capacityBlocks ?? null,
    load: null,
    degraded: given.blockSize === undefined ? 'block_size_unknown' : null,
    chunks: null,
    lookedUp: null,
    exact: false,
    agreement: newAgreement(),
  })
}

/** Headers of every request to the worker: credentials of its URL, its own headers, its key; the last one wins. */
export function headersFor(address: WorkerAddress, given: WorkerConfig): Record<string, string> {
  const own = Object.fromEntries(
    Object.entries(given.headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]),
  )
  return {
    ...address.headers,
    ...own,
    ...(given.apiKey === undefined ? {} : { authorization: `Bearer ${given.apiKey}` }),
  }
}

/** Options that a worker takes over as it runs; any other one makes a new worker. */
const passing: readonly string[] = ['url', 'labels', 'headers', 'apiKey'] satisfies (keyof WorkerConfig)[]

/** Whether one can become the other as it runs; both are of one engine. */
export function differInPassing(one: WorkerConfig, other: WorkerConfig): boolean {
  const lasting = (given: WorkerConfig): object =>
    Object.fromEntries(Object.entries(given).filter(([name]) => !passing.includes(name)))
  return isDeepStrictEqual(lasting(one), lasting(other))
}

/** What the config and the engine say of a worker, for the truth check. */
export function toldFacts(
  { blockSize, events, nativeHash }: WorkerConfig,
  { models }: EngineFacts,
  rank: RankFacts | null,
  listens: boolean,
): ToldFacts {
  return {
    hash: {
      algorithm: nativeHash?.algorithm ?? rank?.hashAlgorithm ?? null,
      seed: nativeHash?.seed ?? null,
      adapterPaths: new Map(models.flatMap(({ id, root }) => (root == null ? [] : [[id, root] as const]))),
    },
    configuredBlockSize: blockSize ?? null,
    toldBlockSize: rank?.blockSize ?? null,
    events: events === false ? null : listens,
  }
}

/** Where a worker's events are: as configured (each data-parallel rank at its own place), else as the engine tells. */
export function eventsPlace(given: WorkerConfig, rank: number | null, facts: RankFacts | null): EventsPlace | null {
  const { events } = given
  if (events === false) return null
  if (events?.redis !== undefined) {
    const { redis, retainSeconds = 0 } = events
    return {
      kind: 'stream',
      name: streamName(redis, given.url, rank),
      retainMs: retainSeconds === 0 ? null : retainSeconds * 1000,
    }
  }
  if (events?.endpoint !== undefined || events?.bind !== undefined) {
    const shifted = (endpoint: string | undefined): string | null =>
      endpoint === undefined ? null : endpoint.replace(/:(\d+)$/, (_, port: string) => `:${Number(port) + (rank ?? 0)}`)
    return {
      kind: 'zmq',
      endpoint: shifted(events.endpoint),
      replay: shifted(events.replay),
      topic: events.topic ?? '',
      bind: shifted(events.bind),
    }
  }
  if (events?.poll !== undefined && events.poll !== false) {
    const { origin, basePath } = workerAddress(given.url, null)
    return { kind: 'poll', url: events.poll === true ? `${origin}${basePath}/kv_cache_events` : events.poll }
  }
  if (facts?.events == null) return null
  if (facts.events.kind === 'poll') return events?.poll === false ? null : facts.events
  return { ...facts.events, topic: events?.topic ?? facts.events.topic, bind: null }
}

/** How a worker's events are read, beside where they come from. */
export interface EventReading {
  /** Where media are that mean something else here than by default; names in lower case. */
  readonly media: Readonly<Record<string, Tier>>
  /** By tier, when blocks are forgotten whose source tells of no removals. */
  readonly forget: readonly (ForgetLimit | undefined)[]
}

export function eventReading({ events }: Pick<WorkerConfig, 'events'>): EventReading {
  const { media = {}, forget = {} } = events === false || events === undefined ? {} : events
  const limit = (seconds = forgetSeconds, tokens = Infinity): ForgetLimit => ({ afterMs: seconds * 1000, tokens })
  return {
    media: Object.fromEntries(Object.entries(media).map(([name, tier]) => [name.toLowerCase(), tier])),
    forget: [
      undefined,
      limit(forget.hostSeconds, forget.hostTokens),
      limit(forget.diskSeconds, forget.diskTokens),
      limit(forget.sharedSeconds, forget.sharedTokens),
    ],
  }
}

/** A chunk that nobody stored anew for so long may have been used all the same; in ten minutes most caches turn over. */
const forgetSeconds = 600
