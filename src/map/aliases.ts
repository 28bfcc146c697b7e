import type { Budget } from './budget.ts'
import type { MapSizes } from './layout.ts'

/** {mixed low word and owner, engine hash high word, entry id, incarnation 16 | tier 2 | group 3 | count 11}. */
const aliasWords = 4
const aliasBytes = 4 * aliasWords
const countBits = 11
export const maxStoreCount = (1 << countBits) - 1
const placeShift = countBits
const incarnationShift = 16
/** Records over places at which a partition grows, in thirty-seconds, and at which it is full where it cannot. */
const growAt = 26
const fullAt = 30
const firstCapacity = 64

/**
 * Engine hash → entry, one record per (incarnation, hash, tier, group) with its store count. Only the writing thread reads it.
 *
 * The first word mixes the hash's low word with its high word and the incarnation, one to one, so it serves as the home
 * and, with the other two, still names the hash. Partitions are as in the key index; records hold their home, so one grows by
 * three eighths at a time at the price of a copy.
 */
export class Aliases {
  /** The record that `probe` found for the asked tier and group, or -1. */
  exact = -1
  /** Records of the same hash in other tiers and groups, found by `probe`. */
  readonly others: number[] = []
  count = 0
  #places = 0
  /** The hash that was probed last, and the place where its row ended, while nothing has moved since. */
  #first = 0
  #second = 0
  #vacant = -1
  readonly partitions: number
  readonly #bits: number
  readonly #stride: number
  readonly #words: Int32Array
  readonly #capacities: Int32Array
  readonly #counts: Int32Array
  readonly #scratch: Int32Array
  readonly #budget: Budget

  constructor(sizes: MapSizes, budget: Budget) {
    this.#bits = sizes.aliasBits
    this.#stride = sizes.aliasPlaces
    this.partitions = 1 << sizes.aliasBits
    this.#words = new Int32Array(new SharedArrayBuffer(aliasBytes * (this.#stride * this.partitions + 16)))
    this.#capacities = new Int32Array(this.partitions)
    this.#counts = new Int32Array(this.partitions)
    this.#scratch = new Int32Array(aliasWords * this.#stride)
    this.#budget = budget
  }

  get bytes(): number {
    return this.#places * aliasBytes
  }

