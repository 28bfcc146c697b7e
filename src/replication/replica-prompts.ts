import type { WorkerSlot } from '../kv/batch.ts'
import type { SentPrompts, UnderWay } from '../map/sent-prompts.ts'
import type { AnsweredRecord, ComputedRecord, EndedRecord, PromptRecord } from './shared-record.ts'
import type { SharedWorkers } from './shared-workers.ts'

export interface ReplicaPromptsOptions {
  readonly workers: SharedWorkers
  /** What our own prompts go through, but one that tells nobody. */
  readonly sentPrompts: SentPrompts
}

/** Prompts of one replica that are remembered at a time; the oldest is forgotten first. */
const mostUnderWay = 4096
/** However long a prefill is said to take. */
const mostPredictedMs = 150_000

interface Followed {
  readonly underWay: UnderWay
  /** What it leaves behind is assumed by us as by its replica, until its answer has come. */
  readonly assumed: boolean
}

/**
 * The prompts that other replicas have sent, which count here as our own do: expected on their workers until they are
 * computed, then held where no events tell.
 */
export class ReplicaPrompts {
  readonly #o: ReplicaPromptsOptions
  readonly #byReplica = new Map<string, Map<number, Followed>>()

  constructor(options: ReplicaPromptsOptions) {
    this.#o = options
  }

  /** @param sentAtMs by our own monotonic clock */
  sent(replica: string, record: PromptRecord, sentAtMs: number): void {
    const { number, blockSize, firstBlock, believedBlocks, keys, assumed } = record
    const worker = this.#o.workers.newest(record.worker)
    // Counted in other blocks than ours it would be taken for something else.
    if (worker === undefined || worker.blockSize !== blockSize || keys.length === 0) return
    const followed = this.#of(replica)
    if (followed.has(number)) return
    const { slot, capacityBlocks } = worker
    const prompt = { slot: slot as WorkerSlot, blockSize, keys, firstBlock, believedBlocks, capacityBlocks }
    const predictedMs = Math.min(record.predictedMs, mostPredictedMs)
    followed.set(number, { underWay: this.#o.sentPrompts.sent(prompt, predictedMs, sentAtMs), assumed })
    if (followed.size <= mostUnderWay) return
    const [oldest] = followed.keys()
    if (oldest !== undefined) this.#end(followed, oldest)
  }

  computed(replica: string, { number }: ComputedRecord, nowMs: number): void {
    const followed = this.#byReplica.get(replica)
    const entry = followed?.get(number)
    if (entry === undefined) return
    this.#o.sentPrompts.computed(entry.underWay, nowMs)
    if (!entry.assumed) followed?.delete(number)
  }

  answered(replica: string, { number, foundBlocks }: AnsweredRecord, nowMs: number): void {
    const followed = this.#byReplica.get(replica)
    const entry = followed?.get(number)
    if (followed === undefined || entry === undefined) return
    this.#o.sentPrompts.found(entry.underWay, foundBlocks, nowMs)
    this.#end(followed, number)
  }

  ended(replica: string, { number }: EndedRecord): void {
    const followed = this.#byReplica.get(replica)
    if (followed !== undefined) this.#end(followed, number)
  }

  /** The replica is gone, and its requests with it. */
  forget(replica: string): void {
    const followed = this.#byReplica.get(replica)
    if (followed === undefined) return
    for (const number of followed.keys()) this.#end(followed, number)
    this.#byReplica.delete(replica)
  }

  /** Lets those go that nobody expects any more. */
  expire(nowMs: number): void {
    for (const followed of this.#byReplica.values()) {
      for (const [number, { underWay, assumed }] of followed)
        if (!assumed && underWay.expected.untilMs <= nowMs) this.#end(followed, number)
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

  #end(followed: Map<number, Followed>, number: number): void {
    const entry = followed.get(number)
    if (entry === undefined) return
    followed.delete(number)
    this.#o.sentPrompts.ended(entry.underWay)
  }
}
