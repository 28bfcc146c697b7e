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

/** One worker's orphans, bounded in number and bytes; the oldest is dropped for the newest. */
export class Orphans {
  readonly #limits: OrphanLimits
  /** In order of arrival. */
  #byBlock = new Map<string, Orphan>()
  /** Under the block's own hash and its parent's: either, once known, gives the block its key. */
  #waiting = new Map<string, Set<Orphan>>()
  dropped: number

  constructor(limits: OrphanLimits, dropped = 0) {
    this.#limits = limits
    this.dropped = dropped
  }

  get count(): number {
    return this.#byBlock.size
  }

  add(orphan: Orphan, countsStores: boolean): void {
    const name = blockName(orphan.hashLow, orphan.hashHigh, orphan.tier, orphan.group)
    const known = this.#byBlock.get(name)
    if (known !== undefined) {
      if (countsStores) known.storeCount += orphan.storeCount
      return
    }
    if (this.#byBlock.size >= this.#limits.perWorker) this.#dropOldest()
    let hasRoom = this.#takeBytes()
    if (!hasRoom && this.#byBlock.size > 0) {
      this.#dropOldest()
      hasRoom = this.#takeBytes()
    }
    if (!hasRoom) {
      this.dropped++
      return
    }
    this.#byBlock.set(name, orphan)
    this.#wait(hashName(orphan.hashLow, orphan.hashHigh), orphan)
    this.#wait(hashName(orphan.parentLow, orphan.parentHigh), orphan)
  }

  /** A removal of a waiting block; false: no such block waits. */
  remove(hashLow: number, hashHigh: number, tier: number, group: number, countsStores: boolean): boolean {
    const orphan = this.#byBlock.get(blockName(hashLow, hashHigh, tier, group))
    if (orphan === undefined) return false
    orphan.storeCount--
    if (!countsStores || orphan.storeCount <= 0) this.#forget(orphan)
    return true
  }

  /** Takes out every block that waited for this hash, as its parent's or its own. */
  take(hashLow: number, hashHigh: number): Orphan[] {
    const waiting = this.#waiting.get(hashName(hashLow, hashHigh))
    if (waiting === undefined) return []
    const orphans = [...waiting]
    for (const orphan of orphans) this.#forget(orphan)
    return orphans
  }

  /** Forgets all of them, in a time that does not depend on their number. */
  clear(): void {
    const bytes = orphanBytes * this.#byBlock.size
    this.#limits.pool.give(bytes)
    this.#limits.budget.give(bytes)
    this.#byBlock = new Map()
    this.#waiting = new Map()
  }

  #dropOldest(): void {
    for (const orphan of this.#byBlock.values()) {
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

  #wait(name: string, orphan: Orphan): void {
    const waiting = this.#waiting.get(name)
    if (waiting === undefined) this.#waiting.set(name, new Set([orphan]))
    else waiting.add(orphan)
  }

  #forget(orphan: Orphan): void {
    this.#limits.pool.give(orphanBytes)
    this.#limits.budget.give(orphanBytes)
    this.#byBlock.delete(blockName(orphan.hashLow, orphan.hashHigh, orphan.tier, orphan.group))
    for (const name of [hashName(orphan.hashLow, orphan.hashHigh), hashName(orphan.parentLow, orphan.parentHigh)]) {
      const waiting = this.#waiting.get(name)
      waiting?.delete(orphan)
      if (waiting?.size === 0) this.#waiting.delete(name)
    }
  }
}

function hashName(low: number, high: number): string {
  return `${low >>> 0}:${high >>> 0}`
}

function blockName(low: number, high: number, tier: number, group: number): string {
  return `${low >>> 0}:${high >>> 0}:${tier}:${group}`
}
