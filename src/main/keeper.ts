import type { WorkerConfig } from '../config/schema.ts'
import { RouterError } from '../errors.ts'
import { newPool, type Pool, type Pools } from '../workers/pool.ts'
import { workerAddress, type Worker } from '../workers/worker.ts'
import { Claims, type Source, type Target } from './claims.ts'
import { Departures } from './departures.ts'
import { Endpoint, type EndpointOwner, type EndpointPorts } from './endpoint.ts'
import { Orders } from './orders.ts'
import { noEvents, type WorkerEventsStatus } from './worker-events.ts'

export interface KeeperOptions extends EndpointPorts {
  readonly pools: Pools
  /** How long a worker that leaves may finish what it has. */
  readonly drainMs: number
  /** A pool was formed from what a worker says it serves. */
  readonly onPool: (pool: Pool) => Promise<void>
  /** A pool that was formed went with the last of its engines. */
  readonly onPoolGone: (pool: Pool) => void
  /** Breaks off what a worker still has when its time to finish is over. */
  readonly onCut: (worker: Worker) => void
  readonly onWorkerGone: (worker: Worker) => void
}

/** How long an engine is awaited by those who leave. */
const handOverMs = 2000

/**
 * Keeps the fleet as its sources want it: opens an endpoint for each engine that one of them names, and takes out what
 * none names any more, once what it has is done. Everything that changes a worker's state happens under it, on thread 0.
 */
export class FleetKeeper {
  readonly #o: KeeperOptions
  readonly #owner: EndpointOwner
  readonly #claims = new Claims()
  readonly #orders = new Orders()
  readonly #endpoints = new Map<string, Endpoint>()
  /** Endpoints of which nobody knows yet whether they can serve. */
  readonly #awaited = new Set<Endpoint>()
  /** Endpoints that nobody wants any more, and that serve until others can. */
  readonly #outgoing = new Set<Endpoint>()
  readonly #departures: Departures
  readonly #forming = new Map<string, Promise<Pool>>()
  /** Pools that are there for their engines only, and go with the last one. */
  readonly #formed = new Set<Pool>()

