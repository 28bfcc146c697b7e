/** A prompt as the ids of its leading blocks, first to last; equal ids mean equal blocks. */
export type BlockRow = ArrayLike<number>

/**
 * How often blocks would be found in a cache, for every size of it at once (after Mattson's stack algorithm).
 *
 * The cache drops the block that was used longest ago, and a request uses its blocks last to first, as engines do: so a block goes
 * before the ones that it builds on. A block is found when it and all before it are there. Both follow from its depth in the stack
 * of blocks by last use: a cache of n blocks holds the n uppermost.
 */
export class ReuseCurve {
  readonly requests: number
  readonly blocks: number
  readonly distinctBlocks: number
  /** Hits of a cache with so many blocks. */
  readonly #hits: Float64Array

  private constructor({ blocks, hitsAt, requests }: Counts) {
    this.requests = requests
    this.blocks = blocks
    this.distinctBlocks = hitsAt.length - 1
    this.#hits = new Float64Array(hitsAt.length)
    for (let depth = 1; depth < hitsAt.length; depth++)
      this.#hits[depth] = (this.#hits[depth - 1] as number) + (hitsAt[depth] as number)
  }

  static of<R>(requests: readonly R[], rowOf: (request: R) => BlockRow): ReuseCurve {
    function* rows(): Iterable<BlockRow> {
      for (const request of requests) yield rowOf(request)
    }
    return new ReuseCurve(count(rows(), requests.length) ?? countChained(rows(), requests.length))
  }

  /** Share of all blocks that a cache of so many blocks finds. */
  hitRatio(capacityBlocks: number): number {
    if (this.blocks === 0) return 0
    const capacity = Math.max(0, Math.min(Math.floor(capacityBlocks), this.distinctBlocks))
    return (this.#hits[capacity] as number) / this.blocks
  }

  /** What a cache without end finds. */
  get idealHitRatio(): number {
    return this.hitRatio(this.distinctBlocks)
  }

  /** The smallest cache, in blocks, that finds this share; null where none does. */
  capacityFor(hitRatio: number): number | null {
    if (hitRatio > this.idealHitRatio) return null
    let [low, high] = [0, this.distinctBlocks]
    while (low < high) {
      const middle = Math.floor((low + high) / 2)
      if (this.hitRatio(middle) >= hitRatio) high = middle
      else low = middle + 1
    }
    return low
  }
}

interface Counts {
  readonly requests: number
  readonly blocks: number
  /** By depth, from 1 on: how often a block was found there. */
  readonly hitsAt: Float64Array
}

/** Ids beyond it are numbered anew, so that a table by id stays small. */
const greatestId = 2 ** 26

/**
 * Counts hits by depth, a run of blocks at a time. What a request leaves behind lies in the stack in one piece, and later requests
 * take leading blocks out of it, never others, because whoever uses a block uses all before it:
 *
 *     requests, oldest first:  p q r,  a b x y,  a b c d e
 *     stack, uppermost first:  a b c d e | x y | p q r        depth of y = 5 + 2
 *
 * Null where an id stands behind different blocks, so that it does not name what is before it.
 */
function count(rows: Iterable<BlockRow>, requests: number): Counts | null {
  const table = new BlockTable()
  /** By request: blocks that nobody used after it, and which of its blocks is the first of them. */
  const left = new CountTree(requests + 1)
  const firstLeft = new Uint32Array(requests + 1)
  const changes: number[] = []
  let blocks = 0
  let request = 0
  for (const row of rows) {
    request++
    blocks += row.length
    let at = 0
    while (at < row.length) {
      const before = table.lastUse(row[at] as number)
      if (before === 0) break
      const start = at
      while (at < row.length && table.lastUse(row[at] as number) === before) at++
      if (firstLeft[before] !== start) return null
      // The blocks before these lie above them, and are already taken out.
      const depth = left.after(before) + start + 1
      changes[depth] = (changes[depth] ?? 0) + 1
      changes[depth + at - start] = (changes[depth + at - start] ?? 0) - 1
      left.add(before, start - at)
      firstLeft[before] = at
    }
    if (!table.use(row, request)) return null
    left.add(request, row.length)
  }
  const hitsAt = new Float64Array(table.size + 1)
  for (let depth = 1; depth < hitsAt.length; depth++)
    hitsAt[depth] = (hitsAt[depth - 1] as number) + (changes[depth] ?? 0)
  return { requests, blocks, hitsAt }
}

/** The same with ids that name a block together with all before it. */
function countChained(rows: Iterable<BlockRow>, requests: number): Counts {
  const chains = new Map<number, Map<number, number>>()
  let known = 0
  function* chained(): Iterable<BlockRow> {
    for (const row of rows) {
      let chain = -1
      yield Array.from(row, (id) => {
        let next = chains.get(chain)
        if (next === undefined) chains.set(chain, (next = new Map<number, number>()))
        chain = next.get(id) ?? known++
        next.set(id, chain)
        return chain
      })
    }
  }
  return count(chained(), requests) as Counts
}

/** When each block was last used, and after which other one it stands. */
class BlockTable {
  size = 0
  #lastUse = new Uint32Array(1 << 12)
  #parent = new Uint32Array(1 << 12)

  /** 0 for a block that was never used. */
  lastUse(id: number): number {
    return this.#lastUse[id] ?? 0
  }

  /** Whether every block stands where it stood before. */
  use(row: BlockRow, request: number): boolean {
    let parent = 0
    for (let at = 0; at < row.length; at++) {
      const id = row[at] as number
      if (id >= this.#lastUse.length && !this.#grow(id)) return false
      if (this.#lastUse[id] === 0) {
        this.#parent[id] = parent
        this.size++
      } else if (this.#parent[id] !== parent || this.#lastUse[id] === request) return false
      this.#lastUse[id] = request
      parent = id + 1
    }
    return true
  }

  #grow(id: number): boolean {
    if (id >= greatestId) return false
    const length = 2 ** Math.ceil(Math.log2(id + 1))
    const grown = (table: Uint32Array) => {
      const larger = new Uint32Array(length)
      larger.set(table)
      return larger
    }
    this.#lastUse = grown(this.#lastUse)
    this.#parent = grown(this.#parent)
    return true
  }
}

/** Counts by place from 1 on, and their sums behind a place, each in logarithmic time (a Fenwick tree). */
class CountTree {
  readonly #sums: Int32Array
  #total = 0

  constructor(places: number) {
    this.#sums = new Int32Array(places + 1)
  }

  add(place: number, count: number): void {
    this.#total += count
    for (let at = place; at < this.#sums.length; at += at & -at) this.#sums[at] = (this.#sums[at] as number) + count
  }

  /** The sum of all places behind this one. */
  after(place: number): number {
    let upTo = 0
    for (let at = place; at > 0; at -= at & -at) upTo += this.#sums[at] as number
    return this.#total - upTo
  }
}
