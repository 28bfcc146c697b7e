import type { Aliases } from './aliases.ts'
import type { AnnouncedChanges } from './announcements.ts'

/** {incarnation, hash low, hash high, place} */
const changeWords = 4
const firstCapacity = 1024

/** Blocks whose store count changed where a snapshot has been already. */
export class SnapshotChanges implements AnnouncedChanges {
  readonly #aliases: Aliases
  readonly #limit: number
  #words = new Int32Array(changeWords * firstCapacity)
  #head = 0
  #tail = 0
  /** Partitions of aliases below this one have been seen: what changes in the others will be. */
  passed = 0
  /** More changed than was taken out in time, and is lost. */
  isOverrun = false

  constructor(aliases: Aliases, limit: number) {
    this.#aliases = aliases
    this.#limit = limit
  }

  get count(): number {
    return (this.#tail - this.#head) / changeWords
  }

  note(incarnation: number, hashLow: number, hashHigh: number, place: number): void {
    if (this.#aliases.partitionOf(incarnation, hashLow, hashHigh) >= this.passed) return
    if (this.#tail === this.#words.length && !this.#makeRoom()) return
    const words = this.#words
    words[this.#tail] = incarnation
    words[this.#tail + 1] = hashLow
    words[this.#tail + 2] = hashHigh
    words[this.#tail + 3] = place
    this.#tail += changeWords
  }

  /** Takes the oldest changes out, at most so many. */
  take(most: number, see: (incarnation: number, hashLow: number, hashHigh: number, place: number) => void): void {
    const words = this.#words
    const end = Math.min(this.#tail, this.#head + changeWords * most)
    for (let at = this.#head; at < end; at += changeWords)
      see(words[at] as number, words[at + 1] as number, words[at + 2] as number, words[at + 3] as number)
    this.#head = end
    if (this.#head < this.#tail) return
    this.#head = 0
    this.#tail = 0
  }

  #makeRoom(): boolean {
    if (this.#head > 0) {
      this.#words.copyWithin(0, this.#head, this.#tail)
      this.#tail -= this.#head
      this.#head = 0
      return true
    }
    const capacity = Math.min(changeWords * this.#limit, 2 * this.#words.length)
    if (capacity <= this.#words.length) {
      this.isOverrun = true
      return false
    }
    const words = new Int32Array(capacity)
    words.set(this.#words)
    this.#words = words
    return true
  }
}