  constructor(options: KeeperOptions) {
    this.#o = options
    this.#departures = new Departures({
      inFlight: ({ slot }) => options.fleet.counters.requests(slot),
      limitMs: () => options.drainMs,
      cut: options.onCut,
      gone: (worker) => this.#gone(worker),
      clock: options.clock,
    })
    this.#owner = {
      poolFor: (model) => this.#poolFor(model),
      depart: (worker) => this.#departures.add(worker),
      orders: this.#orders,
    }
  }

  /**
   * Makes the source's engines of a pool those that it names now, and leaves alone those of other sources. Engines of no
   * pool join the pool of the model that they say they serve (decision 25).
   */
  reconcile(source: Source, pool: Pool | null, desired: readonly WorkerConfig[]): void {
    this.#claims.put(source, pool, desired)
    if (pool === null) this.#o.pools.forming = desired.length > 0 && this.#o.pools.list().length === 0
    this.#settle()
  }

  /** The pool has a place in the config: it stays without engines too. */
  adopt(pool: Pool): void {
    this.#formed.delete(pool)
  }

  /** The pool is no more: nor are its workers, whoever named them. */
  dropPool(pool: Pool): void {
    this.#claims.dropPool(pool)
    this.#settle()
  }

  /** Adds an engine in an operator's name. @throws RouterError WORKER_EXISTS */
  add(pool: Pool | null, given: WorkerConfig): Endpoint {
    const { id } = workerAddress(given.url, null)
    if (this.#endpoints.has(id)) throw new RouterError('WORKER_EXISTS', `The worker "${id}" is in the fleet already`)
    this.#orders.forgetRemoved(id)
    this.#claims.add('api', pool, given)
    this.#settle()
    const endpoint = this.#endpoints.get(id)
    if (endpoint === undefined) throw new RangeError(`endpoint ${id}`)
    return endpoint
  }

  /** The workers that the id names: one, or all ranks behind a URL. @throws RouterError WORKER_NOT_FOUND, WORKER_LEAVING */
  named(id: string): readonly Worker[] {
    const workers = this.#current(id)
    if (workers.length > 0) return workers
    if (this.#leaving(id).length > 0)
      throw new RouterError('WORKER_LEAVING', `The worker "${id}" is being removed; add it again once it is gone`)
    throw new RouterError('WORKER_NOT_FOUND', `No worker "${id}" is known; GET /admin/workers lists them`)
  }

  /** Gives the workers no new requests, or lets them have them again. What an operator drained stays so after a reload. */
  setDraining(id: string, draining: boolean): readonly Worker[] {
    const workers = this.named(id)
    for (const worker of workers) {
      worker.standing.draining = draining
      if (draining) this.#orders.drain(worker)
      else this.#orders.undrain(worker)
    }
    return workers
  }

  /** Takes the workers out, also where a source still names them, until it ceases to or an operator adds them again. */
  remove(id: string, force: boolean): readonly Worker[] {
    const current = this.#current(id)
    const workers = current.length > 0 ? current : this.#leaving(id)
    if (workers.length === 0 && !this.#endpoints.has(id)) this.named(id)
    for (const worker of current) {
      this.#orders.remove(worker)
      this.#endpointOf(worker)?.removeWorker(worker)
    }
    const endpoint = this.#endpoints.get(workers[0] === undefined ? id : endpointId(workers[0]))
    if (endpoint?.workers.length === 0) {
      this.#orders.removeEndpoint(endpoint.id)
      this.#claims.drop('api', endpoint.id)
    }
    this.#settle()
    if (force) for (const worker of workers) this.#hurry(worker)
    return workers
  }

  /** Every endpoint has answered or failed once. */
  async firstChecks(): Promise<void> {
    await Promise.all([...this.#endpoints.values()].map(({ firstCheck }) => firstCheck))
  }

  reportUnreachable(worker: Worker, refused: boolean): void {
    this.#endpointOf(worker)?.reportUnreachable(refused)
  }

  eventsOf(worker: Worker): WorkerEventsStatus {
    return this.#endpointOf(worker)?.eventsOf(worker) ?? noEvents
  }

  sourceOf(worker: Worker): Source | null {
    return this.#endpointOf(worker)?.source ?? null
  }

  /** Whether an engine at this origin is in the fleet or about to be. */
  knows(origin: string): boolean {
    return [...this.#endpoints.values()].some((endpoint) => endpoint.origin === origin)
  }

  isLeaving(worker: Worker): boolean {
    return this.#departures.has(worker)
  }

  async stop(): Promise<void> {
    this.#departures.stop()
    await Promise.all([...this.#endpoints.values(), ...this.#outgoing].map((endpoint) => endpoint.stop()))
  }

  /** Makes the endpoints those that the sources want together. */
  #settle(): void {
    const targets = this.#claims.targets()
    this.#orders.keepFor(targets)
    for (const id of targets.keys()) if (this.#orders.isRemoved(id)) targets.delete(id)
    const outgoing = [...this.#endpoints.values()].filter((endpoint) => !targets.has(endpoint.id))
    for (const target of targets.values()) {
      const current = this.#endpoints.get(target.id)
      if (current?.mayBecome(target) === true) {
        current.become(target)
        continue
      }
      if (current !== undefined) outgoing.push(current)
      this.#open(target)
    }
    for (const endpoint of outgoing)
      if (this.#endpoints.get(endpoint.id) === endpoint) this.#endpoints.delete(endpoint.id)
    for (const endpoint of outgoing) this.#retire(endpoint)
    this.#handOver()
    this.#dropEmpty()
  }

  #open(target: Target): void {
    const endpoint = new Endpoint(target, this.#o, this.#owner)
    this.#endpoints.set(target.id, endpoint)
    this.#awaited.add(endpoint)
    const come = (): void => {
      clearTimeout(timer)
      if (this.#awaited.delete(endpoint)) this.#handOver()
    }
    const timer = setTimeout(come, handOverMs)
    timer.unref()
    void endpoint.firstCheck.then(come)
    endpoint.start()
  }

  /** One that was still awaited never served, and leaves at once. */
  #retire(endpoint: Endpoint): void {
    this.#o.log.info({ worker: endpoint.id, source: endpoint.source }, 'worker leaves')
    if (this.#awaited.delete(endpoint)) endpoint.leave()
    else this.#outgoing.add(endpoint)
  }

  /** Those who leave serve until those who come can, so that a pool is never without workers in between. */
  #handOver(): void {
    for (const endpoint of this.#outgoing) {
      if ([...this.#awaited].some(({ pool }) => pool === null || pool === endpoint.pool)) continue
      this.#outgoing.delete(endpoint)
      endpoint.leave()
    }
  }

  #hurry(worker: Worker): void {
    for (const endpoint of this.#outgoing) {
      if (!endpoint.has(worker)) continue
      this.#outgoing.delete(endpoint)
      endpoint.leave()
    }
    this.#departures.hurry(worker)
  }

  #gone(worker: Worker): void {
    const { pools, fleet, log } = this.#o
    for (const { workers } of pools.list()) {
      const at = workers.indexOf(worker)
      if (at !== -1) workers.splice(at, 1)
    }
    fleet.remove(worker)
    this.#o.onWorkerGone(worker)
    log.info({ worker: worker.id }, 'worker gone')
    this.#dropEmpty()
  }

  /** Formed pools whose last engine is gone; an engine that does not know its pool yet may be about to join one. */
  #dropEmpty(): void {
    const wanted = new Set([...this.#endpoints.values()].map(({ pool }) => pool))
    if (wanted.has(null)) return
    for (const pool of this.#formed) {
      if (pool.workers.length > 0 || wanted.has(pool)) continue
      this.#formed.delete(pool)
      this.#o.pools.remove(pool)
      this.#o.onPoolGone(pool)
    }
  }

  /** The pool of a model, formed once however many workers tell of it at the same time. */
  #poolFor(model: string): Promise<Pool> {
    const known = this.#o.pools.target(model)
    if (known !== null) return Promise.resolve(known.pool)
    let forming = this.#forming.get(model)
    if (forming === undefined) {
      forming = this.#formPool(model).finally(() => this.#forming.delete(model))
      this.#forming.set(model, forming)
    }
    return forming
  }

  async #formPool(model: string): Promise<Pool> {
    const pool = newPool(model)
    await this.#o.onPool(pool)
    const known = this.#o.pools.target(model)
    if (known !== null) return known.pool
    this.#o.pools.add(pool)
    this.#formed.add(pool)
    this.#o.pools.forming = false
    return pool
  }

  #current(id: string): Worker[] {
    return [...this.#endpoints.values()].flatMap((endpoint) =>
      endpoint.workers.filter((worker) => endpoint.id === id || worker.id === id),
    )
  }

  #leaving(id: string): Worker[] {
    const outgoing = [...this.#outgoing].flatMap(({ workers }) => workers)
    return [...this.#departures.workers(), ...outgoing].filter(
      (worker) => worker.id === id || endpointId(worker) === id,
    )
  }

  #endpointOf(worker: Worker): Endpoint | undefined {
    const endpoint = this.#endpoints.get(endpointId(worker))
    if (endpoint?.has(worker) === true) return endpoint
    return [...this.#outgoing].find((candidate) => candidate.has(worker))
  }
}

function endpointId(worker: Worker): string {
  return worker.origin + worker.basePath
}
