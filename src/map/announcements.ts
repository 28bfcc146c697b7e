import { Aliases, firstWord, maxStoreCount } from './aliases.ts'
import type { Blocks } from './blocks.ts'
import type { Holder } from './holders.ts'
import { memberIncarnationShift } from './layout.ts'
import type { Reclaim } from './reclaim.ts'
import type { Tombstones } from './tombstones.ts'

/** `resolve` found that the block was given up for the budget. */
export const evicted = -1

/** What workers have announced under their own engine hashes: aliases and blocks kept in step. */
export class Announcements {
  readonly #aliases: Aliases
  readonly #blocks: Blocks
  readonly #tombstones: Tombstones
  readonly #reclaim: Reclaim

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
   * said to be.
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
  ): number {
    const aliases = this.#aliases
    const blocks = this.#blocks
    const { incarnation } = holder
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
        const known = blocks.index.find(keyLow, keyHigh)
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
    const id = aliases.entry(at)
    if (isLive && !holder.doubles.remove(id, place)) this.#blocks.drop(id, holder, place)
    aliases.delete(at)
    return isLive
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

  #isLive(at: number): boolean {
    const aliases = this.#aliases
    return (
      aliases.isCurrent(at) &&
      this.#blocks.isHeld(aliases.entry(at), (aliases.incarnation(at) << memberIncarnationShift) | aliases.place(at))
    )
  }
}
