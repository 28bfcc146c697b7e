import type { PoolConfig, WorkerConfig } from '../config/schema.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { EngineHttp } from '../workers/engine-http.ts'
import type { EngineFacts, RankFacts, RankLoad } from '../workers/engine.ts'
import { engines } from '../workers/engines.ts'
import type { Fleet } from '../workers/fleet.ts'
import type { Pool, Pools } from '../workers/pool.ts'
import { EndpointWatch } from '../workers/watch.ts'
import { Standing } from '../workers/standing.ts'
import { newAgreement, workerAddress, type Worker, type WorkerAddress } from '../workers/worker.ts'

/** KV events of one worker, as the keeper starts, questions and stops them. */
export interface WorkerEvents {
  status(): WorkerEventsStatus
  /** Contact was lost: what is known must be verified before it counts again. */
  workerDown(): void
  stop(): Promise<void>
}

export interface WorkerEventsStatus {
  readonly state: 'live' | 'replaying' | 'unknown' | 'absent'
  readonly lastSequence: number | null
  readonly gaps: number
  readonly restarts: number
}

export interface EventsPlace {
  readonly endpoint: string | null
  readonly replay: string | null
  readonly topic: string
  readonly bind: string | null
}

export interface KeeperOptions {
  readonly pools: Pools
  readonly fleet: Fleet
  readonly http: EngineHttp
  readonly health: {
    readonly intervalMs: number
    readonly timeoutMs: number
    readonly path: string
    readonly failures: number
  }
  readonly load: { readonly intervalMs: number }
  readonly probeIntervalMs: number
  readonly clock: () => number
  readonly log: Log
  readonly metrics: Metrics
  /** A pool was formed from what a worker says it serves. */
  readonly onPool: (pool: Pool) => Promise<void>
  readonly onWorker: (worker: Worker) => void
  readonly onWorkerGone: (worker: Worker) => void
  readonly startEvents: (worker: Worker, place: EventsPlace) => WorkerEvents
  /** Compares tokenizing with the worker's own. */
  readonly probe: (worker: Worker) => Promise<'equal' | 'different' | 'unverified'>
}

interface Kept {
  readonly worker: Worker
  events: WorkerEvents | null
}

interface Endpoint {
  readonly address: WorkerAddress
  readonly given: WorkerConfig
  readonly watch: EndpointWatch
  pool: Pool | null
  kept: Kept[]
  probeTimer: NodeJS.Timeout | null
}

/**
 * Keeps the fleet: one watch for each engine endpoint, a worker for each of its ranks, their events, and the
 * comparison of tokenizing. Everything that changes a worker's state happens here, on thread 0.
 */
export class FleetKeeper {
  readonly #o: KeeperOptions
  readonly #endpoints: Endpoint[] = []
  readonly #forming = new Map<string, Promise<Pool>>()
  #stopped = false

  constructor(options: KeeperOptions) {
    this.#o = options
  }

  /** Adds the workers of a configured pool. */
  addPool(pool: Pool, config: PoolConfig): void {
    for (const given of config.workers) {
      const endpoint = this.#addEndpoint(given, pool)
      const ranks = given.ranks === undefined ? [null] : Array.from({ length: given.ranks }, (_, rank) => rank)
      for (const rank of ranks) this.#addWorker(endpoint, pool, rank)
      endpoint.watch.start()
    }
  }

  /** Adds an engine whose pool is formed by the model that it says it serves (decision 25). */
  addUrl(url: string): void {
    this.#o.pools.forming = true
    this.#addEndpoint({ url }, null).watch.start()
  }

