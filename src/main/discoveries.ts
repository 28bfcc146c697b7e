import { isDeepStrictEqual } from 'node:util'
import { parseWorkerList } from '../config/load.ts'
import type { DiscoveryConfig, WorkerConfig } from '../config/schema.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import { LastGood, type Discovery } from '../workers/discovery/discovery.ts'
import { createDiscovery } from '../workers/discovery/kinds.ts'
import type { Pool } from '../workers/pool.ts'
import type { FleetKeeper } from './keeper.ts'

export interface DiscoveriesOptions {
  readonly keeper: FleetKeeper
  readonly clock: () => number
  readonly log: Log
  readonly metrics: Metrics
}

interface Running {
  readonly config: DiscoveryConfig
  readonly discovery: Discovery
  readonly lastGood: LastGood<WorkerConfig>
}

/** The discoveries of all pools: what each finds becomes workers of its pool. */
export class Discoveries {
  readonly #o: DiscoveriesOptions
  readonly #running = new Map<Pool, Running>()

  constructor(options: DiscoveriesOptions) {
    this.#o = options
    options.metrics.read('discovery_age_seconds', () =>
      [...this.#running].map(([pool, { lastGood }]) => [[pool.model], lastGood.ageMs / 1000] as const),
    )
  }

  /** Starts, changes or ends the discovery of a pool. Until a changed one has found engines, those found before stay. */
  set(pool: Pool, config: DiscoveryConfig | undefined): void {
    const before = this.#running.get(pool)
    if (isDeepStrictEqual(before?.config, config)) return
    before?.discovery.stop()
    this.#running.delete(pool)
    if (config === undefined) {
      this.#o.metrics.discoveryErrors.forget('pool', pool.model)
      this.#o.keeper.reconcile('discovery', pool, [])
      return
    }
    const { clock, log, metrics, keeper } = this.#o
    const lastGood = new LastGood<WorkerConfig>({
      pool: pool.model,
      clock,
      log,
      onFound: (engines) =>
        keeper.reconcile(
          'discovery',
          pool,
          engines.map((engine) => ({ ...config.worker, ...engine })),
        ),
      onFailed: () => metrics.discoveryErrors.add(1, pool.model),
    })
    const discovery = createDiscovery<WorkerConfig>(config, parseWorkerList, lastGood)
    this.#running.set(pool, { config, discovery, lastGood })
    discovery.start()
  }

  stop(): void {
    for (const { discovery } of this.#running.values()) discovery.stop()
    this.#running.clear()
  }
}
