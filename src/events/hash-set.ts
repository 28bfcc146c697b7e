/**
 * A set of 64-bit hashes in one typed array: open addressing, linear probing, two words a place. A hash of zero marks an
 * empty place and is never a member; engines do not give it to blocks that can be removed.
 */
export class HashSet {
  readonly #limit: number
  #words = new Uint32Array(2 * 64)
  #size = 0

  /** @param limit Members beyond it are not taken. */
  constructor(limit: number) {
    this.#limit = limit
  }

  get size(): number {
    return this.#size
  }

  has(low: number, high: number): boolean {
    return this.#size > 0 && this.#find(low >>> 0, high >>> 0) >= 0
  }

  /** False where the set is full, or the hash cannot be a member. */
  add(low: number, high: number): boolean {
    if ((low | high) === 0) return false
    if (this.#find(low >>> 0, high >>> 0) >= 0) return true
    if (this.#size >= this.#limit) return false
    if (4 * (this.#size + 1) > this.#words.length) this.#grow()
    this.#insert(low >>> 0, high >>> 0)
    this.#size++
    return true
  }

  /** True where the hash was a member. */
  delete(low: number, high: number): boolean {
    if (this.#size === 0) return false
    let hole = this.#find(low >>> 0, high >>> 0)
    if (hole < 0) return false
    const words = this.#words
    const mask = words.length / 2 - 1
    // Members that a search would no longer reach past the hole move into it, one after the other.
    for (let at = (hole + 1) & mask; (words[2 * at] as number) !== 0 || (words[2 * at + 1] as number) !== 0;) {
      const home = homeOf(words[2 * at] as number, words[2 * at + 1] as number) & mask
      if (((at - home) & mask) >= ((at - hole) & mask)) {
        words[2 * hole] = words[2 * at] as number
        words[2 * hole + 1] = words[2 * at + 1] as number
        hole = at
      }
      at = (at + 1) & mask
    }
    words[2 * hole] = 0
    words[2 * hole + 1] = 0
    this.#size--
    return true
  }

  clear(): void {
    this.#words = new Uint32Array(2 * 64)
    this.#size = 0
  }

  #find(low: number, high: number): number {
    const words = this.#words
    const mask = words.length / 2 - 1
    for (let at = homeOf(low, high) & mask; ; at = (at + 1) & mask) {
      const ownLow = words[2 * at] as number
      const ownHigh = words[2 * at + 1] as number
      if (ownLow === low && ownHigh === high) return (low | high) === 0 ? -1 : at
      if ((ownLow | ownHigh) === 0) return -1
    }
  }

  #insert(low: number, high: number): void {
    const words = this.#words
    const mask = words.length / 2 - 1
    let at = homeOf(low, high) & mask
    while (((words[2 * at] as number) | (words[2 * at + 1] as number)) !== 0) at = (at + 1) & mask
    words[2 * at] = low
    words[2 * at + 1] = high
  }

  #grow(): void {
    const before = this.#words
    this.#words = new Uint32Array(2 * before.length)
    for (let at = 0; at < before.length; at += 2) {
      const low = before[at] as number
      const high = before[at + 1] as number
      if ((low | high) !== 0) this.#insert(low, high)
    }
  }
}

/** Engine hashes are mixed already, but not all engines mix their low bits well. */
function homeOf(low: number, high: number): number {
  let word = Math.imul(low ^ Math.imul(high, 0x9e3779b1), 0x85ebca6b)
  word ^= word >>> 15
  return Math.imul(word, 0xc2b2ae35) >>> 8
}
