import { isDeepStrictEqual } from 'node:util'
import type { SharedSourceConfig } from '../config/schema.ts'
import type { ChunkStore } from '../events/chunk-store.ts'
import type { EventCounters } from '../events/counters.ts'
import { SharedIngest } from '../events/shared-ingest.ts'
import type { EventSource } from '../events/source.ts'
import { createZmqSource } from '../events/sources/zmq.ts'
import type { KeyMaker } from '../kv/keys.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { Pool } from '../workers/pool.ts'
import { systemClock } from '../zmtp/clock.ts'
import type { ChunkStores } from './chunk-stores.ts'
import { eventReading } from './worker-config.ts'

export interface SharedSourcesOptions {
  readonly stores: ChunkStores
  readonly keys: KeyMaker
  readonly metrics: Metrics
  readonly log: Log
  readonly random: () => number
}

interface Running {
  readonly given: SharedSourceConfig
  readonly source: EventSource
  readonly store: ChunkStore
}

/** Stores that no worker owns and that tell themselves what they hold: the sources of each pool. */
export class SharedSources {
  readonly #o: SharedSourcesOptions
  readonly #running = new Map<Pool, Running[]>()

  constructor(options: SharedSourcesOptions) {
    this.#o = options
  }

  /** Makes the pool's sources those of the config; what stays as it was keeps what is known of it. */
  set(pool: Pool, given: readonly SharedSourceConfig[]): void {
    const before = this.#running.get(pool) ?? []
    const stays = before.filter((running) => given.some((other) => isDeepStrictEqual(other, running.given)))
    for (const running of before) if (!stays.includes(running)) this.#stop(running)
    const added = given.filter((other) => !stays.some((running) => isDeepStrictEqual(other, running.given)))
    const running = [...stays, ...added.flatMap((source) => this.#start(pool, source) ?? [])]
    if (running.length === 0) this.#running.delete(pool)
    else this.#running.set(pool, running)
  }

  view(): object[] {
    return [...this.#running].flatMap(([pool, running]) =>
      running.map(({ given, source, store }) => ({
        pool: pool.model,
        events: given.events,
        kind: given.kind,
        blockSize: store.blockSize,
        ...source.status(),
      })),
    )
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#running.values()].flat().map(({ source }) => source.stop()))
  }

  #start(pool: Pool, given: SharedSourceConfig): Running | null {
    const { stores, keys, log, random } = this.#o
    const forget = eventReading({ events: { forget: { sharedSeconds: given.forgetSeconds } } }).forget
    const store = stores.shared(pool, forget)
    if (store === null) {
      log.error({ events: given.events }, 'shared store left out: the map has no place left (limits.workers)')
      return null
    }
    const counters = this.#counters(given.events)
    const source = createZmqSource(
      {
        endpoint: given.events,
        replayEndpoint: null,
        topic: given.topic,
        name: given.events,
        clock: systemClock,
        random,
        log,
        counters,
        onRestart: () => undefined,
      },
      new SharedIngest({
        kind: given.kind,
        store,
        keys,
        model: pool.model,
        blockSize: () => given.blockSize ?? pool.workers.find(({ blockSize }) => blockSize !== null)?.blockSize ?? null,
        counters,
      }),
    )
    source.start()
    return { given, source, store }
  }

  #stop({ source, store }: Running): void {
    void source.stop()
    this.#o.stores.remove(store)
  }

  #counters(name: string): EventCounters {
    const { metrics } = this.#o
    return {
      event: (kind, count) => metrics.kvEvents.add(count, name, kind),
      blocks: (tier, kind, count) => metrics.kvEventBlocks.add(count, name, tier, kind),
      skipped: (reason, count) => metrics.kvEventsSkipped.add(count, reason),
      gap: () => metrics.kvEventGaps.add(1, name),
      restart: () => metrics.kvEventRestarts.add(1, name),
      disconnect: () => metrics.kvEventReconnects.add(1, name),
    }
  }
}
