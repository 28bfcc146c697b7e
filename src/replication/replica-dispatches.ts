import type { Dispatch } from '../routing/policy.ts'
import type { Worker } from '../workers/worker.ts'
import type { DispatchedRecord, FinishedRecord, FirstByteRecord } from './shared-record.ts'
import type { SharedWorkers } from './shared-workers.ts'

/** What a pool's policy is told of requests. */
export interface PolicyListener {
  dispatched(dispatch: Dispatch): void
  firstByte(dispatch: Dispatch, ttftMs: number): void
  finished(dispatch: Dispatch): void
}

export interface ReplicaDispatchesOptions {
  readonly workers: SharedWorkers
  readonly policyOf: (worker: Worker) => PolicyListener | null
}

/** Requests of one replica that are followed at a time; the oldest is given up first. */
const mostUnderWay = 4096
/** A request whose end nobody told of is given up after this. */
const mostMs = 600_000

interface Followed {
  readonly dispatch: Dispatch
  readonly policy: PolicyListener
}

/**
 * The requests that other replicas have sent, told to our own policy as if they were ours: what it learns of workers, how far
 * it thinks their queues to have come, and how it decides ties would else rest on a share of the requests only.
 */
export class ReplicaDispatches {
  readonly #o: ReplicaDispatchesOptions
  readonly #byReplica = new Map<string, Map<number, Followed>>()

  constructor(options: ReplicaDispatchesOptions) {
    this.#o = options
  }

  /** @param atMs when it was sent, by our own monotonic clock */
  dispatched(replica: string, record: DispatchedRecord, atMs: number): void {
    const worker = this.#o.workers.newest(record.worker)
    const policy = worker === undefined ? null : this.#o.policyOf(worker)
    const followed = this.#of(replica)
    if (worker === undefined || policy === null || followed.has(record.number)) return
    const { stream, promptTokens, uncachedTokens, loadTokens, prefillTokensAhead, requestsAhead, session } = record
    const dispatch: Dispatch = {
      ...{ serial: worker.serial, promptTokens, uncachedTokens, loadTokens },
      ...{ prefillTokensAhead, requestsAhead, stream, atMs, session },
      ...{ keys: null, adapter: null, maxTokens: null },
    }
    followed.set(record.number, { dispatch, policy })
    policy.dispatched(dispatch)
    if (followed.size <= mostUnderWay) return
    const [oldest] = followed.keys()
    if (oldest !== undefined) this.#finish(followed, oldest)
  }

  firstByte(replica: string, { number, ttftMs }: FirstByteRecord): void {
    const entry = this.#byReplica.get(replica)?.get(number)
    entry?.policy.firstByte(entry.dispatch, ttftMs)
  }

  finished(replica: string, { number }: FinishedRecord): void {
    const followed = this.#byReplica.get(replica)
    if (followed !== undefined) this.#finish(followed, number)
  }

  /** The replica is gone, and its requests with it. */
  forget(replica: string): void {
    const followed = this.#byReplica.get(replica)
    if (followed === undefined) return
    for (const number of followed.keys()) this.#finish(followed, number)
    this.#byReplica.delete(replica)
  }

  expire(nowMs: number): void {
    for (const followed of this.#byReplica.values()) {
      for (const [number, { dispatch }] of followed) {
        // The oldest come first.
        if (nowMs - dispatch.atMs < mostMs) break
        this.#finish(followed, number)
      }
    }
  }

  get count(): number {
    let count = 0
    for (const followed of this.#byReplica.values()) count += followed.size
    return count
  }

  #of(replica: string): Map<number, Followed> {
    let followed = this.#byReplica.get(replica)
    if (followed === undefined) {
      followed = new Map()
      this.#byReplica.set(replica, followed)
    }
    return followed
  }

  #finish(followed: Map<number, Followed>, number: number): void {
    const entry = followed.get(number)
    if (entry === undefined) return
    followed.delete(number)
    entry.policy.finished(entry.dispatch)
  }
}
