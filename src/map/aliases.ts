import type { Budget } from './budget.ts'
import type { MapSizes } from './layout.ts'

/** {mixed low word and owner, engine hash high word, entry id, incarnation 16 | tier 2 | group 3 | count 11}. */
const aliasWords = 4
const aliasBytes = 4 * aliasWords
const countBits = 11
export const maxStoreCount = (1 << countBits) - 1
const placeShift = countBits
const incarnationShift = 16
const growAtSixteenths = 13
const fullAtSixteenths = 15
const firstCapacity = 16

/**
 * Engine hash → entry, one record per (incarnation, hash, tier, group) with its store count. Only the writing thread reads it.
 *
 * The first word mixes the hash's low word with its high word and the incarnation, one to one, so it serves as the home
 * and, with the other two, still names the hash. Partitions are as in the key index; records hold their home, so one grows by
 * an eighth at a time at the price of a copy.
 */
export class Aliases {
  /** The record that `probe` found for the asked tier and group, or -1. */
  exact = -1
  /** Records of the same hash in other tiers and groups, found by `probe`. */
  readonly others: number[] = []
  count = 0
  #places = 0
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
    this.#words = new Int32Array(new SharedArrayBuffer(aliasBytes * this.#stride * this.partitions))
    this.#capacities = new Int32Array(this.partitions)
    this.#counts = new Int32Array(this.partitions)
    this.#scratch = new Int32Array(aliasWords * this.#stride)
    this.#budget = budget
  }

  /** Records that fit without growth, were they spread evenly. */
  get freeRecords(): number {
    return Math.floor((this.#places * fullAtSixteenths) / 16) - this.count
  }

  /** Looks a hash up; the answers are in `exact` and `others`. `place` is tier and group as in `aliasPlace`. */
  probe(incarnation: number, hashLow: number, hashHigh: number, place: number): void {
    const first = firstWord(incarnation, hashLow, hashHigh)
    const partition = first >>> (32 - this.#bits)
    const capacity = this.#capacities[partition] as number
    const base = partition * this.#stride
    const words = this.#words
    this.exact = -1
    if (this.others.length > 0) this.others.length = 0
    let index = this.#home(first, capacity)
    for (let left = capacity; left > 0; left--) {
      const at = (base + index) * aliasWords
      const meta = words[at + 3] as number
      if (meta === 0) return
      if (words[at] === first && words[at + 1] === hashHigh && meta >>> incarnationShift === incarnation) {
        if (((meta >>> placeShift) & 31) === place) this.exact = at
        else this.others.push(at)
      }
      index = index + 1 === capacity ? 0 : index + 1
    }
  }

  /** Makes sure that one more record of this hash fits. */
  reserve(incarnation: number, hashLow: number, hashHigh: number): boolean {
    const partition = firstWord(incarnation, hashLow, hashHigh) >>> (32 - this.#bits)
    const records = (this.#counts[partition] as number) + 1
    const capacity = this.#capacities[partition] as number
    if (records * 16 <= capacity * growAtSixteenths) return true
    return this.#grow(partition) || records * 16 <= capacity * fullAtSixteenths
  }

  /** After `reserve`, and where `probe` found no exact record. */
  insert(incarnation: number, hashLow: number, hashHigh: number, place: number, entry: number, storeCount: number): void {
    const first = firstWord(incarnation, hashLow, hashHigh)
    const partition = first >>> (32 - this.#bits)
    const meta = (incarnation << incarnationShift) | (place << placeShift) | storeCount
    this.#put(partition, first, hashHigh, entry, meta)
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
    const words = this.#words
    const partition = Math.floor(at / aliasWords / this.#stride)
    const base = partition * this.#stride
    const capacity = this.#capacities[partition] as number
    let gap = at / aliasWords - base
    for (let index = gap; ; ) {
      index = index + 1 === capacity ? 0 : index + 1
      const from = (base + index) * aliasWords
      if (words[from + 3] === 0) break
      const home = this.#home(words[from] as number, capacity)
      const fromHome = index >= home ? index - home : index - home + capacity
      const fromGap = index >= gap ? index - gap : index - gap + capacity
      if (fromHome >= fromGap) {
        words.copyWithin((base + gap) * aliasWords, from, from + aliasWords)
        gap = index
      }
    }
    words.fill(0, (base + gap) * aliasWords, (base + gap + 1) * aliasWords)
    this.#counts[partition] = (this.#counts[partition] as number) - 1
    this.count--
  }

  /** Visits every record of a partition; one for which `isDead` says true is deleted after the call. */
  sweep(partition: number, isDead: (at: number) => boolean): void {
    const base = partition * this.#stride
    for (let index = 0; index < (this.#capacities[partition] as number); ) {
      const at = (base + index) * aliasWords
      // A deletion moves a later record here, so the same place is looked at again.
      if (this.#words[at + 3] !== 0 && isDead(at)) this.delete(at)
      else index++
    }
  }

  #home(first: number, capacity: number): number {
    return Math.imul((first << this.#bits) >>> 16, capacity) >>> 16
  }

  #put(partition: number, first: number, second: number, entry: number, meta: number): void {
    const words = this.#words
    const capacity = this.#capacities[partition] as number
    const base = partition * this.#stride
    let index = this.#home(first, capacity)
    while (words[(base + index) * aliasWords + 3] !== 0) index = index + 1 === capacity ? 0 : index + 1
    const at = (base + index) * aliasWords
    words[at] = first
    words[at + 1] = second
    words[at + 2] = entry
    words[at + 3] = meta
  }

  #grow(partition: number): boolean {
    const capacity = this.#capacities[partition] as number
    const grown = Math.min(this.#stride, Math.max(firstCapacity, (capacity + (capacity >>> 3) + 15) & ~15))
    if (grown <= capacity || !this.#budget.take(aliasBytes * (grown - capacity))) return false
    const scratch = this.#scratch
    const start = partition * this.#stride * aliasWords
    const end = start + capacity * aliasWords
    scratch.set(this.#words.subarray(start, end))
    this.#words.fill(0, start, end)
    this.#capacities[partition] = grown
    this.#places += grown - capacity
    for (let at = 0; at < capacity * aliasWords; at += aliasWords) {
      const meta = scratch[at + 3] as number
      if (meta === 0) continue
      this.#put(partition, scratch[at] as number, scratch[at + 1] as number, scratch[at + 2] as number, meta)
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
