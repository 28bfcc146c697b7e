import type { Blocks } from './blocks.ts'

/**
 * Gives up the coldest chains, tails first (decision 8). The hand passes over the entries in the order of their ids and
 * clears the touched byte of each; a block that was not touched since its last pass and has no child goes, and with it
 * its ancestors up to one that is touched or has another child. So what is left of a chain is always its beginning.
 */
export class Clock {
  readonly #blocks: Blocks
  #hand = 0
  /** The block under which a child is being stored. */
  pinned = 0

  constructor(blocks: Blocks) {
    this.#blocks = blocks
  }

  /** Evicts up to `wanted` blocks; the number that it did. */
  evict(wanted: number): number {
    const { entries } = this.#blocks
    let evicted = 0
    // After two rounds every byte was cleared once and looked at once.
    for (let left = 2 * entries.top; left > 0 && evicted < wanted; left--) {
      this.#hand = this.#hand + 1 >= entries.top ? 1 : this.#hand + 1
      const id = this.#hand
      if (entries.touched(id)) entries.putTouched(id, 0)
      else evicted += this.#evictUpwards(id, wanted - evicted)
    }
    return evicted
  }

  #evictUpwards(leaf: number, wanted: number): number {
    const { entries } = this.#blocks
    let evicted = 0
    let id = leaf
    for (; id !== 0 && evicted < wanted; evicted++) {
      if (entries.set(id) === 0 || entries.children(id) > 0 || entries.touched(id) || id === this.pinned) break
      const parent = entries.parent(id)
      this.#blocks.evict(id)
      id = parent
    }
    return evicted
  }
}
