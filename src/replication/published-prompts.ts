import type { SentPromptsListener, UnderWay } from '../map/sent-prompts.ts'
import { mostPromptBlocks, type SharedRecord } from './shared-record.ts'
import type { SharedWorkers } from './shared-workers.ts'

export interface PublishedPromptsOptions {
  readonly workers: SharedWorkers
  /** Whether the worker's own events tell what it holds. */
  readonly isAnnounced: (slot: UnderWay['prompt']['slot']) => boolean
  /** False where nobody can be told now. */
  readonly tell: (record: SharedRecord) => boolean
}

interface Published {
  readonly number: number
  readonly assumed: boolean
}

/**
 * Tells other replicas of the prompts that we send. Of a worker with events it tells what is new there, from the first block
 * that the worker lacks to its first token; of one without, whole prompts and what became of them, so that all replicas
 * assume alike.
 */
export class PublishedPrompts implements SentPromptsListener {
  readonly #o: PublishedPromptsOptions
  readonly #published = new Map<UnderWay, Published>()
  #last = 0

  constructor(options: PublishedPromptsOptions) {
    this.#o = options
  }

  sent(underWay: UnderWay, predictedMs: number): void {
    const { prompt } = underWay
    const { slot, blockSize, believedBlocks, keys } = prompt
    const worker = this.#o.workers.at(slot)
    const blocks = keys.length / 2
    const assumed = !this.#o.isAnnounced(slot)
    const firstBlock = assumed ? 0 : believedBlocks
    if (worker === undefined || blocks <= firstBlock) return
    const number = ++this.#last
    const told = this.#o.tell({
      ...{ kind: 'prompt', number, worker: worker.id, assumed, blockSize, believedBlocks, firstBlock, predictedMs },
      keys: keys.subarray(2 * firstBlock, 2 * (firstBlock + mostPromptBlocks)),
    })
    if (told) this.#published.set(underWay, { number, assumed })
  }

  computed(underWay: UnderWay): void {
    const published = this.#published.get(underWay)
    if (published === undefined) return
    const { number, assumed } = published
    if (!assumed) this.#published.delete(underWay)
    this.#o.tell({ kind: 'computed', number })
  }

  answered(underWay: UnderWay, foundBlocks: number | null): void {
    const number = this.#done(underWay)
    if (number !== null) this.#o.tell({ kind: 'answered', number, foundBlocks })
  }

  ended(underWay: UnderWay): void {
    const number = this.#done(underWay)
    if (number !== null) this.#o.tell({ kind: 'ended', number })
  }

  /** Nobody hears us: what was told is forgotten, and expires where it is known. */
  forget(): void {
    this.#published.clear()
  }

  #done(underWay: UnderWay): number | null {
    const published = this.#published.get(underWay)
    this.#published.delete(underWay)
    return published?.number ?? null
  }
}