  /** Every endpoint has answered or failed once. */
  async firstChecks(): Promise<void> {
    await Promise.all(this.#endpoints.map(({ watch }) => watch.firstCheck))
  }

  reportUnreachable(worker: Worker, refused: boolean): void {
    this.#endpoints.find(({ kept }) => kept.some((entry) => entry.worker === worker))?.watch.reportUnreachable(refused)
  }

  eventsOf(worker: Worker): WorkerEventsStatus {
    for (const { kept } of this.#endpoints) {
      for (const entry of kept) if (entry.worker === worker && entry.events !== null) return entry.events.status()
    }
    return { state: 'absent', lastSequence: null, gaps: 0, restarts: 0 }
  }

  async stop(): Promise<void> {
    this.#stopped = true
    for (const { watch, probeTimer } of this.#endpoints) {
      watch.stop()
      if (probeTimer !== null) clearTimeout(probeTimer)
    }
    await Promise.all(this.#endpoints.flatMap(({ kept }) => kept.flatMap(({ events }) => events?.stop() ?? [])))
  }

  #addEndpoint(given: WorkerConfig, pool: Pool | null): Endpoint {
    const address = workerAddress(given.url, null)
    const engine = engines[given.engine ?? 'vllm']
    if (engine === undefined) throw new RangeError(`engine ${given.engine ?? ''}`)
    const watch = new EndpointWatch({
      baseUrl: address.origin + address.basePath,
      headers: headersFor(address, given),
      engine,
      http: this.#o.http,
      health: this.#o.health,
      load: this.#o.load,
      onUp: (facts) => this.#up(endpoint, facts),
      onDown: () => this.#down(endpoint),
      onRestart: (facts) => {
        this.#o.log.warn({ worker: address.id }, 'engine restarted')
        void this.#up(endpoint, facts)
      },
      onLoad: (load) => this.#loaded(endpoint, load),
    })
    const endpoint: Endpoint = { address, given, watch, pool, kept: [], probeTimer: null }
    this.#endpoints.push(endpoint)
    return endpoint
  }

  #addWorker(endpoint: Endpoint, pool: Pool, rank: number | null): Kept | null {
    const { given } = endpoint
    const address = workerAddress(given.url, rank)
    const worker = this.#o.fleet.add((slot, serial) => ({
      id: address.id,
      origin: address.origin,
      basePath: address.basePath,
      rank,
      slot,
      serial,
      pool: pool.model,
      engine: given.engine ?? 'vllm',
      headers: headersFor(address, given),
      labels: given.labels ?? {},
      standing: new Standing(),
      blockSize: given.blockSize ?? null,
      capacityBlocks: given.capacityBlocks ?? null,
      load: null,
      degraded: given.blockSize === undefined ? 'block_size_unknown' : null,
      exact: false,
      agreement: newAgreement(),
    }))
    if (worker === null) {
      this.#o.log.error(
        { worker: address.id, limit: this.#o.fleet.limit },
        'worker left out: the fleet is full (limits.workers)',
      )
      return null
    }
    const kept: Kept = { worker, events: null }
    endpoint.kept.push(kept)
    pool.workers.push(worker)
    this.#o.onWorker(worker)
    return kept
  }

  async #up(endpoint: Endpoint, facts: EngineFacts | null): Promise<void> {
    if (facts !== null) await this.#learn(endpoint, facts)
    if (this.#stopped) return
    for (const kept of endpoint.kept) {
      const { worker } = kept
      const rank = facts?.ranks.find((candidate) => candidate.rank === (worker.rank ?? 0)) ?? null
      // A restarted engine may have another block size or capacity than before.
      const blockSize = endpoint.given.blockSize ?? rank?.blockSize ?? worker.blockSize
      if (blockSize !== worker.blockSize) {
        worker.blockSize = blockSize
        this.#o.onWorker(worker)
      }
      if (facts !== null) worker.models = new Set(facts.models.map(({ id }) => id))
      worker.capacityBlocks = endpoint.given.capacityBlocks ?? rank?.capacityBlocks ?? worker.capacityBlocks
      if (worker.blockSize !== null && worker.degraded === 'block_size_unknown') worker.degraded = null
      const place = eventsPlace(endpoint.given, worker.rank, rank)
      if (kept.events === null && place !== null) kept.events = this.#o.startEvents(worker, place)
      worker.standing.up = true
      this.#o.log.info(
        {
          worker: worker.id,
          model: worker.pool,
          blockSize: worker.blockSize,
          capacityBlocks: worker.capacityBlocks,
          events: kept.events === null ? 'absent' : 'present',
        },
        'worker up',
      )
    }
    void this.#probe(endpoint)
  }

  #down(endpoint: Endpoint): void {
    for (const { worker, events } of endpoint.kept) {
      worker.standing.up = false
      worker.load = null
      events?.workerDown()
      this.#o.log.warn({ worker: worker.id }, 'worker down')
    }
  }

  /** Forms the pool, finds adapters, and splits an endpoint that turns out to have several ranks. */
  async #learn(endpoint: Endpoint, facts: EngineFacts): Promise<void> {
    const base = facts.models.find(({ parent }) => parent === null)
    if (endpoint.pool === null) {
      if (base === undefined) return
      endpoint.pool = await this.#poolFor(base.id)
    }
    const { pool } = endpoint
    for (const { id, parent } of facts.models) if (parent !== null) pool.adapters.add(id)
    pool.maxModelLength ??= base?.maxModelLength ?? null
    if (base !== undefined && !facts.models.some(({ id }) => id === pool.model || pool.aliases.includes(id))) {
      this.#o.log.warn(
        { worker: endpoint.address.id, model: pool.model, serves: base.id },
        'the engine does not serve the model of its pool',
      )
    }
    const several = facts.ranks.length > 1 && endpoint.given.ranks === undefined
    if (several && endpoint.kept.every(({ worker }) => worker.rank === null)) {
      for (const { worker } of endpoint.kept) this.#removeWorker(pool, worker)
      endpoint.kept = []
      for (const { rank } of facts.ranks) this.#addWorker(endpoint, pool, rank)
    } else if (endpoint.kept.length === 0) this.#addWorker(endpoint, pool, null)
  }

  /** The pool of a model, formed once however many workers tell of it at the same time. */
  #poolFor(model: string): Promise<Pool> {
    const known = this.#o.pools.target(model)
    if (known !== null) return Promise.resolve(known.pool)
    let forming = this.#forming.get(model)
    if (forming === undefined) {
      forming = this.#formPool(model)
      this.#forming.set(model, forming)
    }
    return forming
  }

  async #formPool(model: string): Promise<Pool> {
    const pool: Pool = {
      model,
      aliases: [],
      adapters: new Set(),
      workers: [],
      createdSeconds: Math.floor(Date.now() / 1000),
      maxModelLength: null,
    }
    await this.#o.onPool(pool)
    this.#o.pools.add(pool)
    this.#o.pools.forming = false
    return pool
  }

  #removeWorker(pool: Pool, worker: Worker): void {
    const at = pool.workers.indexOf(worker)
    if (at !== -1) pool.workers.splice(at, 1)
    this.#o.fleet.remove(worker)
    this.#o.onWorkerGone(worker)
  }

  #loaded(endpoint: Endpoint, load: ReadonlyMap<number, RankLoad>): void {
    const atMs = this.#o.clock()
    for (const { worker } of endpoint.kept) {
      const own = load.get(worker.rank ?? 0)
      if (own !== undefined) worker.load = { ...own, atMs }
    }
  }

  async #probe(endpoint: Endpoint): Promise<void> {
    if (endpoint.probeTimer !== null) clearTimeout(endpoint.probeTimer)
    const first = endpoint.kept[0]?.worker
    if (first !== undefined) {
      const result = await this.#o.probe(first)
      for (const { worker } of endpoint.kept) {
        this.#o.metrics.tokenizerProbes.add(1, worker.id, result)
        if (result === 'different') worker.degraded = 'tokenizer_differs'
        else if (worker.degraded === 'tokenizer_differs' && result === 'equal') worker.degraded = null
      }
    }
    endpoint.probeTimer = setTimeout(() => void this.#probe(endpoint), this.#o.probeIntervalMs)
    endpoint.probeTimer.unref()
  }
}

function headersFor(address: WorkerAddress, given: WorkerConfig): Record<string, string> {
  const own = Object.fromEntries(
    Object.entries(given.headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]),
  )
  return {
    ...address.headers,
    ...own,
    ...(given.apiKey === undefined ? {} : { authorization: `Bearer ${given.apiKey}` }),
  }
}

/** Where a worker's events are: as configured (port + rank for data-parallel ranks), else as the engine tells. */
function eventsPlace(given: WorkerConfig, rank: number | null, facts: RankFacts | null): EventsPlace | null {
  const { events } = given
  if (events === false) return null
  if (events?.endpoint !== undefined || events?.bind !== undefined) {
    const shifted = (endpoint: string | undefined): string | null =>
      endpoint === undefined ? null : endpoint.replace(/:(\d+)$/, (_, port: string) => `:${Number(port) + (rank ?? 0)}`)
    return {
      endpoint: shifted(events.endpoint),
      replay: shifted(events.replay),
      topic: events.topic ?? '',
      bind: shifted(events.bind),
    }
  }
  if (facts?.events == null) return null
  return {
    endpoint: facts.events.endpoint,
    replay: facts.events.replay,
    topic: events?.topic ?? facts.events.topic,
    bind: null,
  }
}
