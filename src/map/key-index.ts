import type { Budget } from './budget.ts'
import type { MapMemory } from './layout.ts'
import { entryIdBits, entryIdMask, entryWords, keyHighWord, keyLowWord } from './layout.ts'

/** Places over keys at which a partition grows, in sixteenths of its capacity. */
const growAtSixteenths = 13
/** The same where the budget refuses growth; above it the map must make room. */
const fullAtSixteenths = 15
const firstCapacity = 64

/**
 * Key → entry id. The key's low word picks a partition by its top bits and a home in it by the next sixteen, scaled to
 * the partition's capacity, which therefore need not be a power of two and doubles on its own. A partition is
 * rebuilt in one go (some ten thousand places), so no insertion waits for more; a reader that looks meanwhile misses.
 */
export class KeyIndex {
  readonly #entries: Int32Array
  readonly #places: Int32Array
  readonly #capacities: Int32Array
  readonly #bits: number
  readonly #shift: number
  readonly #stride: number

  constructor(memory: MapMemory) {
    this.#entries = memory.entries
    this.#places = memory.index
    this.#capacities = memory.indexCapacities
    this.#bits = memory.sizes.indexBits
    this.#shift = 32 - memory.sizes.indexBits
    this.#stride = memory.sizes.indexPlaces
  }

  /** The entry that has this key, or 0. Safe on any thread: the entry's own key decides. */
  find(low: number, high: number): number {
    const partition = low >>> this.#shift
    const capacity = this.#capacities[partition] as number
    const base = partition * this.#stride
    const places = this.#places
    const entries = this.#entries
    const tag = high >>> entryIdBits
    let place = Math.imul((low << this.#bits) >>> 16, capacity) >>> 16
    for (let left = capacity; left > 0; left--) {
      const word = places[base + place] as number
      if (word === 0) return 0
      if (word >>> entryIdBits === tag) {
        const id = word & entryIdMask
        const at = id * entryWords
        if (entries[at + keyLowWord] === low && entries[at + keyHighWord] === high) return id
      }
      place = place + 1 === capacity ? 0 : place + 1
    }
    return 0
  }

  /**
   * Reads the homes of a run of keys (two words each), all at once: reads that do not wait for each other cost a tenth of
   * those that do, and what follows finds them in the cache. The answer means nothing.
   */
  warm(keys: Uint32Array, count: number): number {
    const places = this.#places
    let sink = 0
    for (let at = 0; at < 2 * count; at += 2) {
      const low = keys[at] as number
      const partition = low >>> this.#shift
      const capacity = this.#capacities[partition] as number
      sink ^= places[partition * this.#stride + (Math.imul((low << this.#bits) >>> 16, capacity) >>> 16)] as number
    }
    return sink
  }
}

/** The same index with what only the writing thread may do. */
export class WritableKeyIndex extends KeyIndex {
  readonly #memory: MapMemory
  readonly #budget: Budget
  readonly #keys: Int32Array
  readonly #scratch: Int32Array
  readonly #homes: Int32Array

  constructor(memory: MapMemory, budget: Budget) {
    super(memory)
    this.#memory = memory
    this.#budget = budget
    this.#keys = new Int32Array(1 << memory.sizes.indexBits)
    this.#scratch = new Int32Array(memory.sizes.indexPlaces)
    this.#homes = new Int32Array(memory.sizes.indexPlaces)
  }

  /** Makes sure that one more key of this low word fits; false: the budget has no room for it. */
  reserve(low: number): boolean {
    const { sizes, indexCapacities } = this.#memory
    const partition = low >>> (32 - sizes.indexBits)
    const keys = (this.#keys[partition] as number) + 1
    const capacity = indexCapacities[partition] as number
    if (keys * 16 <= capacity * growAtSixteenths) return true
    return this.#grow(partition) || keys * 16 <= capacity * fullAtSixteenths
  }

  /** After `reserve`; the entry holds its key already. */
  insert(low: number, high: number, id: number): void {
    const partition = low >>> (32 - this.#memory.sizes.indexBits)
    this.#keys[partition] = (this.#keys[partition] as number) + 1
    const { sizes, index, indexCapacities } = this.#memory
    const capacity = indexCapacities[partition] as number
    const base = partition * sizes.indexPlaces
    let place = this.#home(low, capacity)
    while (index[base + place] !== 0) place = place + 1 === capacity ? 0 : place + 1
    index[base + place] = ((high >>> entryIdBits) << entryIdBits) | id
  }

  /** Takes an entry out; its key must still be in it. Later places of the row close the gap, so none is left behind. */
  delete(id: number): void {
    const { sizes, entries, index, indexCapacities } = this.#memory
    const low = entries[id * entryWords + keyLowWord] as number
    const partition = low >>> (32 - sizes.indexBits)
    const capacity = indexCapacities[partition] as number
    const base = partition * sizes.indexPlaces
    let gap = this.#home(low, capacity)
    while (((index[base + gap] as number) & entryIdMask) !== id) gap = gap + 1 === capacity ? 0 : gap + 1
    for (let place = gap; ;) {
      place = place + 1 === capacity ? 0 : place + 1
      const word = index[base + place] as number
      if (word === 0) break
      const home = this.#home(entries[(word & entryIdMask) * entryWords + keyLowWord] as number, capacity)
      const fromHome = place >= home ? place - home : place - home + capacity
      const fromGap = place >= gap ? place - gap : place - gap + capacity
      if (fromHome >= fromGap) {
        index[base + gap] = word
        gap = place
      }
    }
    index[base + gap] = 0
    this.#keys[partition] = (this.#keys[partition] as number) - 1
  }

  #home(low: number, capacity: number): number {
    return Math.imul((low << this.#memory.sizes.indexBits) >>> 16, capacity) >>> 16
  }

  /** Partitions begin with different capacities, lest all grow at the same time ever after. */
  #grow(partition: number): boolean {
    const { sizes, entries, index, indexCapacities } = this.#memory
    const capacity = indexCapacities[partition] as number
    const grown = Math.min(sizes.indexPlaces, capacity === 0 ? firstCapacity + 2 * (partition & 15) : 2 * capacity)
    if (grown <= capacity || !this.#budget.take(4 * (grown - capacity))) return false
    const base = partition * sizes.indexPlaces
    const scratch = this.#scratch
    let count = 0
    for (let place = 0; place < capacity; place++) {
      const word = index[base + place] as number
      if (word !== 0) scratch[count++] = word
    }
    index.fill(0, base, base + capacity)
    indexCapacities[partition] = grown
    // The keys are read in a loop of their own, where the reads do not wait for each other.
    const homes = this.#homes
    for (let i = 0; i < count; i++) {
      const low = entries[((scratch[i] as number) & entryIdMask) * entryWords + keyLowWord] as number
      homes[i] = Math.imul((low << sizes.indexBits) >>> 16, grown) >>> 16
    }
    for (let i = 0; i < count; i++) {
      let place = homes[i] as number
      while (index[base + place] !== 0) place = place + 1 === grown ? 0 : place + 1
      index[base + place] = scratch[i] as number
    }
    return true
  }
}
