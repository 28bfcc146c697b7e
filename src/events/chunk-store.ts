import type { KvEvent, WorkerSlot } from '../kv/batch.ts'
import type { ApplyOutcome, CacheMap } from '../map/map.ts'
import { Forgetting, type ForgetLimit } from './forgetting.ts'

export interface ChunkStoreOptions {
  /** A place in the map of its own, beside those of workers. */
  readonly slot: WorkerSlot
  readonly map: CacheMap
  /** Workers whose blocks may be named here by hash alone, or be parents of what is stored here. */
  readonly kin: () => readonly WorkerSlot[]
  /** By tier. */
  readonly forget: readonly (ForgetLimit | undefined)[]
  /** Monotonic milliseconds. */
  readonly clock: () => number
  /** Something was stored that may be the parent of others' blocks. */
  readonly onStored?: () => void
  /** The store holds blocks of this size from now on, and none yet; null: it is closed. */
  readonly onBlockSize: (tokens: number | null) => void
}

/** A store whose source tells all that leaves it, as plain data. */
export interface LastingStore {
  /** Where it has told of removals. */
  readonly toldTiers: readonly number[]
}

/**
 * Blocks that are kept in another form than an engine's own: chunks of a host or disk store with a size and names of
 * their own, and whatever a store that no worker owns keeps. They have a place in the map of their own, so that their
 * runs are counted in their own size, their hashes mean nothing to the engine, and clearing one leaves the other.
 */
export class ChunkStore {
  readonly #o: ChunkStoreOptions
  readonly #forgetting: Forgetting
  #blockSize: number | null = null
  #epoch = 1
  #sequence = 0
  #kin: readonly WorkerSlot[] = []

  constructor(options: ChunkStoreOptions) {
    this.#o = options
    this.#forgetting = new Forgetting(options.forget)
  }

  get slot(): WorkerSlot {
    return this.#o.slot
  }

  /** Tokens in a block; null until something was stored. */
  get blockSize(): number | null {
    return this.#blockSize
  }

  /** Whether what leaves the store is told. */
  get tellsRemovals(): boolean {
    return this.#forgetting.isTold
  }

  /** Of its next batch. */
  get epoch(): number {
    return this.#epoch
  }

  /**
   * What a snapshot must tell of the store besides its blocks; null where there is nothing to keep, or where blocks count
   * for a time after they were stored, which no snapshot tells.
   */
  get lasting(): LastingStore | null {
    const { toldTiers } = this.#forgetting
    return this.#blockSize === null || toldTiers === null ? null : { toldTiers }
  }

  /** Goes on from what a snapshot told, and the map holds. After `open`. */
  resume({ toldTiers }: LastingStore): void {
    this.#forgetting.recall(toldTiers)
  }

  /** Takes blocks of this size. What was stored in another one is forgotten. */
  open(blockSize: number): void {
    const { map, slot, kin, onBlockSize } = this.#o
    const kinSlots = kin()
    if (blockSize === this.#blockSize && isSame(kinSlots, this.#kin)) return
    map.addWorker(slot, { countsStores: false, blockSize, kin: kinSlots })
    this.#kin = kinSlots
    if (blockSize === this.#blockSize) return
    if (this.#blockSize !== null) this.#forgetting.clear()
    this.#blockSize = blockSize
    onBlockSize(blockSize)
  }

  /** Applies what happened to the store, in its order. After `open`. */
  apply(events: readonly KvEvent[]): ApplyOutcome {
    const nowMs = this.#o.clock()
    for (const event of events) this.#forgetting.note(event, nowMs)
    // The map uses its outcome again when others adopt.
    const outcome = { ...this.#apply(events) }
    if (outcome.storedBlocks > 0) this.#o.onStored?.()
    return outcome
  }

  /** Finds the parents of its blocks that its kin has stored since. */
  adopt(): void {
    if (this.#blockSize === null) return
    this.open(this.#blockSize)
    this.#o.map.adopt(this.#o.slot)
  }

  /** To be called now and then: forgets what is too old. */
  tend(): void {
    if (this.#blockSize === null) return
    const due = this.#forgetting.due(this.#o.clock(), this.#blockSize)
    if (due.length > 0) this.#apply(due)
  }

  /** Forgets everything: what the store holds is not known any more. */
  clear(): void {
    if (this.#blockSize === null) return
    const { map, slot } = this.#o
    this.#epoch++
    this.#forgetting.clear()
    map.clear(slot, this.#epoch)
  }

  close(): void {
    if (this.#blockSize === null) return
    this.#blockSize = null
    this.#kin = []
    this.#forgetting.clear()
    this.#o.map.removeWorker(this.#o.slot)
    this.#o.onBlockSize(null)
  }

  #apply(events: readonly KvEvent[]): ApplyOutcome {
    const { map, slot } = this.#o
    return map.apply({ worker: slot, epoch: this.#epoch, sequence: this.#sequence++, events })
  }
}

/** Asked for every batch. */
function isSame(slots: readonly WorkerSlot[], others: readonly WorkerSlot[]): boolean {
  return slots.length === others.length && slots.every((slot, i) => slot === others[i])
}
