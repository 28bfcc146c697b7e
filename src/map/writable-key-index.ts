import type { Budget } from './budget.ts'
import { KeyIndex } from './key-index.ts'
import type { MapMemory } from './layout.ts'
import { entryWords, keyLowWord } from './layout.ts'

/** Used places, in thirty-seconds, at which a partition is rebuilt or grows; the same where the budget is scarce. */
const fullAt = 26
const scarceFullAt = 29
/** With more keys than this a rebuilt partition grows; as far as the second it may fill up where it cannot grow. */
const growAbove = 26
const overfullAt = 31
const firstCapacity = 64
/** Load, in thirty-seconds, of partitions that are made for a known number of keys. */
const preparedLoad = 22

/**
 * The key index with what only the writing thread may do. A key that is taken out leaves a mark that the next insertion
 * into its row uses, which costs less than moving later keys up: their homes are in their entries, all over the memory.
 * A partition is rebuilt in one go (some ten thousand places), so no insertion waits for more; a reader that looks
 * meanwhile misses.
 */
export class WritableKeyIndex extends KeyIndex {
  readonly #memory: MapMemory
  readonly #budget: Budget
  readonly #idMask: number
  /**
   * In the place of a key that was taken out. It names entry 0, which has the key 0, by a tag that the key 0 does not
   * have, so no key is ever found there.
   */
  readonly #mark: number
  readonly #keys: Int32Array
  /** Places in use by keys and marks. */
  readonly #used: Int32Array
  readonly #limits: Int32Array
  readonly #scratch: Int32Array
  readonly #homes: Int32Array

  constructor(memory: MapMemory, budget: Budget) {
    super(memory)
    const { idBits, indexBits, indexPlaces } = memory.sizes
    this.#idMask = (1 << idBits) - 1
    this.#mark = 1 << idBits
    this.#memory = memory
    this.#budget = budget
    this.#keys = new Int32Array(1 << indexBits)
    this.#used = new Int32Array(1 << indexBits)
    this.#limits = new Int32Array(1 << indexBits)
    this.#scratch = new Int32Array(indexPlaces)
    this.#homes = new Int32Array(indexPlaces)
  }