  /** Records that fit without growth, were they spread evenly. */
  get freeRecords(): number {
    return Math.floor((this.#places * fullAt) / 32) - this.count
  }

  /** Looks a hash up; the answers are in `exact` and `others`. `place` is tier and group as in `aliasPlace`. */
  probe(incarnation: number, hashLow: number, hashHigh: number, place: number): void {
    const first = firstWord(incarnation, hashLow, hashHigh)
    const partition = first >>> (32 - this.#bits)
    const capacity = this.#capacities[partition] as number
    const base = partition * this.#stride
    const words = this.#words
    this.exact = -1
    this.#first = first
    this.#second = hashHigh
    this.#vacant = -1
    if (this.others.length > 0) this.others.length = 0
    let index = this.#home(first, capacity)
    for (let left = capacity; left > 0; left--) {
      const at = (base + index) * aliasWords
      const meta = words[at + 3] as number
      if (meta === 0) {
        this.#vacant = at
        return
      }
      if (words[at] === first && words[at + 1] === hashHigh && meta >>> incarnationShift === incarnation) {
        if (((meta >>> placeShift) & 31) === place) this.exact = at
        else this.others.push(at)
      }
      index = index + 1 === capacity ? 0 : index + 1
    }
  }

  /** Reads the homes of a run of hashes at once, as the key index does. */
  warm(incarnation: number, hashes: Uint32Array): number {
    const words = this.#words
    let sink = 0
    for (let at = 0; at + 1 < hashes.length; at += 2) {
      const first = firstWord(incarnation, (hashes[at] as number) | 0, (hashes[at + 1] as number) | 0)
      const partition = first >>> (32 - this.#bits)
      const home = this.#home(first, this.#capacities[partition] as number)
      const place = (partition * this.#stride + home) * aliasWords
      // The row is often longer than what one read brings in.
      sink ^= (words[place + 3] as number) ^ (words[place + 19] as number)
    }
    return sink
  }

  /** Makes sure that one more record of the probed hash fits. */
  reserve(): boolean {
    const partition = this.#first >>> (32 - this.#bits)
    const records = (this.#counts[partition] as number) + 1
    const capacity = this.#capacities[partition] as number
    if (records * 32 <= capacity * growAt) return true
    return this.#grow(partition) || records * 32 <= capacity * fullAt
  }

  /** After `probe` found no exact record of this incarnation and place, and `reserve` room for one. */
  insert(incarnation: number, place: number, entry: number, storeCount: number): void {
    const words = this.#words
    const first = this.#first
    const partition = first >>> (32 - this.#bits)
    if (this.#vacant < 0) this.#vacant = this.#findVacant(partition, first)
    const at = this.#vacant
    words[at] = first
    words[at + 1] = this.#second
    words[at + 2] = entry
    words[at + 3] = (incarnation << incarnationShift) | (place << placeShift) | storeCount
    this.#counts[partition] = (this.#counts[partition] as number) + 1
    this.count++
  }

  entry(at: number): number {
    return this.#words[at + 2] as number
  }

  storeCount(at: number): number {
    return (this.#words[at + 3] as number) & maxStoreCount
  }

  putStoreCount(at: number, storeCount: number): void {
    this.#words[at + 3] = ((this.#words[at + 3] as number) & ~maxStoreCount) | storeCount
  }

  incarnation(at: number): number {
    return (this.#words[at + 3] as number) >>> incarnationShift
  }

  place(at: number): number {
    return ((this.#words[at + 3] as number) >>> placeShift) & 31
  }

  /** What names the hash for good: the record's first two words. */
  firstWord(at: number): number {
    return this.#words[at] as number
  }

  secondWord(at: number): number {
    return this.#words[at + 1] as number
  }

  delete(at: number): void {
    this.#vacant = -1
    const words = this.#words
    const partition = Math.floor(at / aliasWords / this.#stride)
    const base = partition * this.#stride
    const capacity = this.#capacities[partition] as number
    let gap = at / aliasWords - base
    for (let index = gap; ;) {
      index = index + 1 === capacity ? 0 : index + 1
      const from = (base + index) * aliasWords
      if (words[from + 3] === 0) break
      const home = this.#home(words[from] as number, capacity)
      const fromHome = index >= home ? index - home : index - home + capacity
      const fromGap = index >= gap ? index - gap : index - gap + capacity
      if (fromHome >= fromGap) {
        const to = (base + gap) * aliasWords
        words[to] = words[from] as number
        words[to + 1] = words[from + 1] as number
        words[to + 2] = words[from + 2] as number
        words[to + 3] = words[from + 3] as number
        gap = index
      }
    }
    // A place is unused where its last word is 0; the others mean nothing then.
    words[(base + gap) * aliasWords + 3] = 0
    this.#counts[partition] = (this.#counts[partition] as number) - 1
    this.count--
  }

  /** Visits every record of a partition; one for which `isDead` says true is deleted after the call. */
  sweep(partition: number, isDead: (at: number) => boolean): void {
    const base = partition * this.#stride
    for (let index = 0; index < (this.#capacities[partition] as number);) {
      const at = (base + index) * aliasWords
      // A deletion moves a later record here, so the same place is looked at again.
      if (this.#words[at + 3] !== 0 && isDead(at)) this.delete(at)
      else index++
    }
  }

  #home(first: number, capacity: number): number {
    return Math.imul((first << this.#bits) >>> 16, capacity) >>> 16
  }

  #findVacant(partition: number, first: number): number {
    const capacity = this.#capacities[partition] as number
    const base = partition * this.#stride
    let index = this.#home(first, capacity)
    while (this.#words[(base + index) * aliasWords + 3] !== 0) index = index + 1 === capacity ? 0 : index + 1
    return (base + index) * aliasWords
  }

  /** Partitions begin with different capacities, lest all grow at the same time ever after. */
  #grow(partition: number): boolean {
    const capacity = this.#capacities[partition] as number
    const grown = Math.min(this.#stride, capacity === 0 ? firstCapacity + (partition & 15) : (capacity * 11) >>> 3)
    if (grown <= capacity || !this.#budget.take(aliasBytes * (grown - capacity))) return false
    const words = this.#words
    const scratch = this.#scratch
    const bits = this.#bits
    const start = partition * this.#stride * aliasWords
    let used = 0
    for (let at = start; at < start + capacity * aliasWords; at += aliasWords) {
      if (words[at + 3] === 0) continue
      scratch[used] = words[at] as number
      scratch[used + 1] = words[at + 1] as number
      scratch[used + 2] = words[at + 2] as number
      scratch[used + 3] = words[at + 3] as number
      used += aliasWords
    }
    words.fill(0, start, start + capacity * aliasWords)
    this.#capacities[partition] = grown
    this.#vacant = -1
    this.#places += grown - capacity
    for (let from = 0; from < used; from += aliasWords) {
      let index = Math.imul(((scratch[from] as number) << bits) >>> 16, grown) >>> 16
      while (words[start + index * aliasWords + 3] !== 0) index = index + 1 === grown ? 0 : index + 1
      const at = start + index * aliasWords
      words[at] = scratch[from] as number
      words[at + 1] = scratch[from + 1] as number
      words[at + 2] = scratch[from + 2] as number
      words[at + 3] = scratch[from + 3] as number
    }
    return true
  }
}

/** Tier and group in one number below 32. */
export function aliasPlace(tier: number, group: number): number {
  return (group << 2) | tier
}

/** One to one in `hashLow` for a fixed high word and incarnation. */
export function firstWord(incarnation: number, hashLow: number, hashHigh: number): number {
  let other = Math.imul(hashHigh ^ Math.imul(incarnation, 0x9e3779b1), 0x85ebca6b)
  other = Math.imul(other ^ (other >>> 15), 0xc2b2ae35)
  let h = hashLow ^ other ^ (other >>> 13)
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return h ^ (h >>> 16)
}
