import { mostPerShare, type ReplicaShare, type ReplicaShares } from '../workers/fleet-load.ts'
import type { Worker } from '../workers/worker.ts'
import type { LoadRecord, WorkerFigures } from './shared-record.ts'
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

/** What one replica has in flight. */
interface Told {
  /** By slot: requests, sequences, prefill tokens, decode blocks. */
  readonly figures: Int32Array
  toldAtMs: number
}

/**
 * What other replicas have in flight on each worker, as they told last. A replica tells absolute figures, so that whatever
 * gets lost is mended by the next ones, and nothing can leak: it counts until it is replaced, or until its replica has been
 * silent for the time to live. Ages are told apart as finely as `tick` is called.
 */
export class LoadShares implements ReplicaShares {
  readonly #o: LoadSharesOptions
  readonly #byReplica = new Map<string, Told>()
  /** The same in a row: decisions walk it for every candidate. */
  #told: readonly Told[] = []
  #nowMs = 0
  /** Handed out and filled anew each time. */
  readonly #share: { -readonly [Field in keyof ReplicaShare]: number } = {
    requests: 0,
    sequences: 0,
    prefillTokens: 0,
    decodeBlocks: 0,
    ageMs: 0,
  }

  constructor(options: LoadSharesOptions) {
    this.#o = options
  }

  each(slot: number, add: (share: ReplicaShare) => void): void {
    const told = this.#told
    if (told.length === 0) return
    const ttlMs = this.#o.ttlMs()
    const share = this.#share
    const at = slot * stride
    for (let i = 0; i < told.length; i++) {
      const { figures, toldAtMs } = told[i] as Told
      const ageMs = this.#nowMs - toldAtMs
      if (ageMs > ttlMs) continue
      share.requests = figures[at] as number
      share.sequences = figures[at + 1] as number
      share.prefillTokens = figures[at + 2] as number
      share.decodeBlocks = figures[at + 3] as number
      share.ageMs = ageMs
      add(share)
    }
  }

  /** @param toldAtMs when its replica told it, by our own monotonic clock */
  apply(replica: string, { full, workers }: LoadRecord, toldAtMs: number): void {
    let told = this.#byReplica.get(replica)
    if (told === undefined) {
      told = { figures: new Int32Array(this.#o.slots * stride), toldAtMs }
      this.#byReplica.set(replica, told)
      this.#told = [...this.#byReplica.values()]
    }
    told.toldAtMs = Math.max(told.toldAtMs, toldAtMs)
    if (full) told.figures.fill(0)
    for (const figures of workers) {
      for (const { slot } of this.#o.workers.of(figures.worker)) write(told.figures, slot * stride, figures)
    }
  }

  forget(replica: string): void {
    if (this.#byReplica.delete(replica)) this.#told = [...this.#byReplica.values()]
  }

  /** A worker took its slot: what is known of one of its name holds for it, too. To be called before it is among `workers`. */
  added({ id, slot }: Worker): void {
    const before = this.#o.workers.newest(id)
    for (const { figures } of this.#told) {
      const at = slot * stride
      figures.fill(0, at, at + stride)
      if (before !== undefined) figures.copyWithin(at, before.slot * stride, (before.slot + 1) * stride)
    }
  }

  removed({ slot }: Worker): void {
    for (const { figures } of this.#told) figures.fill(0, slot * stride, (slot + 1) * stride)
  }

  tick(nowMs: number): void {
    this.#nowMs = Math.max(this.#nowMs, nowMs)
  }
}

function write(into: Int32Array, at: number, figures: WorkerFigures): void {
  into[at] = bounded(figures.requests)
  into[at + 1] = bounded(figures.sequences)
  into[at + 2] = bounded(figures.prefillTokens)
  into[at + 3] = bounded(figures.decodeBlocks)
}

function bounded(figure: number): number {
  return Math.min(mostPerShare, Math.max(0, figure))
}
