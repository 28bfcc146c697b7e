import type { MapMemory } from './layout.ts'
import { entryWords, keyHighWord, keyLowWord } from './layout.ts'

/**
 * Key → entry id, as any thread may read it. The key's low word picks a partition by its top bits and a home in it by the
 * next sixteen, scaled to the partition's capacity, which therefore need not be a power of two and grows on its own.
 */
export class KeyIndex {
  readonly #entries: Int32Array
  readonly #places: Int32Array
  readonly #capacities: Int32Array
  readonly #bits: number
  readonly #idBits: number
  readonly #idMask: number
  readonly #shift: number
  readonly #stride: number

  constructor(memory: MapMemory) {
    this.#entries = memory.entries
    this.#places = memory.index
    this.#capacities = memory.indexCapacities
    this.#bits = memory.sizes.indexBits
    this.#idBits = memory.sizes.idBits
    this.#idMask = (1 << memory.sizes.idBits) - 1
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
    const idBits = this.#idBits
    const tag = high >>> idBits
    let place = Math.imul((low << this.#bits) >>> 16, capacity) >>> 16
    for (let left = capacity; left > 0; left--) {
      const word = places[base + place] as number
      if (word === 0) return 0
      if (word >>> idBits === tag) {
        const id = word & this.#idMask
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

  /** The same for one key. */
  warmOne(low: number): number {
    const partition = low >>> this.#shift
    const capacity = this.#capacities[partition] as number
    return this.#places[partition * this.#stride + (Math.imul((low << this.#bits) >>> 16, capacity) >>> 16)] as number
  }

  /** The same for the keys of entries. */
  warmEntries(ids: Int32Array, count: number): number {
    const places = this.#places
    let sink = 0
    for (let i = 0; i < count; i++) {
      const low = this.#entries[(ids[i] as number) * entryWords + keyLowWord] as number
      const partition = low >>> this.#shift
      const capacity = this.#capacities[partition] as number
      sink ^= places[partition * this.#stride + (Math.imul((low << this.#bits) >>> 16, capacity) >>> 16)] as number
    }
    return sink
  }
}
