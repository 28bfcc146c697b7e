import type { MapReader, MatchQuery, PrefixMatch } from './map.ts'
import { KeyIndex } from './key-index.ts'
import type { MapHandle, MapMemory } from './layout.ts'
import { entryWords, keyHighWord, keyLowWord, memberIncarnationShift, setWord, sharedTier, viewMap } from './layout.ts'

/** A reader over a map's shared memory; any number of them on any thread, each used by its own thread only. */
export function createMapReader(handle: MapHandle): MapReader {
  return new FlatReader(viewMap(handle))
}

/**
 * Walks a prompt's keys once for all workers. The walk falls into segments, rows of blocks with one set of holders:
 *
 *     block     0 1 2 3 4 5 6 7 8 9
 *     set       A A A A B B B C C .        A = {w1, w2, w3}  B = {w1, w2, shared}  C = {w2}
 *     segment   0       1     2            w1 survives 2 segments, w2 all three, w3 one (and then 3 shared blocks)
 *
 * A worker's run goes on while it is in every segment's set, so work per worker is done per segment only. Nothing is
 * locked: an entry's key is read again after its set id, a set's generation before and after its members, and at the
 * end every credited incarnation must still live. What fails is a miss.
 */
export class FlatReader implements MapReader {
  readonly #memory: MapMemory
  readonly #index: KeyIndex
  /** Segments that each worker's run has survived, and the incarnation by which it did. */
  readonly #survived: Int32Array
  readonly #incarnation: Int32Array
  /** Workers whose run is alive in the current segment with their best tier there, two words each. */
  readonly #alive: Int32Array
  /** Workers alive in the first segment: all that get any credit. */
  readonly #credited: Int32Array
  /** Per segment: its first block, and an incarnation that holds it in the shared store, or 0. */
  #segmentStart = new Int32Array(64)
  #segmentShared = new Int32Array(64)
  #aliveCount = 0
  #creditedCount = 0
  #segments = 0
  /** The current segment's set: where its record is and its generation when its members were read. */
  #setOffset = 0
  #setGeneration = 0

  constructor(memory: MapMemory) {
    this.#memory = memory
    this.#index = new KeyIndex(memory)
    const { maxWorkers } = memory.sizes
    this.#survived = new Int32Array(maxWorkers)
    this.#incarnation = new Int32Array(maxWorkers)
    this.#alive = new Int32Array(2 * maxWorkers)
    this.#credited = new Int32Array(maxWorkers)
  }

  match(queries: readonly MatchQuery[], out: PrefixMatch): void {
    out.gpu.fill(0)
    out.host.fill(0)
    out.disk.fill(0)
    out.shared.fill(0)
    for (const query of queries) {
      const end = this.#walk(query, out)
      if (this.#segments === 0) continue
      this.#countShared(query.blockSize, end, out)
      this.#forgetCleared(out)
    }
  }

  /** Walks until no run can go on; returns the block at which it ended. */
  #walk(query: MatchQuery, out: PrefixMatch): number {
    const { entries, touched } = this.#memory
    const index = this.#index
    const keys = query.keys
    const blocks = keys.length >>> 1
    this.#survived.fill(0)
    this.#segments = 0
    this.#aliveCount = 0
    this.#creditedCount = 0
    let id = 0
    let set = -1
    let start = 0
    let block = 0
    for (; block < blocks; block++) {
      const low = (keys[2 * block] as number) | 0
      const high = (keys[2 * block + 1] as number) | 0
      // Blocks stored in one event mostly lie side by side, so the next entry is tried before the index is asked.
      let at = (id + 1) * entryWords
      const before = id
      if (entries[at + keyLowWord] === low && entries[at + keyHighWord] === high) {
        id++
      } else {
        id = index.find(low, high)
        if (id === 0) {
          id = before
          break
        }
        at = id * entryWords
      }
      const found = entries[at + setWord] as number
      if (found === set && entries[at + keyLowWord] === low && entries[at + keyHighWord] === high) continue
      if (!this.#credit(block - start, out)) return start
      start = block
      if (before !== 0) touched[before] = 1
      if (!this.#openSegment(found, block, query.blockSize, out.gpu.length) || !this.#isStill(at, low, high, found)) {
        // Nothing of this segment is credited: its set is no longer what it was, or nobody's run goes on.
        this.#aliveCount = 0
        return block
      }
      set = found
    }
    if (id !== 0) touched[id] = 1
    return this.#credit(block - start, out) ? block : start
  }

  #isStill(at: number, low: number, high: number, set: number): boolean {
    const { entries } = this.#memory
    return entries[at + setWord] === set && entries[at + keyLowWord] === low && entries[at + keyHighWord] === high
  }

