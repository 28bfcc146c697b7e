import { RunningLimit } from '../admission/running-limit.ts'
import { roomOf, type SaturationLimits } from '../admission/saturation.ts'
import type { Fleet } from '../workers/fleet.ts'
import type { Pools } from '../workers/pool.ts'
import type { Worker } from '../workers/worker.ts'

export interface PoolRoomParts {
  readonly pools: Pools
  readonly fleet: Fleet
  readonly limits: SaturationLimits
  /** Monotonic milliseconds. */
  readonly clock: () => number
}

/** What was noted of a worker when its load was read last. */
interface Noted {
  /** Since when the worker has been up; another process has another limit. */
  readonly sinceMs: number
  readonly limit: RunningLimit
  ownRequests: number
}

/** How many further requests the workers of a pool can take, from their measured load and what was sent since. */
export class PoolRoom {
  limits: SaturationLimits
  readonly #o: PoolRoomParts
  readonly #noted = new WeakMap<Worker, Noted>()

  constructor(parts: PoolRoomParts) {
    this.#o = parts
    this.limits = parts.limits
  }

  /** The worker's load has just been read. */
  read(worker: Worker): void {
    if (worker.load === null) return
    const noted = this.#of(worker)
    noted.ownRequests = this.#o.fleet.counters.requests(worker.slot)
    noted.limit.read(worker.load)
  }

  /**
   * Whether the pool can take a request on top of `ahead` that are about to be sent. A pool with no worker that is up can: its
   * requests are refused where they are sent, with a better reason.
   */
  hasRoom(model: string, ahead: number): boolean {
    const pool = this.#o.pools.target(model)?.pool
    const nowMs = this.#o.clock()
    let room = 0
    let known = false
    for (const worker of pool?.workers ?? []) {
      const { standing } = worker
      if (!standing.up || standing.draining || standing.ejected) continue
      known = true
      room += this.#roomOn(worker, nowMs)
      if (room > ahead) return true
    }
    return !known
  }

  /**
   * Whether the worker has a place left where places are counted. Measured load is no reason to leave a worker out of a choice:
   * readings are half a second apart, and whoever was read last before a burst would get all of it. Policies weigh it.
   */
  hasPlaceOn({ slot }: Worker): boolean {
    const { requestsPerWorker } = this.limits
    return requestsPerWorker === null || this.#o.fleet.counters.requests(slot) < requestsPerWorker
  }

  #roomOn(worker: Worker, nowMs: number): number {
    if (worker.standing.record.pressedUntilMs > nowMs) return 0
    const { load, slot } = worker
    const ownRequests = this.#o.fleet.counters.requests(slot)
    const noted = this.#of(worker)
    return roomOf(
      {
        running: load?.running ?? 0,
        waiting: load?.waiting ?? 0,
        kvUsage: load?.kvUsage ?? 0,
        loadAgeMs: load === null ? Infinity : nowMs - load.atMs,
        ownRequests,
        ownRequestsAtReading: noted.ownRequests,
        runningLimit: noted.limit.value,
      },
      this.limits,
    )
  }

  #of(worker: Worker): Noted {
    const sinceMs = worker.standing.record.seenAtMs
    let noted = this.#noted.get(worker)
    if (noted?.sinceMs !== sinceMs) {
      noted = { sinceMs, limit: new RunningLimit(), ownRequests: 0 }
      this.#noted.set(worker, noted)
    }
    return noted
  }
}
