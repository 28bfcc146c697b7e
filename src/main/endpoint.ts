import type { WorkerConfig } from '../config/schema.ts'
import type { EngineHttp } from '../workers/engine-http.ts'
import { detectEngine } from '../workers/detect.ts'
import type { Engine, EngineFacts } from '../workers/engine.ts'
import { engines } from '../workers/engines.ts'
import type { Fleet } from '../workers/fleet.ts'
import type { PrefixCounters } from '../workers/load.ts'
import { poolServes, type Pool } from '../workers/pool.ts'
import { EndpointWatch, type HealthTiming, type LoadTiming } from '../workers/watch.ts'
import { workerAddress, type Worker, type WorkerAddress } from '../workers/worker.ts'
import type { Source, Target } from './claims.ts'
import { KeptWorker, type KeptWorkerPorts } from './kept-worker.ts'
import { ProbeRounds, type ProbePorts } from './probe-rounds.ts'
import { differInPassing, headersFor, newWorker } from './worker-config.ts'
import { noEvents, type WorkerEventsStatus } from './worker-events.ts'

/** What an endpoint needs of the rooms around it. The timings are read anew each time: a reload may change them. */
export interface EndpointPorts extends KeptWorkerPorts, ProbePorts {
  readonly fleet: Fleet
  readonly http: EngineHttp
  readonly health: HealthTiming
  readonly load: LoadTiming
  /** An engine is about to be spoken to for the first time, or with other options. */
  readonly onEndpoint: (given: WorkerConfig, pool: Pool | null) => void
  /** Its engine's process is another one than before. */
  readonly onWorkerRestarted: (worker: Worker) => void
  /** Its load is about to be asked for. */
  readonly onLoadAsked: (worker: Worker) => void
  /** Whether the worker's hit counters are worth a question. */
  readonly wantsHits: (worker: Worker) => boolean
  /** They have just been read. */
  readonly onHits: (worker: Worker, counters: PrefixCounters) => void
}

/** What an endpoint asks of its keeper. */
export interface EndpointOwner {
  /** The pool of a model, formed if there is none. */
  poolFor(model: string): Promise<Pool>
  /** A worker is no longer the endpoint's: it ends what it has and goes. */
  depart(worker: Worker): void
  /** What operators ordered of the worker with this id before it appeared. */
  readonly orders: { isDrained(id: string): boolean; isRemoved(id: string): boolean }
}

/** One engine: its watch, a worker for each of its ranks, their events, and the comparison of tokenizing. */
export class Endpoint {
  readonly id: string
  readonly #o: EndpointPorts
  readonly #owner: EndpointOwner
  readonly #address: WorkerAddress
  readonly #watch: EndpointWatch
  readonly #probes: ProbeRounds
  /** Whether the pool is that of the model which the engine serves. */
  readonly #learnsPool: boolean
  #source: Source
  #given: WorkerConfig
  #pool: Pool | null
  #kept: KeptWorker[] = []
  /** The model for which the engine is kept out. */
  #wrongModel: string | null = null
  /** The kind of engine; null until it is known. */
  #engine: string | null
  /** The fleet had no place for one of its workers; told once. */
  #leftOut = false
  #left = false

