import type { WorkerSlot } from '../kv/batch.ts'
import type { SentPrompts, UnderWay } from '../map/sent-prompts.ts'
import { ReplicaRequests } from './replica-requests.ts'
import type { AnsweredRecord, ComputedRecord, EndedRecord, PromptRecord } from './shared-record.ts'
import type { SharedWorkers } from './shared-workers.ts'

export interface ReplicaPromptsOptions {
  readonly workers: SharedWorkers
  /** What our own prompts go through, but one that tells nobody. */
  readonly sentPrompts: SentPrompts
}

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
  readonly #followed: ReplicaRequests<Followed>

  constructor(options: ReplicaPromptsOptions) {
    this.#o = options
    this.#followed = new ReplicaRequests(({ underWay }) => options.sentPrompts.ended(underWay))
  }

  /** @param sentAtMs by our own monotonic clock */
  sent(replica: string, record: PromptRecord, sentAtMs: number): void {
    const { number, blockSize, firstBlock, believedBlocks, keys, assumed } = record
    const worker = this.#o.workers.newest(record.worker)
    // Counted in other blocks than ours it would be taken for something else.
    if (worker === undefined || worker.blockSize !== blockSize || keys.length === 0) return
    if (this.#followed.get(replica, number) !== undefined) return
    const { slot, capacityBlocks } = worker
    const prompt = { slot: slot as WorkerSlot, blockSize, keys, firstBlock, believedBlocks, capacityBlocks }
    const predictedMs = Math.min(record.predictedMs, mostPredictedMs)
    this.#followed.add(replica, number, { underWay: this.#o.sentPrompts.sent(prompt, predictedMs, sentAtMs), assumed })
  }

  computed(replica: string, { number }: ComputedRecord, nowMs: number): void {
    const entry = this.#followed.get(replica, number)
    if (entry === undefined) return
    this.#o.sentPrompts.computed(entry.underWay, nowMs)
    if (!entry.assumed) this.#followed.drop(replica, number)
  }

  answered(replica: string, { number, foundBlocks }: AnsweredRecord, nowMs: number): void {
    const entry = this.#followed.get(replica, number)
    if (entry === undefined) return
    this.#o.sentPrompts.found(entry.underWay, foundBlocks, nowMs)
    this.#followed.end(replica, number)
  }

  ended(replica: string, { number }: EndedRecord): void {
    this.#followed.end(replica, number)
  }

  /** The replica is gone, and its requests with it. */
  forget(replica: string): void {
    this.#followed.forget(replica)
  }

  /** Lets those go that nobody expects any more. */
  expire(nowMs: number): void {
    this.#followed.endWhere(({ underWay, assumed }) => !assumed && underWay.expected.untilMs <= nowMs)
  }

  get count(): number {
    return this.#followed.count
  }
}
