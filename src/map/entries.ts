import type { Budget } from './budget.ts'
import type { MapMemory } from './layout.ts'
import { countsWord, entryWords, keyHighWord, keyLowWord, parentWord, setWord } from './layout.ts'

/** Bytes of an entry with its touched byte and its evicted bit. */
export const entryBytes = 4 * entryWords + 1.125
/** Ids are taken into use so many at a time, to ask the budget seldom. */
const stepEntries = 64

/** Alias count in the low twelve bits, children above; a count at its top stays there, and so does its entry. */
const aliasBits = 12
const maxAliases = (1 << aliasBits) - 1
const maxChildren = (1 << (31 - aliasBits)) - 1

/**
 * The entries, one a block key. An id is stable for the life of its entry and is freed only when no worker holds the
 * block (set 0), no alias names it and no child hangs from it. Ids are handed out in ascending order, so that the blocks
 * of one chain mostly lie side by side.
 */
export class Entries {
  readonly #words: Int32Array
  readonly #touched: Uint8Array
  /** One bit an entry: evicted, and not held again since. So small that a sweep over all aliases finds it in the cache. */
  readonly #evicted: Uint8Array
  readonly #max: number
  readonly #budget: Budget
  #top = 1
  #reserved = 1
  #freeHead = 0
  #free = 0

  constructor(memory: MapMemory, budget: Budget) {
    this.#words = memory.entries
    this.#touched = memory.touched
    this.#max = memory.sizes.maxEntries
    this.#evicted = new Uint8Array((this.#max >>> 3) + 1)
    this.#budget = budget
  }

  /** One past the highest id in use. */
  get top(): number {
    return this.#top
  }

  get freeEntries(): number {
    return this.#free + this.#reserved - this.#top
  }

  /** Makes sure that one more entry fits. */
  reserve(): boolean {
    if (this.#freeHead !== 0 || this.#top < this.#reserved) return true
    const step = Math.min(stepEntries, this.#max + 1 - this.#reserved)
    if (step <= 0 || !this.#budget.take(step * entryBytes)) return false
    this.#reserved += step
    return true
  }

  /**
   * After `reserve`; the entry has no set and no parent yet. It begins untouched: a block that nobody asks for goes
   * before one that was asked for, and behind the clock hand it has a round's time to be.
   */
  create(low: number, high: number): number {
    let id = this.#freeHead
    const words = this.#words
    if (id === 0) {
      id = this.#top++
    } else {
      this.#freeHead = words[id * entryWords + parentWord] as number
      this.#free--
    }
    const at = id * entryWords
    words[at + parentWord] = 0
    words[at + countsWord] = 0
    words[at + keyHighWord] = high
    words[at + keyLowWord] = low
    this.#touched[id] = 0
    return id
  }

  free(id: number): void {
    const at = id * entryWords
    this.#words[at + keyLowWord] = 0
    this.#words[at + keyHighWord] = 0
    this.#words[at + parentWord] = this.#freeHead
    this.#freeHead = id
    this.#free++
  }

  keyLow(id: number): number {
    return this.#words[id * entryWords + keyLowWord] as number
  }

  keyHigh(id: number): number {
    return this.#words[id * entryWords + keyHighWord] as number
  }

  set(id: number): number {
    return this.#words[id * entryWords + setWord] as number
  }

  putSet(id: number, set: number): void {
    this.#words[id * entryWords + setWord] = set
  }

  parent(id: number): number {
    return this.#words[id * entryWords + parentWord] as number
  }

  /** Hangs an entry under its parent. */
  attach(id: number, parent: number): void {
    this.#words[id * entryWords + parentWord] = parent
    const at = parent * entryWords + countsWord
    const counts = this.#words[at] as number
    if (counts >>> aliasBits < maxChildren) this.#words[at] = counts + (1 << aliasBits)
  }

  /** Takes an entry from its parent, whose id is returned (0: it hung at the root). */
  detach(id: number): number {
    const parent = this.#words[id * entryWords + parentWord] as number
    if (parent === 0) return 0
    this.#words[id * entryWords + parentWord] = 0
    const at = parent * entryWords + countsWord
    const counts = this.#words[at] as number
    if (counts >>> aliasBits < maxChildren) this.#words[at] = counts - (1 << aliasBits)
    return parent
  }

  children(id: number): number {
    return (this.#words[id * entryWords + countsWord] as number) >>> aliasBits
  }

  aliases(id: number): number {
    return (this.#words[id * entryWords + countsWord] as number) & maxAliases
  }

  addAlias(id: number): void {
    const at = id * entryWords + countsWord
    const counts = this.#words[at] as number
    if ((counts & maxAliases) < maxAliases) this.#words[at] = counts + 1
  }

  dropAlias(id: number): void {
    const at = id * entryWords + countsWord
    const counts = this.#words[at] as number
    if ((counts & maxAliases) < maxAliases) this.#words[at] = counts - 1
  }

  isEvicted(id: number): boolean {
    return ((this.#evicted[id >>> 3] as number) & (1 << (id & 7))) !== 0
  }

  putEvicted(id: number, isEvicted: boolean): void {
    const bits = this.#evicted[id >>> 3] as number
    this.#evicted[id >>> 3] = isEvicted ? bits | (1 << (id & 7)) : bits & ~(1 << (id & 7))
  }

  touched(id: number): boolean {
    return this.#touched[id] !== 0
  }

  putTouched(id: number, touched: 0 | 1): void {
    this.#touched[id] = touched
  }
}
