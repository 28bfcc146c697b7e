import type { Budget } from './budget.ts'

/** A stored block whose parent the worker has not announced yet (decision 7). */
export interface Orphan {
  readonly hashLow: number
  readonly hashHigh: number
  readonly parentLow: number
  readonly parentHigh: number
  readonly localLow: number
  readonly localHigh: number
  readonly tier: number
  readonly group: number
  storeCount: number
}

export interface OrphanLimits {
  readonly perWorker: number
  /** What all workers' orphans may take together, so that they never push the map out of its own budget. */
  readonly pool: Budget
  /** The map's budget, of which the pool is a part. */
  readonly budget: Budget
}

/** What one orphan costs in memory, by a generous estimate: the record, its key and its places in two tables. */
export const orphanBytes = 512

/**
 * One worker's orphans, bounded in number and bytes; the oldest is dropped for the newest. Tables are asked by the low word
 * of a hash, and what they answer is compared in full.
 */
export class Orphans {
  readonly #limits: OrphanLimits
  /** In order of arrival. */
  #all = new Set<Orphan>()
  /** By the block's own hash and by its parent's: either, once known, gives the block its key. */
  #byBlock = new Map<number, Orphan[]>()
  #byParent = new Map<number, Set<Orphan>>()
  dropped: number

  constructor(limits: OrphanLimits, dropped = 0) {
    this.#limits = limits
    this.dropped = dropped
  }

  get count(): number {
    return this.#all.size
  }

  add(orphan: Orphan, countsStores: boolean): void {
    const known = this.#find(orphan.hashLow, orphan.hashHigh, orphan.tier, orphan.group)
    if (known !== undefined) {
      if (countsStores) known.storeCount += orphan.storeCount
      return
    }
    if (this.#all.size >= this.#limits.perWorker) this.#dropOldest()
    let hasRoom = this.#takeBytes()
    if (!hasRoom && this.#all.size > 0) {
      this.#dropOldest()
      hasRoom = this.#takeBytes()
    }
    if (!hasRoom) {
      this.dropped++
      return
    }
    this.#all.add(orphan)
    const sameHash = this.#byBlock.get(orphan.hashLow >>> 0)
    if (sameHash === undefined) this.#byBlock.set(orphan.hashLow >>> 0, [orphan])
    else sameHash.push(orphan)
    const siblings = this.#byParent.get(orphan.parentLow >>> 0)
    if (siblings === undefined) this.#byParent.set(orphan.parentLow >>> 0, new Set([orphan]))
    else siblings.add(orphan)
  }

  /** A removal of a waiting block; false: no such block waits. */
  remove(hashLow: number, hashHigh: number, tier: number, group: number, countsStores: boolean): boolean {
    if (this.#all.size === 0) return false
    const orphan = this.#find(hashLow, hashHigh, tier, group)
    if (orphan === undefined) return false
    orphan.storeCount--
    if (!countsStores || orphan.storeCount <= 0) this.#forget(orphan)
    return true
  }

  /** Whether `take` may find something: some block waits for a hash with this low word. */
  mayAwait(hashLow: number): boolean {
    return this.#byParent.has(hashLow >>> 0) || this.#byBlock.has(hashLow >>> 0)
  }

  /** Takes out every block that waited for this hash, as its parent's or its own. */
  take(hashLow: number, hashHigh: number): Orphan[] {
    const taken: Orphan[] = []
    for (const orphan of this.#byBlock.get(hashLow >>> 0) ?? []) {
      if (isSame(orphan.hashHigh, hashHigh)) taken.push(orphan)
    }
    for (const orphan of this.#byParent.get(hashLow >>> 0) ?? []) {
      const isTaken = isSame(orphan.hashLow, hashLow) && isSame(orphan.hashHigh, hashHigh)
      if (isSame(orphan.parentHigh, hashHigh) && !isTaken) taken.push(orphan)
    }
    for (const orphan of taken) this.#forget(orphan)
    return taken
  }

  /** Takes out every block whose parent is known by now. */
  takeChildrenOf(isKnown: (hashLow: number, hashHigh: number) => boolean): Orphan[] {
    const taken = [...this.#all].filter(({ parentLow, parentHigh }) => isKnown(parentLow, parentHigh))
    for (const orphan of taken) this.#forget(orphan)
    return taken
  }

  /** Forgets all of them, in a time that does not depend on their number. */
  clear(): void {
    const bytes = orphanBytes * this.#all.size
    this.#limits.pool.give(bytes)
    this.#limits.budget.give(bytes)
    this.#all = new Set()
    this.#byBlock = new Map()
    this.#byParent = new Map()
  }

  #find(hashLow: number, hashHigh: number, tier: number, group: number): Orphan | undefined {
    return this.#byBlock
      .get(hashLow >>> 0)
      ?.find((orphan) => isSame(orphan.hashHigh, hashHigh) && orphan.tier === tier && orphan.group === group)
  }

  #dropOldest(): void {
    for (const orphan of this.#all) {
      this.#forget(orphan)
      this.dropped++
      return
    }
  }

  #takeBytes(): boolean {
    if (!this.#limits.pool.take(orphanBytes)) return false
    if (this.#limits.budget.take(orphanBytes)) return true
    this.#limits.pool.give(orphanBytes)
    return false
  }

  #forget(orphan: Orphan): void {
    this.#limits.pool.give(orphanBytes)
    this.#limits.budget.give(orphanBytes)
    this.#all.delete(orphan)
    const own = orphan.hashLow >>> 0
    const sameHash = this.#byBlock.get(own) ?? []
    if (sameHash.length <= 1) this.#byBlock.delete(own)
    else sameHash.splice(sameHash.indexOf(orphan), 1)
    const siblings = this.#byParent.get(orphan.parentLow >>> 0)
    siblings?.delete(orphan)
    if (siblings?.size === 0) this.#byParent.delete(orphan.parentLow >>> 0)
  }
}

/** Words come signed and unsigned. */
function isSame(word: number, other: number): boolean {
  return (word | 0) === (other | 0)
}
