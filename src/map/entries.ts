import type { Budget } from './budget.ts'
import type { MapMemory } from './layout.ts'
import { childrenWord, entryWords, keyHighWord, keyLowWord, maxGeneration, parentWord, setWord } from './layout.ts'

/** Bytes of an entry with its touched byte and its generation. */
export const entryBytes = 4 * entryWords + 2
/** Ids are taken into use so many at a time, to ask the budget seldom. */
const stepEntries = 64
/** A count of children at its top stays there, and so does its entry. */
const maxChildren = 0x7fffffff

/**
 * The entries, one a block key. An id is stable for the life of its entry, which ends when no worker holds the block
 * (set 0) and no child hangs from it. Ids are handed out in ascending order, and a chain that is given up from its tail
 * comes back from its beginning, so that the blocks of one chain mostly lie side by side.
 *
 * Evicting a block raises its id's generation, and with it kills every alias that names the older one; an id may be
 * used again at once. An id that has gone through all generations rests until a sweep has passed all aliases:
 *
 *     free ──► in use ──► free            generation < 63
 *                    └──► worn ──► resting ──► rested ──► in use, generation 0
 *                              sweep begins   sweep ends
 */
export class Entries {
  readonly #words: Int32Array
  readonly #touched: Uint8Array
  readonly #generations: Uint8Array
  readonly #max: number
  readonly #budget: Budget
  #top = 1
  #reserved = 1
  /** Lists of ids, linked by their parent word; 0 ends one. */
  #free = 0
  #worn = 0
  #wornLast = 0
  #resting = 0
  #restingLast = 0
  #rested = 0
  /** One word an entry for whoever goes through all of them; an entry that is freed loses its own. */
  marks: Int32Array | null = null

  constructor(memory: MapMemory, budget: Budget) {
    this.#words = memory.entries
    this.#touched = memory.touched
    this.#max = memory.sizes.maxEntries
    this.#generations = new Uint8Array(this.#max + 2)
    this.#budget = budget
  }

  /** One past the highest id in use. */
  get top(): number {
    return this.#top
  }

  /** Makes sure that one more entry fits, without what partitions may still need. */
  reserve(): boolean {
    if (this.#free !== 0 || this.#rested !== 0 || this.#top < this.#reserved) return true
    const step = Math.min(stepEntries, this.#max + 1 - this.#reserved)
    if (step <= 0 || !this.#budget.takeLoosely(step * entryBytes)) return false
    this.#reserved += step
    return true
  }

  /**
   * After `reserve`; the entry has no set and no parent yet. It begins untouched: a block that nobody asks for goes
   * before one that was asked for, and behind the clock hand it has a round's time to be.
   */
  create(low: number, high: number): number {
    const id = this.#take()
    const words = this.#words
    const at = id * entryWords
    words[at + parentWord] = 0
    words[at + childrenWord] = 0
    words[at + keyHighWord] = high
    words[at + keyLowWord] = low
    this.#touched[id] = 0
    return id
  }

  #take(): number {
    let id = this.#free
    if (id !== 0) {
      this.#free = this.#next(id)
      return id
    }
    id = this.#rested
    if (id === 0) return this.#top++
    this.#rested = this.#next(id)
    this.#generations[id] = 0
    return id
  }

  #next(id: number): number {
    return this.#words[id * entryWords + parentWord] as number
  }

  free(id: number): void {
    if (this.marks !== null) this.marks[id] = 0
    const at = id * entryWords
    this.#words[at + keyLowWord] = 0
    this.#words[at + keyHighWord] = 0
    if ((this.#generations[id] as number) < maxGeneration) {
      this.#words[at + parentWord] = this.#free
      this.#free = id
      return
    }
    this.#words[at + parentWord] = this.#worn
    if (this.#worn === 0) this.#wornLast = id
    this.#worn = id
  }

  /** Whether ids wait for a sweep. */
  get hasWorn(): boolean {
    return this.#worn !== 0
  }

  /** A sweep begins: what is worn by now will be named by no alias after it. */
  beginRest(): void {
    this.#resting = this.#worn
    this.#restingLast = this.#wornLast
    this.#worn = 0
  }

  endRest(): void {
    if (this.#resting === 0) return
    this.#words[this.#restingLast * entryWords + parentWord] = this.#rested
    this.#rested = this.#resting
    this.#resting = 0
  }

  generation(id: number): number {
    return this.#generations[id] as number
  }

  /** Kills every alias of the entry. The last generation stays; it is told apart from itself by who holds the block. */
  age(id: number): void {
    const generation = this.#generations[id] as number
    if (generation < maxGeneration) this.#generations[id] = generation + 1
  }

  /** All generations, for a loop over many aliases. */
  get generations(): Uint8Array {
    return this.#generations
  }

  keyLow(id: number): number {
    return this.#words[id * entryWords + keyLowWord] as number
  }

  keyHigh(id: number): number {
    return this.#words[id * entryWords + keyHighWord] as number
  }

  /** Whether an id is the entry of this key; never so of 0. */
  hasKey(id: number, low: number, high: number): boolean {
    const at = id * entryWords
    return id !== 0 && this.#words[at + keyLowWord] === low && this.#words[at + keyHighWord] === high
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
    const at = parent * entryWords + childrenWord
    const children = this.#words[at] as number
    if (children < maxChildren) this.#words[at] = children + 1
  }

  /** Takes an entry from its parent, whose id is returned (0: it hung at the root). */
  detach(id: number): number {
    const parent = this.#words[id * entryWords + parentWord] as number
    if (parent === 0) return 0
    this.#words[id * entryWords + parentWord] = 0
    const at = parent * entryWords + childrenWord
    const children = this.#words[at] as number
    if (children < maxChildren) this.#words[at] = children - 1
    return parent
  }

  children(id: number): number {
    return this.#words[id * entryWords + childrenWord] as number
  }

  touched(id: number): boolean {
    return this.#touched[id] !== 0
  }

  putTouched(id: number, touched: 0 | 1): void {
    this.#touched[id] = touched
  }
}