  /** Lets empty partitions begin as large as they have to become for so many keys, as far as the budget allows. */
  prepare(keys: number): void {
    const { sizes, indexCapacities } = this.#memory
    const partitions = 1 << sizes.indexBits
    const least = Math.ceil((keys / partitions) * (32 / preparedLoad))
    if (least < firstCapacity) return
    for (let partition = 0; partition < partitions && !this.#budget.isScarce; partition++) {
      const capacity = Math.min(sizes.indexPlaces, least + (((partition & 15) * least) >>> 8))
      if (indexCapacities[partition] !== 0 || !this.#budget.take(4 * capacity)) continue
      indexCapacities[partition] = capacity
      this.#limits[partition] = (capacity * fullAt) >>> 5
    }
  }

  /** Makes sure that one more key of this low word fits; false: the budget has no room for it. */
  reserve(low: number): boolean {
    const partition = low >>> (32 - this.#memory.sizes.indexBits)
    return (this.#used[partition] as number) < (this.#limits[partition] as number) || this.#makeRoom(partition)
  }

  /** After `reserve`, of a key that is not there; the entry holds it already. */
  insert(low: number, high: number, id: number): void {
    const { sizes, index, indexCapacities } = this.#memory
    const partition = low >>> (32 - sizes.indexBits)
    const capacity = indexCapacities[partition] as number
    const base = partition * sizes.indexPlaces
    let place = this.#home(low, capacity)
    let word = index[base + place] as number
    while (word !== 0 && word !== this.#mark) {
      place = place + 1 === capacity ? 0 : place + 1
      word = index[base + place] as number
    }
    this.#keys[partition] = (this.#keys[partition] as number) + 1
    if (word === 0) this.#used[partition] = (this.#used[partition] as number) + 1
    index[base + place] = ((high >>> sizes.idBits) << sizes.idBits) | id
  }

  /** Takes an entry out; its key must still be in it. A mark before an unused place is of no use, so none is left there. */
  delete(id: number): void {
    const { sizes, entries, index, indexCapacities } = this.#memory
    const low = entries[id * entryWords + keyLowWord] as number
    const partition = low >>> (32 - sizes.indexBits)
    const capacity = indexCapacities[partition] as number
    const base = partition * sizes.indexPlaces
    let place = this.#home(low, capacity)
    while (((index[base + place] as number) & this.#idMask) !== id) place = place + 1 === capacity ? 0 : place + 1
    this.#keys[partition] = (this.#keys[partition] as number) - 1
    if (index[base + (place + 1 === capacity ? 0 : place + 1)] !== 0) {
      index[base + place] = this.#mark
      return
    }
    let freed = 0
    do {
      index[base + place] = 0
      freed++
      place = place === 0 ? capacity - 1 : place - 1
    } while (index[base + place] === this.#mark)
    this.#used[partition] = (this.#used[partition] as number) - freed
  }

  #home(low: number, capacity: number): number {
    return Math.imul((low << this.#memory.sizes.indexBits) >>> 16, capacity) >>> 16
  }

  /** Takes the marks out, grows where that is not enough, and else fills up further. */
  #makeRoom(partition: number): boolean {
    const { indexCapacities } = this.#memory
    const keys = this.#keys[partition] as number
    const before = indexCapacities[partition] as number
    const { isScarce } = this.#budget
    const grows = keys * 32 >= before * growAbove && this.#grow(partition, isScarce)
    if (grows || keys < (this.#used[partition] as number)) this.#rebuild(partition, before)
    const capacity = indexCapacities[partition] as number
    const limit = (capacity * (isScarce ? scarceFullAt : fullAt)) >>> 5
    const further = Math.min(keys + 1 + (capacity >>> 6), (capacity * overfullAt) >>> 5)
    this.#limits[partition] = Math.max(limit, further)
    return keys < this.#limits[partition]
  }

  /** Partitions begin with different capacities, lest all grow at the same time ever after. */
  #grow(partition: number, isScarce: boolean): boolean {
    const { sizes, indexCapacities } = this.#memory
    const capacity = indexCapacities[partition] as number
    const step = capacity === 0 ? firstCapacity + 2 * (partition & 15) : isScarce ? (capacity >>> 4) + 1 : capacity
    const grown = Math.min(sizes.indexPlaces, capacity + step)
    if (grown <= capacity || !this.#budget.take(4 * (grown - capacity))) return false
    indexCapacities[partition] = grown
    return true
  }

  /** Puts the keys among the first `before` places where they belong by the partition's capacity. */
  #rebuild(partition: number, before: number): void {
    const { sizes, entries, index, indexCapacities } = this.#memory
    const capacity = indexCapacities[partition] as number
    const base = partition * sizes.indexPlaces
    const scratch = this.#scratch
    let count = 0
    for (let place = 0; place < before; place++) {
      const word = index[base + place] as number
      if (word !== 0 && word !== this.#mark) scratch[count++] = word
    }
    // The keys are read in a loop of their own, where the reads do not wait for each other.
    const homes = this.#homes
    for (let i = 0; i < count; i++) {
      const low = entries[((scratch[i] as number) & this.#idMask) * entryWords + keyLowWord] as number
      homes[i] = Math.imul((low << sizes.indexBits) >>> 16, capacity) >>> 16
    }
    index.fill(0, base, base + before)
    for (let i = 0; i < count; i++) {
      let place = homes[i] as number
      while (index[base + place] !== 0) place = place + 1 === capacity ? 0 : place + 1
      index[base + place] = scratch[i] as number
    }
    this.#used[partition] = count
  }
}
