import type { Aliases } from './aliases.ts'
import type { Blocks } from './blocks.ts'

/** Blocks that are evicted together, so that reads of their places in the index do not wait for each other. */
const groupBlocks = 64
/** Entries that one call may pass; in the second half of them a touched block is no safer than another. */
const patienceEntries = 65_536

/**
 * Gives up the coldest chains, tails first (decision 8). The hand passes over the entries in the order of their ids and
 * clears the touched byte of each; a block that was not touched since its last pass and has no child goes, and with it
 * its ancestors up to one that is touched or has another child. So what is left of a chain is always its beginning.
 */
export class Clock {
  readonly #blocks: Blocks
  readonly #aliases: Aliases
  readonly #group = new Int32Array(groupBlocks)
  #hand = 0
  /** Where the way up a chain was broken off because enough was evicted. */
  #next = 0
  /** Keeps the reads that warm the cache from being optimized away. */
  #warm = 0
  /** The block under which a child is being stored. */
  pinned = 0

  constructor(blocks: Blocks, aliases: Aliases) {
    this.#blocks = blocks
    this.#aliases = aliases
  }

  /** Evicts up to `wanted` blocks; the number that it did. */
  evict(wanted: number): number {
    const { entries } = this.#blocks
    // After two rounds every byte was cleared once and looked at once.
    const steps = Math.min(2 * entries.top, patienceEntries)
    let evicted = this.#next === 0 ? 0 : this.#climb(this.#next, wanted)
    for (let left = steps; left > 0 && evicted < wanted; left--) {
      this.#hand = this.#hand + 1 >= entries.top ? 1 : this.#hand + 1
      const id = this.#hand
      if (entries.touched(id)) {
        entries.putTouched(id, 0)
        if (left > steps >>> 1) continue
      }
      for (let from = id; from !== 0 && evicted < wanted; from = this.#next) {
        evicted += this.#climb(from, wanted - evicted)
      }
    }
    return evicted
  }

  /** Evicts a block without children and its ancestors; where it must stop short, the next one is kept in mind. */
  #climb(leaf: number, wanted: number): number {
    const { entries, index } = this.#blocks
    const most = Math.min(wanted, groupBlocks)
    let count = 0
    let id = leaf
    for (; id !== 0 && count < most; count++) {
      const isLeaf = entries.children(id) === (count === 0 ? 0 : 1)
      if (!isLeaf || entries.set(id) === 0 || entries.touched(id) || id === this.pinned) break
      this.#group[count] = id
      id = entries.parent(id)
    }
    this.#next = count === most ? id : 0
    this.#warm ^= index.warmEntries(this.#group, count)
    let dead = 0
    for (let i = 0; i < count; i++) dead += this.#blocks.evict(this.#group[i] as number)
    this.#aliases.addDead(dead)
    return count
  }
}