  /** Finds the workers whose run goes on in a set; false: none does and the shared store has not these blocks. */
  #openSegment(set: number, block: number, blockSize: number, slots: number): boolean {
    const { setOffsets, setRecords } = this.#memory
    this.#aliveCount = 0
    if (set === 0) return false
    const segment = this.#segments
    const offset = setOffsets[set] as number
    const generation = Atomics.load(setRecords, offset)
    const end = offset + 2 + (setRecords[offset + 1] as number)
    let shared = 0
    for (let at = offset + 2; at < end;) {
      const incarnation = (setRecords[at] as number) >>> memberIncarnationShift
      let groups = 0
      for (; at < end; at++) {
        const member = setRecords[at] as number
        if (member >>> memberIncarnationShift !== incarnation) break
        groups |= 1 << (((member & 3) << 3) | ((member >>> 2) & 7))
      }
      if (this.#admit(incarnation, groups, segment, blockSize, slots)) shared = incarnation
    }
    if ((generation & 1) !== 0 || Atomics.load(setRecords, offset) !== generation) {
      for (let i = 0; i < this.#aliveCount; i++) this.#survived[this.#alive[2 * i] as number] = segment
      return false
    }
    if (this.#aliveCount === 0 && shared === 0) return false
    if (segment === 0) {
      this.#creditedCount = this.#aliveCount
      for (let i = 0; i < this.#aliveCount; i++) this.#credited[i] = this.#alive[2 * i] as number
    }
    if (segment === this.#segmentStart.length) this.#growSegments()
    this.#setOffset = offset
    this.#setGeneration = generation
    this.#segmentStart[segment] = block
    this.#segmentShared[segment] = shared
    this.#segments = segment + 1
    return true
  }

  /** Lets a worker's run go on where it holds the blocks; true: it holds them in the shared store. */
  #admit(incarnation: number, groups: number, segment: number, blockSize: number, slots: number): boolean {
    const { incarnations, workers } = this.#memory
    const slot = Atomics.load(incarnations, 2 * incarnation) - 1
    if (slot < 0) return false
    const announced = incarnations[2 * incarnation + 1] as number
    const isShared = holdsAll(groups, announced, sharedTier)
    if (slot >= slots || workers[2 * slot + 1] !== blockSize || this.#survived[slot] !== segment) return isShared
    if (segment > 0 && this.#incarnation[slot] !== incarnation) return isShared
    const tier = holdsAll(groups, announced, 0) ? 0 : holdsAll(groups, announced, 1) ? 1 : 2
    if (tier === 2 && !holdsAll(groups, announced, 2)) return isShared
    this.#incarnation[slot] = incarnation
    this.#survived[slot] = segment + 1
    this.#alive[2 * this.#aliveCount] = slot
    this.#alive[2 * this.#aliveCount + 1] = tier
    this.#aliveCount++
    return isShared
  }

  /** Adds a segment's blocks to the runs that were alive in it; false: its set id came to mean another set meanwhile. */
  #credit(blocks: number, out: PrefixMatch): boolean {
    if (this.#aliveCount === 0) return true
    if (Atomics.load(this.#memory.setRecords, this.#setOffset) !== this.#setGeneration) return false
    for (let i = 0; i < this.#aliveCount; i++) {
      const slot = this.#alive[2 * i] as number
      const tier = this.#alive[2 * i + 1] as number
      const counts = tier === 0 ? out.gpu : tier === 1 ? out.host : out.disk
      counts[slot] = (counts[slot] as number) + blocks
    }
    return true
  }

  /** Gives every worker of this block size the shared blocks that follow its run directly. */
  #countShared(blockSize: number, end: number, out: PrefixMatch): void {
    const { incarnations, workers } = this.#memory
    const slots = Math.min(out.shared.length, this.#survived.length)
    const starts = this.#segmentStart
    let isAny = false
    // From here on a segment's second word is where the row of shared segments that it is in ends.
    let sharedEnd = end
    for (let segment = this.#segments - 1; segment >= 0; segment--) {
      const holder = this.#segmentShared[segment] as number
      const isShared = holder !== 0 && Atomics.load(incarnations, 2 * holder) !== 0
      if (!isShared) sharedEnd = starts[segment] as number
      this.#segmentShared[segment] = sharedEnd
      isAny ||= isShared
    }
    if (!isAny) return
    for (let slot = 0; slot < slots; slot++) {
      const segment = this.#survived[slot] as number
      if (workers[2 * slot + 1] !== blockSize || segment >= this.#segments) continue
      out.shared[slot] = (this.#segmentShared[segment] as number) - (starts[segment] as number)
    }
  }

  /** A worker that was cleared during the walk gets nothing. */
  #forgetCleared(out: PrefixMatch): void {
    const { incarnations } = this.#memory
    for (let i = 0; i < this.#creditedCount; i++) {
      const slot = this.#credited[i] as number
      if (Atomics.load(incarnations, 2 * (this.#incarnation[slot] as number)) === slot + 1) continue
      out.gpu[slot] = 0
      out.host[slot] = 0
      out.disk[slot] = 0
      out.shared[slot] = 0
    }
  }

  #growSegments(): void {
    const starts = new Int32Array(2 * this.#segmentStart.length)
    const shared = new Int32Array(2 * this.#segmentShared.length)
    starts.set(this.#segmentStart)
    shared.set(this.#segmentShared)
    this.#segmentStart = starts
    this.#segmentShared = shared
  }
}

/** Whether every announced group of a tier is among `groups`; both have eight bits a tier. */
function holdsAll(groups: number, announced: number, tier: number): boolean {
  const wanted = (announced >>> (8 * tier)) & 0xff
  return wanted !== 0 && ((groups >>> (8 * tier)) & wanted) === wanted
}
