import assert from 'node:assert/strict'

const none = -1

/**
 * An engine's paged prefix cache: a fixed number of blocks, each free or held by running requests, and named once it is
 * full. A freed block keeps its name and its place in the queue of free blocks, least recently freed first, until it is
 * given out again; only then is its content gone (vLLM's rule).
 *
 *     free queue   head ─► 7 ─► 3 ─► 12 ─► … ─► tail      doubly linked through `#next` and `#previous`
 *     buckets      hash & mask ─► 3 ─► 9                  linked through `#sameBucket`, oldest name first
 *
 * One name may belong to several blocks: a request that recomputes a cached block gets a second one.
 */
export class BlockCache {
  readonly capacityBlocks: number
  readonly #onEvicted: (low: number, high: number, block: number) => void
  readonly #low: Uint32Array
  readonly #high: Uint32Array
  readonly #named: Uint8Array
  readonly #holders: Int32Array
  readonly #next: Int32Array
  readonly #previous: Int32Array
  readonly #sameBucket: Int32Array
  readonly #buckets: Int32Array
  readonly #mask: number
  #head = none
  #tail = none
  #free = 0

  /** @param onEvicted Called with the name of a block whose content is about to be overwritten. */
  constructor(capacityBlocks: number, onEvicted: (low: number, high: number, block: number) => void) {
    assert(Number.isInteger(capacityBlocks) && capacityBlocks > 0, 'a cache has at least one block')
    this.capacityBlocks = capacityBlocks
    this.#onEvicted = onEvicted
    this.#low = new Uint32Array(capacityBlocks)
    this.#high = new Uint32Array(capacityBlocks)
    this.#named = new Uint8Array(capacityBlocks)
    this.#holders = new Int32Array(capacityBlocks)
    this.#next = new Int32Array(capacityBlocks)
    this.#previous = new Int32Array(capacityBlocks)
    this.#sameBucket = new Int32Array(capacityBlocks).fill(none)
    const buckets = 1 << Math.ceil(Math.log2(capacityBlocks * 2))
    this.#buckets = new Int32Array(buckets).fill(none)
    this.#mask = buckets - 1
    for (let block = 0; block < capacityBlocks; block++) this.#pushFree(block)
  }

  /** Blocks that no request holds; named ones among them can still be hit. */
  get freeBlocks(): number {
    return this.#free
  }

  /** The block that has borne this name longest, or −1. */
  find(low: number, high: number): number {
    let block = this.#buckets[low & this.#mask] as number
    while (block !== none && (this.#low[block] !== low || this.#high[block] !== high)) {
      block = this.#sameBucket[block] as number
    }
    return block
  }

  /** Calls back with the name of each named block; a name that several blocks bear comes several times. */
  eachName(visit: (low: number, high: number) => void): void {
    for (let block = 0; block < this.capacityBlocks; block++) {
      if (this.#named[block] === 1) visit(this.#low[block] as number, this.#high[block] as number)
    }
  }

  isFree(block: number): boolean {
    return this.#holders[block] === 0
  }

  /** One more request holds the block, which is then not given out to others. */
  hold(block: number): void {
    const holders = this.#holders[block] as number
    if (holders === 0) this.#takeFree(block)
    this.#holders[block] = holders + 1
  }

  /** One request less holds the block; the last one puts it at the end of the free queue. */
  release(block: number): void {
    const holders = this.#holders[block] as number
    assert(holders > 0, 'only a held block can be released')
    this.#holders[block] = holders - 1
    if (holders === 1) this.#pushFree(block)
  }

  /** Gives out the block that was freed longest ago, held once and without a name. */
  allocate(): number {
    const block = this.#head
    assert(block !== none, 'admission keeps enough free blocks')
    this.hold(block)
    if (this.#named[block] === 1) {
      this.#unname(block)
      this.#onEvicted(this.#low[block] as number, this.#high[block] as number, block)
    }
    return block
  }

  /** Names a full block, so that later requests find it. */
  name(block: number, low: number, high: number): void {
    assert(this.#named[block] === 0, 'a block is named once')
    this.#named[block] = 1
    this.#low[block] = low
    this.#high[block] = high
    const bucket = low & this.#mask
    let last = this.#buckets[bucket] as number
    if (last === none) {
      this.#buckets[bucket] = block
      return
    }
    while (this.#sameBucket[last] !== none) last = this.#sameBucket[last] as number
    this.#sameBucket[last] = block
  }

  /** Forgets all names. False, and nothing is done, while requests hold blocks (vLLM's rule). */
  forgetNames(): boolean {
    if (this.#free !== this.capacityBlocks) return false
    this.#named.fill(0)
    this.#buckets.fill(none)
    this.#sameBucket.fill(none)
    return true
  }

  #unname(block: number): void {
    const bucket = (this.#low[block] as number) & this.#mask
    this.#named[block] = 0
    const after = this.#sameBucket[block] as number
    this.#sameBucket[block] = none
    let at = this.#buckets[bucket] as number
    if (at === block) {
      this.#buckets[bucket] = after
      return
    }
    while (this.#sameBucket[at] !== block) at = this.#sameBucket[at] as number
    this.#sameBucket[at] = after
  }

  #pushFree(block: number): void {
    this.#previous[block] = this.#tail
    this.#next[block] = none
    if (this.#tail === none) this.#head = block
    else this.#next[this.#tail] = block
    this.#tail = block
    this.#free++
  }

  #takeFree(block: number): void {
    const before = this.#previous[block] as number
    const after = this.#next[block] as number
    if (before === none) this.#head = after
    else this.#next[before] = after
    if (after === none) this.#tail = before
    else this.#previous[after] = before
    this.#free--
  }
}
