import type { WorkerSlot } from '../kv/batch.ts'
import type { Holder } from './holders.ts'
import type { MapParts } from './map-parts.ts'
import type { SnapshotPart } from './snapshot.ts'

export interface Standing {
  /** Epoch of the next batch: one of a newer epoch would clear what was restored. */
  readonly epoch: number
  /** Batches up to this sequence number change nothing; -1: all are new. */
  readonly lastSequence: number
  /** Readers give no credit for it before `FlatMap.reveal`: whether the worker still holds it has to be proved. */
  readonly isConcealed: boolean
}

/** What a snapshot says of one worker, in the map but in nobody's sight. */
export class StagedPart {
  readonly part: SnapshotPart
  readonly slot: WorkerSlot
  /** Gets the blocks. */
  readonly holder: Holder
  readonly #parts: MapParts
  readonly #worker: Holder
  readonly #epoch: number

  private constructor(parts: MapParts, part: SnapshotPart, worker: Holder) {
    this.part = part
    this.slot = worker.slot
    parts.reserveIncarnation()
    this.holder = parts.holders.stage(worker, part.groups, part.announced)
    this.#parts = parts
    this.#worker = worker
    this.#epoch = worker.epoch
  }

  /** Null where the worker has batches of its own already, or blocks of another size. */
  static of(parts: MapParts, part: SnapshotPart, slot: WorkerSlot): StagedPart | null {
    const worker = parts.holders.get(slot)
    if (worker === undefined || worker.lastSequence !== -1 || !fits(parts, part, slot)) return null
    return new StagedPart(parts, part, worker)
  }

  /** It still waits, and its worker has not gone. */
  get isWaiting(): boolean {
    return this.holder.isStaged
  }

  /**
   * Makes it what the worker holds, in one step however much it is. False: the worker got batches of its own or was
   * cleared meanwhile, and is left alone.
   */
  commit({ epoch, lastSequence, isConcealed }: Standing): boolean {
    const { holders, aliases } = this.#parts
    const worker = this.#worker
    const isUntouched = holders.get(this.slot) === worker && worker.lastSequence === -1 && worker.epoch === this.#epoch
    if (!this.isWaiting || !isUntouched || !fits(this.#parts, this.part, this.slot)) {
      this.discard()
      return false
    }
    if (holders.blockSize(this.slot) === 0) holders.putBlockSize(this.slot, this.part.blockSize)
    // What was assumed of it.
    aliases.addDead(heldBlocks(worker))
    Object.assign(this.holder, { epoch, lastSequence, isConcealed })
    holders.promote(this.holder, worker)
    return true
  }

  /** Forgets it. */
  discard(): void {
    if (!this.isWaiting) return
    this.#parts.aliases.addDead(heldBlocks(this.holder))
    this.#parts.holders.unstage(this.holder)
  }
}

/** Keys name blocks of one size. */
function fits({ holders }: MapParts, { blockSize, records }: SnapshotPart, slot: WorkerSlot): boolean {
  const own = holders.blockSize(slot)
  return own === 0 || own === blockSize || records === 0
}

function heldBlocks({ blocks }: Holder): number {
  return blocks.reduce((sum, ofTier) => sum + ofTier, 0)
}
