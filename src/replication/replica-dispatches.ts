import type { Dispatch } from '../routing/policy.ts'
import type { Worker } from '../workers/worker.ts'
import { ReplicaRequests } from './replica-requests.ts'
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
  readonly #followed = new ReplicaRequests<Followed>(({ dispatch, policy }) => policy.finished(dispatch))

  constructor(options: ReplicaDispatchesOptions) {
    this.#o = options
  }

  /** @param atMs when it was sent, by our own monotonic clock */
  dispatched(replica: string, record: DispatchedRecord, atMs: number): void {
    const worker = this.#o.workers.newest(record.worker)
    const policy = worker === undefined ? null : this.#o.policyOf(worker)
    if (worker === undefined || policy === null || this.#followed.get(replica, record.number) !== undefined) return
    const { stream, promptTokens, uncachedTokens, loadTokens, prefillTokensAhead, requestsAhead, session } = record
    const dispatch: Dispatch = {
      ...{ serial: worker.serial, promptTokens, uncachedTokens, loadTokens },
      ...{ prefillTokensAhead, requestsAhead, stream, atMs, session },
      ...{ keys: null, adapter: null, maxTokens: null },
    }
    policy.dispatched(dispatch)
    this.#followed.add(replica, record.number, { dispatch, policy })
  }

  firstByte(replica: string, { number, ttftMs }: FirstByteRecord): void {
    const entry = this.#followed.get(replica, number)
    entry?.policy.firstByte(entry.dispatch, ttftMs)
  }

  finished(replica: string, { number }: FinishedRecord): void {
    this.#followed.end(replica, number)
  }

  /** The replica is gone, and its requests with it. */
  forget(replica: string): void {
    this.#followed.forget(replica)
  }

  expire(nowMs: number): void {
    this.#followed.endOldest(({ dispatch }) => nowMs - dispatch.atMs >= mostMs)
  }

  get count(): number {
    return this.#followed.count
  }
}
