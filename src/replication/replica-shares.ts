import { mostPerShare, type ReplicaShares } from '../workers/fleet-load.ts'
import type { Worker } from '../workers/worker.ts'
import type { LoadRecord } from './shared-record.ts'
import type { SharedWorkers } from './shared-workers.ts'

export interface LoadSharesOptions {
  readonly workers: SharedWorkers
  /** Slots of the fleet. */
  readonly slots: number
  /** Age beyond which a share is gone. Read anew each time. */
  readonly ttlMs: () => number
}

/** Figures of one worker in a row. */
const stride = 4
const requestsAt = 0
const sequencesAt = 1
const prefillTokensAt = 2
const decodeBlocksAt = 3

/** What one replica has in flight. */
interface Share {
  /** By slot. */
  readonly figures: Int32Array
  toldAtMs: number
}

/**
 * What other replicas have in flight on each worker, as they told last. A replica tells absolute figures, so that whatever
 * gets lost is mended by the next ones, and nothing can leak: a share counts until it is replaced, or until its replica has
 * been silent for the time to live. The sums over all replicas are kept, since decisions ask for those of every candidate.
 */
export class LoadShares implements ReplicaShares {
  readonly #o: LoadSharesOptions
  readonly #shares = new Map<string, Share>()
  /** By slot. Replicas are few and their shares bounded, so that 32 bits hold them. */
  readonly #sums: Int32Array

  constructor(options: LoadSharesOptions) {
    this.#o = options
    this.#sums = new Int32Array(options.slots * stride)
  }

  requests(slot: number): number {
    return this.#sums[slot * stride + requestsAt] as number
  }

  /** On all workers together. */
  get allRequests(): number {
    let sum = 0
    for (let at = requestsAt; at < this.#sums.length; at += stride) sum += this.#sums[at] as number
    return sum
  }

  sequences(slot: number): number {
    return this.#sums[slot * stride + sequencesAt] as number
  }

  prefillTokens(slot: number): number {
    return this.#sums[slot * stride + prefillTokensAt] as number
  }

  decodeBlocks(slot: number): number {
    return this.#sums[slot * stride + decodeBlocksAt] as number
  }

  /** @param toldAtMs when its replica told it, by our own monotonic clock */
  apply(replica: string, { full, workers }: LoadRecord, toldAtMs: number): void {
    let share = this.#shares.get(replica)
    if (share === undefined) {
      share = { figures: new Int32Array(this.#sums.length), toldAtMs }
      this.#shares.set(replica, share)
    }
    share.toldAtMs = Math.max(share.toldAtMs, toldAtMs)
    if (full) for (let at = 0; at < share.figures.length; at++) this.#put(share, at, 0)
    for (const { worker, requests, sequences, prefillTokens, decodeBlocks } of workers) {
      for (const { slot } of this.#o.workers.of(worker)) {
        const at = slot * stride
        this.#put(share, at + requestsAt, requests)
        this.#put(share, at + sequencesAt, sequences)
        this.#put(share, at + prefillTokensAt, prefillTokens)
        this.#put(share, at + decodeBlocksAt, decodeBlocks)
      }
    }
  }

  forget(replica: string): void {
    const share = this.#shares.get(replica)
    if (share === undefined) return
    for (let at = 0; at < share.figures.length; at++) this.#put(share, at, 0)
    this.#shares.delete(replica)
  }

  expire(nowMs: number): void {
    const ttlMs = this.#o.ttlMs()
    for (const [replica, { toldAtMs }] of this.#shares) if (nowMs - toldAtMs > ttlMs) this.forget(replica)
  }

  /** Since the replica that has been silent for longest told its share; null where there is none. */
  oldestMs(nowMs: number): number | null {
    let oldest: number | null = null
    for (const { toldAtMs } of this.#shares.values()) oldest = Math.max(oldest ?? 0, nowMs - toldAtMs)
    return oldest
  }

  /** A worker took its slot: what is known of one of its name holds for it, too. To be called before it is among `workers`. */
  added({ id, slot }: Worker): void {
    const before = this.#o.workers.newest(id)
    for (const share of this.#shares.values()) {
      for (let i = 0; i < stride; i++) {
        const known = before === undefined ? 0 : (share.figures[before.slot * stride + i] as number)
        this.#put(share, slot * stride + i, known)
      }
    }
  }

  removed({ slot }: Worker): void {
    for (const share of this.#shares.values()) for (let i = 0; i < stride; i++) this.#put(share, slot * stride + i, 0)
  }

  #put({ figures }: Share, at: number, figure: number): void {
    const bounded = Math.min(mostPerShare, Math.max(0, figure))
    this.#sums[at] = (this.#sums[at] as number) + bounded - (figures[at] as number)
    figures[at] = bounded
  }
}