  constructor(target: Target, ports: EndpointPorts, owner: EndpointOwner) {
    this.#o = ports
    this.#owner = owner
    this.id = target.id
    this.#source = target.source
    this.#given = target.given
    this.#pool = target.pool
    this.#learnsPool = target.pool === null
    this.#engine = target.given.engine ?? null
    this.#address = workerAddress(target.given.url, null)
    try {
      ports.onEndpoint(target.given, target.pool)
    } catch (error) {
      // Its connections are made without what it asked for, and fail where the engine insists on it.
      ports.log.error({ worker: this.id, error: String(error) }, 'the options of an engine cannot be used')
    }
    this.#probes = new ProbeRounds(ports, () => this.workers)
    const headers = (): Record<string, string> => headersFor(this.#address, this.#given)
    this.#watch = new EndpointWatch({
      baseUrl: this.#address.origin + this.#address.basePath,
      get headers() {
        return headers()
      },
      recognize: (timeoutMs) => this.#recognize(headers(), timeoutMs),
      http: ports.http,
      timing: ports,
      onUp: (engine, facts) => this.#up(engine, facts),
      onDown: () => this.#down(),
      onRestart: (engine, facts) => {
        ports.log.warn({ worker: this.id }, 'engine restarted')
        for (const { worker } of this.#kept) {
          ports.onWorkerLost(worker)
          ports.onWorkerRestarted(worker)
        }
        return this.#up(engine, facts)
      },
      onLoadAsked: () => {
        for (const { worker } of this.#kept) ports.onLoadAsked(worker)
      },
      wantsLoad: () => this.#kept.some(({ tellsLoad }) => !tellsLoad),
      onLoad: (load) => {
        for (const kept of this.#kept) kept.loaded(load)
      },
      wantsHits: () => {
        const worker = this.#onlyWorker()
        return worker !== null && ports.wantsHits(worker)
      },
      onHits: (counters) => {
        const worker = this.#onlyWorker()
        if (worker !== null) ports.onHits(worker, counters)
      },
    })
  }

  get source(): Source {
    return this.#source
  }

  get pool(): Pool | null {
    return this.#pool
  }

  get workers(): readonly Worker[] {
    return this.#kept.map(({ worker }) => worker)
  }

  get origin(): string {
    return this.#address.origin
  }

  /** Fulfilled when the engine has answered or failed once. */
  get firstCheck(): Promise<void> {
    return this.#watch.firstCheck
  }

  start(): void {
    const { ranks } = this.#given
    if (this.#pool !== null)
      this.#addWorkers(ranks === undefined ? [null] : Array.from({ length: ranks }, (_, rank) => rank))
    this.#watch.start()
  }

  /** Whether the endpoint can become the target as it runs, without losing what is known of its cache. */
  mayBecome({ pool, given }: Target): boolean {
    return (this.#learnsPool ? pool === null : pool === this.#pool) && differInPassing(this.#given, given)
  }

  become({ source, given }: Target): void {
    this.#source = source
    if (this.#given === given) return
    const address = workerAddress(given.url, null)
    const labels = this.#given.labels ?? {}
    for (const { worker } of this.#kept) {
      // What an operator changed stays until the source says something new.
      if (JSON.stringify(labels) !== JSON.stringify(given.labels ?? {})) worker.labels = given.labels ?? {}
      worker.headers = headersFor(address, given)
    }
    this.#given = given
  }

  has(worker: Worker): boolean {
    return this.#kept.some((kept) => kept.worker === worker)
  }

  eventsOf(worker: Worker): WorkerEventsStatus {
    return this.#kept.find((kept) => kept.worker === worker)?.eventsStatus ?? noEvents
  }

  reportUnreachable(refused: boolean): void {
    this.#watch.reportUnreachable(refused)
  }

  /** Takes one of the endpoint's workers out. */
  removeWorker(worker: Worker): void {
    const at = this.#kept.findIndex((kept) => kept.worker === worker)
    const [kept] = at === -1 ? [] : this.#kept.splice(at, 1)
    if (kept !== undefined) this.#depart(kept)
  }

  /** Takes the endpoint out: its workers end what they have. */
  leave(): void {
    this.#halt()
    for (const kept of this.#kept.splice(0)) this.#depart(kept)
  }

  /** Ends with the process. */
  async stop(): Promise<void> {
    this.#halt()
    await Promise.all(this.#kept.map((kept) => kept.stop()))
  }

  #halt(): void {
    this.#left = true
    this.#watch.stop()
    this.#probes.stop()
  }

  /** Its events end at once: nobody asks any more what it holds, and its successor may want their place. */
  #depart(kept: KeptWorker): void {
    void kept.stop()
    kept.worker.exact = false
    this.#owner.depart(kept.worker)
  }

  #addWorkers(ranks: readonly (number | null)[]): void {
    for (const rank of ranks) this.#addWorker(rank)
  }

  #addWorker(rank: number | null): void {
    const given = this.#given
    const pool = this.#pool
    const address = workerAddress(given.url, rank)
    if (pool === null || this.#owner.orders.isRemoved(address.id)) return
    const worker = this.#o.fleet.add(newWorker({ given, pool, address, rank, engine: this.#engine ?? 'unknown' }))
    if (worker === null) {
      this.#leaveOut(address.id)
      return
    }
    worker.standing.draining = this.#owner.orders.isDrained(worker.id)
    this.#kept.push(new KeptWorker(worker, this.#o))
    pool.workers.push(worker)
    this.#o.onWorker(worker)
  }

  #leaveOut(id: string): void {
    if (this.#leftOut) return
    this.#leftOut = true
    this.#o.log.error({ worker: id, limit: this.#o.fleet.limit }, 'worker left out: the fleet is full (limits.workers)')
  }

  /** The engine answers. False: it may not serve, and is asked again. */
  async #up(engine: Engine, facts: EngineFacts | null): Promise<boolean> {
    this.#becomeOf(engine)
    if (facts === null || !(await this.#learn(facts)) || this.#left) return false
    this.#renewMoved(facts)
    for (const kept of this.#kept) kept.up(this.#given, facts)
    void this.#probes.begin()
    return true
  }

  /** As configured, else as it says itself. */
  async #recognize(headers: Readonly<Record<string, string>>, timeoutMs: number): Promise<Engine | null> {
    const { engine } = this.#given
    if (engine !== undefined) return engines[engine] ?? null
    return detectEngine(this.#o.http, this.#address.origin + this.#address.basePath, headers, timeoutMs)
  }

  /** What one kind of engine had in its cache says nothing of another kind's, and is named by other rules. */
  #becomeOf({ name }: Engine): void {
    if (this.#engine === name) return
    const { log } = this.#o
    const before = this.#engine
    this.#engine = name
    if (before !== null && before !== name)
      log.warn({ worker: this.id, before, engine: name }, 'engine is of another kind')
    if (name === 'openai' && this.#given.engine === undefined)
      log.warn(
        { worker: this.id },
        'the kind of engine is not known: what it caches is concluded from what it is sent; `engine` in the config names its kind',
      )
    else if (this.#given.engine === undefined) log.info({ worker: this.id, engine: name }, 'engine recognized')
    const ranks = this.#kept.map(({ worker }) => worker.rank)
    if (before === null) {
      for (const { worker } of this.#kept) {
        worker.engine = name
        this.#o.onWorker(worker)
      }
    } else {
      for (const kept of this.#kept.splice(0)) this.#depart(kept)
      this.#addWorkers(ranks)
    }
  }

  /** An engine that publishes its events elsewhere than before is another process, with a cache of its own. */
  #renewMoved(facts: EngineFacts): void {
    const moved = this.#kept.filter((kept) => kept.hasMoved(this.#given, facts))
    for (const { worker } of moved) this.removeWorker(worker)
    this.#addWorkers(moved.map(({ worker }) => worker.rank))
  }

  #down(): void {
    for (const kept of this.#kept) kept.down()
  }

  /**
   * Forms the pool, checks that the engine serves its model, finds adapters, and splits an endpoint that turns out to have
   * several ranks. False: the engine must not get this pool's requests.
   */
  async #learn(facts: EngineFacts): Promise<boolean> {
    const base = facts.models.find(({ parent }) => parent === null)
    if (this.#learnsPool) {
      if (base === undefined) return false
      if (this.#pool === null || !poolServes(this.#pool, facts.models)) {
        // An engine that was started anew with another model goes over to that model's pool.
        for (const kept of this.#kept.splice(0)) this.#depart(kept)
        this.#pool = await this.#owner.poolFor(base.id)
        if (this.#left) return false
      }
    }
    const pool = this.#pool
    if (pool === null) return false
    if (!poolServes(pool, facts.models)) {
      this.#keepOut(pool, base?.id ?? '')
      return false
    }
    this.#wrongModel = null
    for (const { id, parent } of facts.models) if (parent !== null) pool.adapters.add(id)
    pool.maxModelLength ??= base?.maxModelLength ?? null
    const several = facts.ranks.length > 1 && this.#given.ranks === undefined
    if (several && this.#kept.every(({ worker }) => worker.rank === null)) {
      for (const kept of this.#kept.splice(0)) this.#depart(kept)
      this.#addWorkers(facts.ranks.map(({ rank }) => rank))
    } else if (this.#kept.length === 0) this.#addWorker(null)
    return this.#kept.length > 0
  }

  /** An address that is used again by another model must never get this one's requests. */
  #keepOut(pool: Pool, serves: string): void {
    for (const kept of this.#kept) kept.keepOut()
    if (this.#wrongModel === serves) return
    this.#wrongModel = serves
    this.#o.log.error(
      { worker: this.id, model: pool.model, serves },
      'the engine does not serve the model of its pool: it gets no requests until it does',
    )
  }

  /** The worker that counters of the whole endpoint speak of; null where it has several ranks. */
  #onlyWorker(): Worker | null {
    const [only, second] = this.#kept
    return only === undefined || second !== undefined ? null : only.worker
  }
}
