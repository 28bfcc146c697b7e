import type { Budget } from './budget.ts'
import type { MapMemory } from './layout.ts'

/** Writer's bytes of a set id: offset, hash, references, pass. */
const idBytes = 20
/** Generation and member count come before the members. */
const headWords = 2

/**
 * The records of sets in shared memory: generation, member count, members ascending. A record keeps its place for ever; a
 * freed id serves another set of its size class, and its generation is raised before and after (odd: in between), by which
 * a reader knows that what it read was one set.
 */
export class SetRecords {
  readonly #offsets: Int32Array
  readonly #words: Int32Array
  readonly #maxSets: number
  readonly #budget: Budget
  readonly #freeByClass: number[][] = []
  #topId = 1
  #topWord = 1

  constructor(memory: MapMemory, budget: Budget) {
    this.#offsets = memory.setOffsets
    this.#words = memory.setRecords
    this.#maxSets = memory.sizes.maxSets
    this.#budget = budget
  }

  /** One past the highest id that was ever used. */
  get topId(): number {
    return this.#topId
  }

  /** Members of a set lie in `words` from `start(set)` on, ascending. */
  get words(): Int32Array {
    return this.#words
  }

  start(set: number): number {
    return (this.#offsets[set] as number) + headWords
  }

  length(set: number): number {
    return set === 0 ? 0 : (this.#words[(this.#offsets[set] as number) + 1] as number)
  }

  contains(set: number, member: number): boolean {
    const start = this.start(set)
    const end = start + this.length(set)
    for (let at = start; at < end; at++) if (this.#words[at] === member) return true
    return false
  }

  equals(set: number, members: Int32Array, length: number): boolean {
    if (this.length(set) !== length) return false
    const start = this.start(set)
    for (let i = 0; i < length; i++) if (this.#words[start + i] !== members[i]) return false
    return true
  }

  /** Writes a new set; its id, or 0 where the budget has no room. A new id costs `moreBytes` beside the record. */
  create(members: Int32Array, length: number, moreBytes: number): number {
    const set = this.#allocate(length, moreBytes)
    if (set === 0) return 0
    const offset = this.#offsets[set] as number
    const generation = this.#words[offset] as number
    this.#words[offset + 1] = length
    for (let i = 0; i < length; i++) this.#words[offset + headWords + i] = members[i] as number
    Atomics.store(this.#words, offset, generation + 1)
    return set
  }

  free(set: number): void {
    const offset = this.#offsets[set] as number
    Atomics.store(this.#words, offset, (this.#words[offset] as number) + 1)
    this.#freeOf(this.length(set)).push(set)
  }

  /** An id whose record has room for `length` members; its generation is odd. */
  #allocate(length: number, moreBytes: number): number {
    const reused = this.#freeOf(length).pop()
    if (reused !== undefined) return reused
    const words = 1 << sizeClass(length)
    const fits = this.#topId <= this.#maxSets && this.#topWord + words <= this.#words.length
    if (!fits || !this.#budget.take(idBytes + 4 * words + moreBytes)) return 0
    const set = this.#topId++
    this.#offsets[set] = this.#topWord
    this.#words[this.#topWord] = 1
    this.#topWord += words
    return set
  }

  #freeOf(length: number): number[] {
    return (this.#freeByClass[sizeClass(length)] ??= [])
  }
}

/** Records take a power of two of words. */
function sizeClass(length: number): number {
  return 32 - Math.clz32(length + headWords - 1)
}
