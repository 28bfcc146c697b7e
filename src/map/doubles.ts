import type { Budget } from './budget.ts'

/** What one of them costs in memory, by a generous estimate of its place in a Map. */
export const doubleBytes = 64
const placesPerEntry = 32

/**
 * Engine hashes of one worker beyond the first that name one held block, counted by entry and place: engines tell apart
 * what our keys do not, and the block is held until all of its hashes are removed.
 */
export class Doubles {
  readonly #budget: Budget
  #hashes = new Map<number, number>()

  constructor(budget: Budget) {
    this.#budget = budget
  }

  /** Counts one more hash of a block; false: the budget has no room. */
  add(id: number, place: number): boolean {
    const name = id * placesPerEntry + place
    const known = this.#hashes.get(name)
    if (known === undefined && !this.#budget.take(doubleBytes)) return false
    this.#hashes.set(name, (known ?? 0) + 1)
    return true
  }

  /** Takes one hash of a block back; false: the block has only one. */
  remove(id: number, place: number): boolean {
    if (this.#hashes.size === 0) return false
    const name = id * placesPerEntry + place
    const hashes = this.#hashes.get(name)
    if (hashes === undefined) return false
    if (hashes === 1) this.#delete(name)
    else this.#hashes.set(name, hashes - 1)
    return true
  }

  /** Forgets a block in all of its places. */
  forget(id: number): void {
    if (this.#hashes.size === 0) return
    for (let place = 0; place < placesPerEntry; place++) this.#delete(id * placesPerEntry + place)
  }

  clear(): void {
    this.#budget.give(doubleBytes * this.#hashes.size)
    this.#hashes = new Map()
  }

  #delete(name: number): void {
    if (this.#hashes.delete(name)) this.#budget.give(doubleBytes)
  }
}
