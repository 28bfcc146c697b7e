import type { ServerResponse } from 'node:http'
import { Pool } from 'undici'
import { Bag } from '../workers/bag.ts'
import type { WorkerConnections } from '../workers/connect.ts'
import type { Worker } from '../workers/worker.ts'
import { Exchange } from './exchange.ts'
import type { ForwardLimits, ForwardOutcome, ForwardRequest } from './outcome.ts'

/** Sends requests to workers and their answers back, byte for byte. */
export class Forwarder {
  #limits: ForwardLimits
  readonly #pools = new Map<string, Pool>()
  readonly #active = new Bag<Exchange>()
  readonly #clock: () => number
  readonly #connections: WorkerConnections
  readonly #sweep: NodeJS.Timeout

  constructor(limits: ForwardLimits, clock: () => number, connections: WorkerConnections) {
    this.#limits = limits
    this.#connections = connections
    this.#clock = clock
    // One timer watches every exchange: a timer each would be set and cleared for every chunk of every stream.
    this.#sweep = setInterval(() => this.#expire(), 100)
    this.#sweep.unref()
  }

  /** Never throws: what goes wrong is in the outcome. */
  send(request: ForwardRequest, response: ServerResponse): Promise<ForwardOutcome> {
    return new Promise((resolve) => {
      const exchange = new Exchange(request, response, {
        limits: this.#limits,
        clock: this.#clock,
        onOutcome: resolve,
        onClosed: () => this.#active.remove(exchange),
      })
      if (exchange.settled) return
      this.#active.add(exchange)
      this.#pool(request.worker.origin).dispatch(
        {
          path: request.worker.basePath + request.path,
          method: request.method,
          headers: request.headers,
          body: request.body,
        },
        exchange,
      )
    })
  }

  /** Breaks off what still runs on a worker that is taken out for good; nothing of another worker's. */
  cut(worker: Worker): void {
    for (let i = this.#active.items.length - 1; i >= 0; i--) this.#active.items[i]?.cut(worker)
  }

  /** Limits for requests from now on; those that are a connection's go to new connections. */
  reconfigure(limits: ForwardLimits): void {
    const { connectMs, connectionsPerWorker, answerHeaderBytes } = this.#limits
    this.#limits = limits
    if (
      connectMs === limits.connectMs &&
      connectionsPerWorker === limits.connectionsPerWorker &&
      answerHeaderBytes === limits.answerHeaderBytes
    )
      return
    for (const origin of [...this.#pools.keys()]) this.forget(origin)
  }

  /** Closes the connections to a worker that is gone. */
  forget(origin: string): void {
    const pool = this.#pools.get(origin)
    this.#pools.delete(origin)
    pool?.close().catch(() => undefined)
  }

  async close(): Promise<void> {
    clearInterval(this.#sweep)
    await Promise.all([...this.#pools.values()].map((pool) => pool.destroy()))
    this.#pools.clear()
  }

  #pool(origin: string): Pool {
    let pool = this.#pools.get(origin)
    if (pool === undefined) {
      pool = new Pool(origin, {
        connections: this.#limits.connectionsPerWorker,
        pipelining: 1,
        connect: this.#connections.connector(origin, this.#limits.connectMs),
        headersTimeout: 0,
        bodyTimeout: 0,
        maxHeaderSize: this.#limits.answerHeaderBytes,
        keepAliveTimeout: 4000,
        allowH2: false,
      })
      this.#pools.set(origin, pool)
    }
    return pool
  }

  #expire(): void {
    const nowMs = this.#clock()
    // An exchange that ends here leaves the bag, so that the walk goes backwards.
    for (let i = this.#active.items.length - 1; i >= 0; i--) this.#active.items[i]?.expire(nowMs)
  }
}
