import { count } from './count.ts'
import { mostShown, type InFlightCounters } from './fleet.ts'
import type { MeasuredLoad, Worker } from './worker.ts'

/** What is in flight on a worker, by slot; whole numbers, never below zero. */
export interface InFlightFigures {
  requests(slot: number): number
  prefillTokens(slot: number): number
  decodeBlocks(slot: number): number
}

/** The most that one replica's share counts in any figure. */
export const mostPerShare = 2 ** 24 - 1

/** What other replicas of the router have in flight, as they told last; shares that are too old are no part of the sums. */
export interface ReplicaShares extends InFlightFigures {
  /** What engines count as requests. */
  sequences(slot: number): number
}

const none = (): number => 0
const noReplicas: ReplicaShares = { requests: none, sequences: none, prefillTokens: none, decodeBlocks: none }

export interface FleetLoadOptions {
  readonly counters: InFlightCounters
  /** Absent where this router is the only one. */
  readonly replicas?: ReplicaShares
}

/** What was noted of a worker when its engine was asked for its load, and what the last reading gave. */
interface Noted {
  readonly serial: number
  sequencesAtAsking: number
  others: number
}

/**
 * The load of every worker in one picture:
 *
 *     in flight   this router's own counts, exact at any moment, and those that other replicas told of theirs
 *     measured    what the engine reports, as old as its reading; not used once it is stale
 *     foreign     what the engine reports beyond all that is in flight: requests of others, who do not come through here
 *
 * Nothing but the end of a request takes back its own counts: a failed reading or health check leaves them alone, and so
 * does a restart, whose requests end by themselves.
 */
export class FleetLoad implements InFlightFigures {
  readonly #o: FleetLoadOptions
  readonly #replicas: ReplicaShares
  readonly #noted: (Noted | undefined)[] = []

  constructor(options: FleetLoadOptions) {
    this.#o = options
    this.#replicas = options.replicas ?? noReplicas
  }

  requests(slot: number): number {
    return Math.min(mostShown, this.#o.counters.requests(slot) + this.#replicas.requests(slot))
  }

  prefillTokens(slot: number): number {
    return Math.min(mostShown, this.#o.counters.prefillTokens(slot) + this.#replicas.prefillTokens(slot))
  }

  decodeBlocks(slot: number): number {
    return Math.min(mostShown, this.#o.counters.decodeBlocks(slot) + this.#replicas.decodeBlocks(slot))
  }

  /** The worker's engine is about to be asked for its load. */
  asked(worker: Worker): void {
    this.#of(worker).sequencesAtAsking = this.#sequences(worker.slot)
  }

  /**
   * The worker's load has just been read: notes how much of it is foreign. What was in flight when the engine was asked may
   * have ended since, and what is now may have come since, so the larger number counts; and what only one reading shows may
   * be a request that was just ending, so the lower of two counts.
   */
  read(worker: Worker): void {
    const { load } = worker
    if (load === null) return
    const noted = this.#of(worker)
    const sequences = this.#sequences(worker.slot)
    const reported = count(load.running) + count(load.waiting)
    const others = Math.max(0, reported - Math.max(sequences, noted.sequencesAtAsking))
    const foreignRequests = Math.min(others, noted.others)
    noted.others = others
    noted.sequencesAtAsking = sequences
    worker.load = { ...load, foreignRequests, foreignWaiting: Math.min(foreignRequests, count(load.waiting)) }
  }

  /** The worker's engine is another process: what was measured was the old one's. */
  restarted(worker: Worker): void {
    worker.load = null
    this.#noted[worker.slot] = undefined
  }

  #sequences(slot: number): number {
    return Math.min(mostShown, this.#o.counters.sequences(slot) + this.#replicas.sequences(slot))
  }

  #of({ slot, serial }: Worker): Noted {
    let noted = this.#noted[slot]
    if (noted?.serial !== serial) {
      noted = { serial, sequencesAtAsking: 0, others: 0 }
      this.#noted[slot] = noted
    }
    return noted
  }
}

/** What the engine reported, if that is young enough to be used. */
export function freshLoad({ load }: Worker, nowMs: number, staleMs: number): MeasuredLoad | null {
  return load !== null && nowMs - load.atMs <= staleMs ? load : null
}
