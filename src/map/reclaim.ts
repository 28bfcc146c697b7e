import type { Blocks } from './blocks.ts'
import type { Clock } from './clock.ts'
import type { Sweep } from './sweep.ts'

/** Blocks that are evicted for one store that finds no room, so that the next ones find some. */
const evictedAtOnce = 64
/** A store that still finds no room after so many times is refused, and a share of the map is owed: one block in so many. */
const roundsPerStore = 4
const owedShare = 128

/**
 * Makes room at the byte budget, in bounded portions: no store waits for more than a few evictions and the sweep of the
 * partitions that it needs. What was too little is made up for by the stores after it.
 */
export class Reclaim {
  readonly #blocks: Blocks
  readonly #clock: Clock
  readonly #sweep: Sweep
  /** Nothing could be evicted; asked again in the next batch. */
  #isExhausted = false
  #owedBlocks = 0

  constructor(blocks: Blocks, clock: Clock, sweep: Sweep) {
    this.#blocks = blocks
    this.#clock = clock
    this.#sweep = sweep
  }

  /** For a block that is stored under `parent` and was refused `rounds` times; false: there is no room for it now. */
  makeRoom(parent: number, rounds: number): boolean {
    if (this.#isExhausted) return false
    if (rounds >= roundsPerStore) {
      this.#owedBlocks = Math.ceil(this.#blocks.entries.top / owedShare)
      return false
    }
    this.#clock.pinned = parent
    this.#isExhausted = this.#clock.evict(evictedAtOnce) === 0
    return !this.#isExhausted
  }

  /** After a batch: evicts what is owed, and sweeps, in step with the blocks that it stored. */
  settle(blocks: number): void {
    this.#clock.pinned = 0
    this.#isExhausted = false
    if (this.#owedBlocks > 0) {
      const evicted = this.#clock.evict(Math.min(2 * blocks, this.#owedBlocks))
      this.#owedBlocks = evicted === 0 ? 0 : this.#owedBlocks - evicted
    }
    this.#sweep.pay(blocks)
  }
}
