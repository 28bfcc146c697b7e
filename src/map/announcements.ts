import { Aliases, firstWord, maxStoreCount } from './aliases.ts'
import type { Blocks } from './blocks.ts'
import type { Holder } from './holders.ts'
import { memberIncarnationShift } from './layout.ts'
import type { Reclaim } from './reclaim.ts'
import type { Tombstones } from './tombstones.ts'

/** `resolve` found that the block was given up for the budget. */
export const evicted = -1

export interface AnnouncedChanges {
  /** Low and high word of the engine hash, tier and group as in `aliasPlace`. */
  note(incarnation: number, hashLow: number, hashHigh: number, place: number): void
}

/** What workers have announced under their own engine hashes: aliases and blocks kept in step. */
export class Announcements {
  readonly #aliases: Aliases
  readonly #blocks: Blocks
  readonly #tombstones: Tombstones
  readonly #reclaim: Reclaim
  /** Hears of every change of a block's store count, while somebody listens. */
  changes: AnnouncedChanges | null = null
  /** Of the block that `lookUp` found. */
  storeCount = 0

  constructor(aliases: Aliases, blocks: Blocks, tombstones: Tombstones, reclaim: Reclaim) {
    this.#aliases = aliases
    this.#blocks = blocks
    this.#tombstones = tombstones
    this.#reclaim = reclaim
  }

  /** The entry that a hash names for a worker; 0: unknown, `evicted`: given up for the budget. */
  resolve(holder: Holder, hashLow: number, hashHigh: number): number {
    const aliases = this.#aliases
    const low = hashLow | 0
    const high = hashHigh | 0
    aliases.probe(holder.incarnation, low, high, -1)
    for (const at of aliases.others) if (this.#isLive(at)) return aliases.entry(at)
    if (aliases.others.length > 0) return evicted
    return this.#tombstones.has(firstWord(holder.incarnation, low, high), high) ? evicted : 0
  }

  /**
   * Stores one block: its alias, its entry and its member, the key being the one that another tier or group knows it by, if any, and else the given one. The
   * entry's id, or 0 where there is no room. A store count of 0 is that of a block which is held once however often it is
   * said to be. `found` may be the entry of the key, where the caller knows it: that spares looking for it.
   */
  hold(
    holder: Holder,
    hashLow: number,
    hashHigh: number,
    place: number,
    low: number,
    high: number,
    parent: number,
    storeCount: number,
    found = 0,
  ): number {
    const aliases = this.#aliases
    const blocks = this.#blocks
    const { incarnation } = holder
    this.changes?.note(incarnation, hashLow, hashHigh, place)
    let wasKnown = false
    for (let round = 0; ; round++) {
      let keyLow = low
      let keyHigh = high
      let hung = parent
      let isKnown = false
      aliases.probe(incarnation, hashLow, hashHigh, place)
      if (aliases.exact >= 0 && this.#isLive(aliases.exact)) return this.#holdAgain(holder, storeCount)
      for (const at of aliases.others) {
        if (!this.#isLive(at)) continue
        keyLow = blocks.entries.keyLow(aliases.entry(at))
        keyHigh = blocks.entries.keyHigh(aliases.entry(at))
        hung = 0
        isKnown = true
      }
      // The given key may mean nothing where another tier or group knew the block: that one was just evicted to make room.
      if (wasKnown && !isKnown) return 0
      wasKnown = isKnown
      if (aliases.exact >= 0) aliases.delete(aliases.exact)
      if (aliases.reserve() && blocks.reserve(keyLow)) {
        const known = blocks.entries.hasKey(found, keyLow, keyHigh) ? found : blocks.index.find(keyLow, keyHigh)
        const isDouble = known !== 0 && blocks.isHeld(known, (incarnation << memberIncarnationShift) | place)
        const hasRoom = !isDouble || holder.doubles.add(known, place)
        const id = hasRoom ? blocks.hold(known, keyLow, keyHigh, hung, holder, place) : 0
        if (id !== 0) {
          aliases.insert(incarnation, place, id, Math.max(1, Math.min(storeCount, maxStoreCount)))
          return id
        }
      }
      if (!this.#reclaim.makeRoom(parent, round)) return 0
    }
  }

  /** Takes back one store of a block; false: the worker holds no such block. */
  release(holder: Holder, hashLow: number, hashHigh: number, place: number): boolean {
    const aliases = this.#aliases
    // Also where nothing is found: the block may have been seen before it was evicted.
    this.changes?.note(holder.incarnation, hashLow, hashHigh, place)
    aliases.probe(holder.incarnation, hashLow, hashHigh, place)
    const at = aliases.exact
    if (at < 0) {
      this.#tombstones.delete(firstWord(holder.incarnation, hashLow, hashHigh), hashHigh)
      return false
    }
    const isLive = this.#isLive(at)
    const storeCount = aliases.storeCount(at)
    if (isLive && holder.countsStores && storeCount > 1) {
      aliases.putStoreCount(at, storeCount - 1)
      return true
    }
    this.#takeOut(holder, at, place, isLive)
    return isLive
  }

  /** The entry of a block that a worker holds under this hash and place, or 0; its store count is in `storeCount`. */
  lookUp(incarnation: number, hashLow: number, hashHigh: number, place: number): number {
    const aliases = this.#aliases
    aliases.probe(incarnation, hashLow, hashHigh, place)
    const at = aliases.exact
    if (at < 0 || !this.#isLive(at)) return 0
    this.storeCount = aliases.storeCount(at)
    return aliases.entry(at)
  }

  /** Takes a block back wholly, however often it was stored. */
  forget(holder: Holder, hashLow: number, hashHigh: number, place: number): void {
    const aliases = this.#aliases
    aliases.probe(holder.incarnation, hashLow, hashHigh, place)
    const at = aliases.exact
    if (at >= 0) this.#takeOut(holder, at, place, this.#isLive(at))
  }

  /** Remembers that a block was given up, so that its children are given up too. */
  refuse(holder: Holder, hashLow: number, hashHigh: number): void {
    this.#tombstones.add(firstWord(holder.incarnation, hashLow, hashHigh), hashHigh)
  }

  /** A block that its alias already names: one more store of it. */
  #holdAgain(holder: Holder, storeCount: number): number {
    const aliases = this.#aliases
    const at = aliases.exact
    if (holder.countsStores) aliases.putStoreCount(at, Math.min(aliases.storeCount(at) + storeCount, maxStoreCount))
    const id = aliases.entry(at)
    this.#blocks.entries.putTouched(id, 1)
    return id
  }

  #takeOut(holder: Holder, at: number, place: number, isLive: boolean): void {
    const id = this.#aliases.entry(at)
    if (isLive && !holder.doubles.remove(id, place)) this.#blocks.drop(id, holder, place)
    this.#aliases.delete(at)
  }

  #isLive(at: number): boolean {
    const aliases = this.#aliases
    return (
      aliases.isCurrent(at) &&
      this.#blocks.isHeld(aliases.entry(at), (aliases.incarnation(at) << memberIncarnationShift) | aliases.place(at))
    )
  }
}
