import type { Budget } from './budget.ts'
import type { Entries } from './entries.ts'
import type { MapMemory } from './layout.ts'
import { entryIdBits, entryIdMask } from './layout.ts'
import type { Tombstones } from './tombstones.ts'

/** {mixed low word, engine hash high word, generation 6 | entry id 26, incarnation 16 | group 3 | tier 2 | count 11}. */
const aliasWords = 4
const aliasBytes = 4 * aliasWords
const countBits = 11
export const maxStoreCount = (1 << countBits) - 1
const placeShift = countBits
const incarnationShift = 16
/** Records over places, in thirty-seconds: a partition that has more makes room; the same where the budget is scarce. */
const fullAt = 26
const scarceFullAt = 28
/** Above this a partition that makes room grows; as far as this it may fill up where it cannot grow. */
const growAbove = 23
const overfullAt = 31
const firstCapacity = 64
/** Load, in thirty-seconds, of partitions that are made for a known number of records. */
const preparedLoad = 23
/** While memory is plentiful a partition is swept before it grows only if one record in so many is thought dead. */
const sweepShare = 16

/**
 * Engine hash → entry, one record per (incarnation, hash, tier, group) with its store count. Only the writing thread reads it.
 *
 * The first word mixes the hash's low word with its high word and the incarnation, one to one, so it serves as the home
 * and, with the other two, still names the hash. Partitions are as in the key index.
 *
 * A record is dead when its incarnation is, or when its entry has come to a later generation: its block was evicted.
 * Nothing looks for the records of an evicted block. They are seen through when met, and a partition that is full drops
 * its dead ones before it asks for more memory, so that a store waits for one partition at most.
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
  #dead = 0
  #deadSincePass = 0
  readonly partitions: number
  readonly #bits: number
  readonly #stride: number
  readonly #words: Int32Array
  readonly #capacities: Int32Array
  readonly #counts: Int32Array
  /** Records at which a partition makes room. */
  readonly #limits: Int32Array
  readonly #scratch: Int32Array
  readonly #incarnations: Int32Array
  readonly #entries: Entries
  readonly #tombstones: Tombstones
  readonly #budget: Budget

  constructor(memory: MapMemory, entries: Entries, tombstones: Tombstones, budget: Budget) {
    const { sizes } = memory
    this.#bits = sizes.aliasBits
    this.#stride = sizes.aliasPlaces
    this.partitions = 1 << sizes.aliasBits
    this.#words = new Int32Array(new SharedArrayBuffer(aliasBytes * (this.#stride * this.partitions + 16)))
    this.#capacities = new Int32Array(this.partitions)
    this.#counts = new Int32Array(this.partitions)
    this.#limits = new Int32Array(this.partitions)
    this.#scratch = new Int32Array(aliasWords * this.#stride)
    this.#incarnations = memory.incarnations
    this.#entries = entries
    this.#tombstones = tombstones
    this.#budget = budget
  }

  get bytes(): number {
    return this.#places * aliasBytes
  }

  /** Records of evicted blocks and cleared workers that are still there, by an estimate. */
  get dead(): number {
    return this.#dead
  }

  /** Says that so many more have died. */
  addDead(records: number): void {
    this.#dead += records
    this.#deadSincePass += records
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

  /** Where `warmAt` reads for a hash. */
  homeOf(incarnation: number, hashLow: number, hashHigh: number): number {
    const first = firstWord(incarnation, hashLow, hashHigh)
    const partition = first >>> (32 - this.#bits)
    return (partition * this.#stride + this.#home(first, this.#capacities[partition] as number)) * aliasWords
  }

  /** The same for hashes whose homes are known, of several incarnations. */
  warmAt(homes: Int32Array, count: number): number {
    const words = this.#words
    let sink = 0
    for (let i = 0; i < count; i++) sink ^= words[(homes[i] as number) + 3] as number
    return sink
  }

  /** Lets empty partitions begin as large as they have to become for so many records, as far as the budget allows. */
  prepare(records: number): void {
    const least = Math.ceil((records / this.partitions) * (32 / preparedLoad))
    if (least < firstCapacity) return
    for (let partition = 0; partition < this.partitions && !this.#budget.isScarce; partition++) {
      const capacity = Math.min(this.#stride, least + (((partition & 15) * least) >>> 8))
      if (this.#capacities[partition] !== 0 || !this.#budget.take(aliasBytes * capacity)) continue
      this.#places += capacity
      this.#capacities[partition] = capacity
      this.#limits[partition] = (capacity * fullAt) >>> 5
    }
  }

  /** Makes sure that one more record of the probed hash fits. */
  reserve(): boolean {
    const partition = this.#first >>> (32 - this.#bits)
    return (this.#counts[partition] as number) < (this.#limits[partition] as number) || this.#makeRoom(partition)
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
    words[at + 2] = (this.#entries.generation(entry) << entryIdBits) | entry
    words[at + 3] = (incarnation << incarnationShift) | (place << placeShift) | storeCount
    this.#counts[partition] = (this.#counts[partition] as number) + 1
    this.count++
  }

  entry(at: number): number {
    return (this.#words[at + 2] as number) & entryIdMask
  }

  /** Whether the entry is still the block that the record was made for. */
  isCurrent(at: number): boolean {
    const word = this.#words[at + 2] as number
    return word >>> entryIdBits === this.#entries.generation(word & entryIdMask)
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

  /** Words that `copyPartition` may write. */
  get partitionWords(): number {
    return aliasWords * this.#stride
  }

  /** The partition that all records of a hash are in, wherever in it they move. */
  partitionOf(incarnation: number, hashLow: number, hashHigh: number): number {
    return firstWord(incarnation, hashLow, hashHigh) >>> (32 - this.#bits)
  }

  /** Copies a partition's records as they are, unused places among them, for `AliasRecord` to read. The words copied. */
  copyPartition(partition: number, out: Int32Array): number {
    const start = partition * this.#stride * aliasWords
    const words = (this.#capacities[partition] as number) * aliasWords
    out.set(this.#words.subarray(start, start + words))
    return words
  }

  /** Drops a partition's dead records. Evicted blocks leave a tombstone, by which their children are refused. */
  sweep(partition: number): void {
    const words = this.#words
    const incarnations = this.#incarnations
    const start = partition * this.#stride * aliasWords
    const capacity = this.#capacities[partition] as number
    const aged = this.#readAges(start, capacity)
    let dead = 0
    // Beginning behind an unused place, a row is seen from its start.
    let index = 0
    while (index < capacity && words[start + index * aliasWords + 3] !== 0) index++
    // The first unused place of the row so far, or -1.
    let gap = -1
    for (let left = capacity; left > 0; left--) {
      index = index + 1 >= capacity ? 0 : index + 1
      const at = start + index * aliasWords
      const meta = words[at + 3] as number
      if (meta === 0) {
        gap = -1
        continue
      }
      const isAlive = incarnations[2 * (meta >>> incarnationShift)] !== 0
      if (isAlive && aged[index] === 0) {
        if (gap >= 0) gap = this.#moveUp(start, index, gap, capacity)
        continue
      }
      if (isAlive) this.#tombstones.add(words[at] as number, words[at + 1] as number)
      words[at + 3] = 0
      if (gap < 0) gap = index
      dead++
    }
    this.#vacant = -1
    this.#dead = Math.max(0, this.#dead - dead)
    this.count -= dead
    this.#counts[partition] = (this.#counts[partition] as number) - dead
  }

  /** By how much each record's entry has aged, in a loop of its own, where the reads do not wait for each other. */
  #readAges(start: number, capacity: number): Int32Array {
    const words = this.#words
    const generations = this.#entries.generations
    const ages = this.#scratch
    for (let i = 0, at = start + 2; i < capacity; i++, at += aliasWords) {
      const word = words[at] as number
      ages[i] = (generations[word & entryIdMask] as number) ^ (word >>> entryIdBits)
    }
    return ages
  }

  /** Moves a record to the first unused place from its home on, if that comes before its own. Returns the row's first. */
  #moveUp(start: number, from: number, gap: number, capacity: number): number {
    const words = this.#words
    const at = start + from * aliasWords
    const home = this.#home(words[at] as number, capacity)
    const fromHome = from >= home ? from - home : from - home + capacity
    const fromGap = from >= gap ? from - gap : from - gap + capacity
    const isGapTaken = fromHome >= fromGap
    let index = isGapTaken ? gap : home
    if (!isGapTaken) {
      while (index !== from && words[start + index * aliasWords + 3] !== 0)
        index = index + 1 === capacity ? 0 : index + 1
      if (index === from) return gap
    }
    const to = start + index * aliasWords
    words[to] = words[at] as number
    words[to + 1] = words[at + 1] as number
    words[to + 2] = words[at + 2] as number
    words[to + 3] = words[at + 3] as number
    words[at + 3] = 0
    if (!isGapTaken) return gap
    while (words[start + index * aliasWords + 3] !== 0) index = index + 1 === capacity ? 0 : index + 1
    return index
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

  /** What is dead when a pass begins is gone when it ends, whatever the estimate says. */
  beginPass(): void {
    this.#deadSincePass = 0
  }

  endPass(): void {
    this.#dead = Math.min(this.#dead, this.#deadSincePass)
  }

  /** Drops the dead, grows where that was not enough, and else fills up further. */
  #makeRoom(partition: number): boolean {
    const { isScarce } = this.#budget
    if (isScarce ? this.#dead > 0 : this.#dead * sweepShare > this.count) this.sweep(partition)
    const records = this.#counts[partition] as number
    if (records * 32 >= (this.#capacities[partition] as number) * growAbove) this.#grow(partition, isScarce)
    const capacity = this.#capacities[partition] as number
    const limit = (capacity * (isScarce ? scarceFullAt : fullAt)) >>> 5
    // A little beyond what is there, lest each of the next stores comes here.
    const further = Math.min(records + 1 + (capacity >>> 6), (capacity * overfullAt) >>> 5)
    this.#limits[partition] = Math.max(limit, further)
    return records < this.#limits[partition]
  }

  /** Partitions begin with different capacities, lest all grow at the same time ever after. */
  #grow(partition: number, isScarce: boolean): void {
    const capacity = this.#capacities[partition] as number
    const step =
      capacity === 0 ? firstCapacity + (partition & 15) : isScarce ? (capacity >>> 4) + 1 : (capacity * 3) >>> 3
    const grown = Math.min(this.#stride, capacity + step)
    if (grown <= capacity || !this.#budget.take(aliasBytes * (grown - capacity))) return
    const words = this.#words
    const scratch = this.#scratch
    const start = partition * this.#stride * aliasWords
    this.#places += grown - capacity
    this.#capacities[partition] = grown
    this.#vacant = -1
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
    for (let from = 0; from < used; from += aliasWords) {
      let index = this.#home(scratch[from] as number, grown)
      while (words[start + index * aliasWords + 3] !== 0) index = index + 1 === grown ? 0 : index + 1
      const at = start + index * aliasWords
      words[at] = scratch[from] as number
      words[at + 1] = scratch[from + 1] as number
      words[at + 2] = scratch[from + 2] as number
      words[at + 3] = scratch[from + 3] as number
    }
  }
}

/** Tier and group in one number below 32. */
export function aliasPlace(tier: number, group: number): number {
  return (group << 2) | tier
}

/** What a copied record says. */
export const aliasRecord = {
  words: aliasWords,
  isUsed: (words: Int32Array, at: number): boolean => words[at + 3] !== 0,
  hashHigh: (words: Int32Array, at: number): number => words[at + 1] as number,
  entry: (words: Int32Array, at: number): number => (words[at + 2] as number) & entryIdMask,
  generation: (words: Int32Array, at: number): number => (words[at + 2] as number) >>> entryIdBits,
  incarnation: (words: Int32Array, at: number): number => (words[at + 3] as number) >>> incarnationShift,
  place: (words: Int32Array, at: number): number => ((words[at + 3] as number) >>> placeShift) & 31,
  storeCount: (words: Int32Array, at: number): number => (words[at + 3] as number) & maxStoreCount,
  hashLow(words: Int32Array, at: number): number {
    const other = otherWord(aliasRecord.incarnation(words, at), words[at + 1] as number)
    return unmixed(words[at] as number) ^ other
  },
} as const

/** One to one in `hashLow` for a fixed high word and incarnation. */
export function firstWord(incarnation: number, hashLow: number, hashHigh: number): number {
  let h = hashLow ^ otherWord(incarnation, hashHigh)
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return h ^ (h >>> 16)
}

function otherWord(incarnation: number, hashHigh: number): number {
  let other = Math.imul(hashHigh ^ Math.imul(incarnation, 0x9e3779b1), 0x85ebca6b)
  other = Math.imul(other ^ (other >>> 15), 0xc2b2ae35)
  return other ^ (other >>> 13)
}

/** Takes back what `firstWord` does last: the factors are the inverses of its own, modulo 2^32. */
function unmixed(first: number): number {
  let h = first ^ (first >>> 16)
  h = Math.imul(h, 0x7ed1b41d)
  h ^= (h >>> 13) ^ (h >>> 26)
  h = Math.imul(h, 0xa5cb9243)
  return h ^ (h >>> 16)
}
