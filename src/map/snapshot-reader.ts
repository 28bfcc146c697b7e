import type { WorkerSlot } from '../kv/batch.ts'
import { maxStoreCount } from './aliases.ts'
import type { Holder } from './holders.ts'
import { maxGroups, tierCount } from './layout.ts'
import type { MapParts } from './map-parts.ts'
import { ChunkView, overrideBit, stepOf } from './snapshot-chunk.ts'
import { SnapshotError, type SnapshotHeader, type SnapshotPart } from './snapshot.ts'
import { StagedPart } from './staged-part.ts'

/** Between two looks at the clock. */
const stepRows = 64
/** {key low, key high, parent's index and flags, entry in this map (0: none yet)}; an entry may have been freed since. */
const rowWords = 4
const keyLowWord = 0
const keyHighWord = 1
const parentWord = 2
const idWord = 3
const touchedFlag = 1 << 30
const heldFlag = 1 << 29
const indexMask = heldFlag - 1
const givenUp = -1
/** How often room is made for one block. */
const roundsPerBlock = 4

/**
 * Fills a map from the chunks of a snapshot, in slices, while batches go on being applied. Each part goes to a holder of
 * its own that readers do not see, beside the worker's, and takes its place once the caller says so (`StagedPart`): until
 * then nothing that the map held has changed.
 */
export class SnapshotReader {
  readonly #parts: MapParts
  readonly #header: SnapshotHeader
  /** By number; records of the others are passed over. */
  readonly #staged: (StagedPart | undefined)[] = []
  /** What is known of each index, from 1, side by side, since all of it is read at once. */
  readonly #rows: Int32Array
  #entries = 0
  #records = 0
  #newest = 0
  #view: ChunkView | null = null
  #row = 0
  /** Indexes from this one on have been given back where nobody holds their block. */
  #tidied: number
  readonly #missing: number[] = []
  readonly #homes = new Int32Array(stepRows)
  readonly #indexes = new Int32Array(stepRows)
  /** Before the first record. */
  readonly #evictions: number
  /** Keeps the reads that warm the cache from being optimized away. */
  #warm = 0
  /** Blocks for which the map had no room. */
  refused = 0

  /**
   * @param slotOf Which worker a part is of here; null: none, and it is passed over.
   * @throws SnapshotError malformed
   */
  constructor(parts: MapParts, header: SnapshotHeader, slotOf: (part: SnapshotPart) => WorkerSlot | null) {
    for (const part of header.parts) checkPart(part)
    if (header.entries > indexMask) throw malformed('more blocks than a map can have')
    this.#parts = parts
    this.#header = header
    this.#rows = new Int32Array(rowWords * (header.entries + 1))
    this.#tidied = 0
    this.#evictions = parts.blocks.evictions
    let records = 0
    for (const part of header.parts) {
      const slot = slotOf(part)
      const staged = slot === null ? null : StagedPart.of(parts, part, slot)
      if (staged === null) continue
      this.#staged[part.number] = staged
      records += part.blocks.reduce((sum, blocks) => sum + blocks, 0)
    }
    parts.aliases.prepare(records)
    parts.blocks.index.prepare(Math.min(header.entries, records))
  }

  get staged(): readonly StagedPart[] {
    return this.#staged.filter((staged) => staged !== undefined)
  }

  /** The next chunk, once `step` is done with the one before. @throws SnapshotError malformed */
  add(raw: Uint8Array): void {
    this.#view = new ChunkView(raw)
    this.#row = 0
    const { firstIndex, entries, records } = this.#view
    if (firstIndex !== this.#entries || firstIndex + entries > this.#header.entries)
      throw malformed('a chunk does not begin where the one before it ends')
    this.#records += records
  }

  /** Goes on with the chunk until `isOver` says so. True: there is more of it. @throws SnapshotError malformed */
  step(isOver: () => boolean): boolean {
    const view = this.#view
    if (view === null) return false
    const rows = view.entries + view.records
    let stored = 0
    do {
      const row = this.#row
      const end = Math.min(row < view.entries ? view.entries : rows, row + stepRows)
      if (row < view.entries) this.#learn(view, end)
      else this.#hold(view, row - view.entries, end - view.entries)
      if (row >= view.entries) stored += end - row
      this.#row = end
    } while (this.#row < rows && !isOver())
    this.#parts.reclaim.settle(stored)
    if (this.#row < rows) return true
    this.#view = null
    return false
  }

  /** After the last chunk. @throws SnapshotError truncated */
  checkWhole(): void {
    const { entries, records } = this.#header
    if (this.#entries === entries && this.#records === records) return
    throw new SnapshotError('truncated', `The snapshot ends after ${this.#records} of its ${records} records`)
  }

  /** Gives entries back that no worker holds, until `isOver` says so. True: there may be more. */
  tidy(isOver: () => boolean): boolean {
    const { blocks } = this.#parts
    if (this.#tidied === 0) this.#tidied = this.#entries + 1
    while (this.#tidied > 1) {
      const last = Math.max(1, this.#tidied - stepRows)
      while (this.#tidied > last) {
        const id = this.#idOf(--this.#tidied)
        if (id !== 0) blocks.freeIfUnused(id)
      }
      if (isOver()) break
    }
    return this.#tidied > 1
  }

  #learn(view: ChunkView, end: number): void {
    for (let row = this.#row; row < end; row++) {
      const index = ++this.#entries
      const back = view.parentBack[row] as number
      if (back >= index) throw malformed('a block stands before its parent')
      if (view.keyLow[row] === 0 && view.keyHigh[row] === 0) throw malformed('a block has no key')
      const at = rowWords * index
      this.#rows[at + keyLowWord] = view.keyLow[row] as number
      this.#rows[at + keyHighWord] = view.keyHigh[row] as number
      this.#rows[at + parentWord] = (back === 0 ? 0 : index - back) | (view.touched[row] === 0 ? 0 : touchedFlag)
    }
  }

  #hold(view: ChunkView, from: number, end: number): void {
    const { announcements } = this.#parts
    this.#warmUp(view, from, end)
    for (let row = from; row < end; row++) {
      const index = this.#newest + stepOf(view.entryStep[row] as number)
      const storeCount = view.storeCount[row] as number
      const isHeld = storeCount > 0
      if (isHeld && (index < 1 || index > this.#entries)) throw malformed('a record names a block that is not there')
      if (isHeld && index > this.#newest) this.#newest = index
      const staged = this.#staged[view.part[row] as number]
      if (staged?.isWaiting !== true) continue
      const byte = view.place[row] as number
      const place = byte & 31
      const isKnownGroup = place >>> 2 < staged.part.groups.length
      if (isHeld && (!isKnownGroup || storeCount > maxStoreCount))
        throw malformed('a record names a cache group or a store count that cannot be')
      const low = view.hashLow[row] as number
      const high = view.hashHigh[row] as number
      if ((byte & overrideBit) !== 0) announcements.forget(staged.holder, low, high, place)
      if (!isHeld || this.#holdOne(staged.holder, low, high, place, index, storeCount)) continue
      this.refused++
      announcements.refuse(staged.holder, low, high)
    }
  }

  /**
   * Reads at once what the next records will read one after the other: reads that wait for none cost a tenth. One kind
   * after another, since short loops have more of them under way.
   */
  #warmUp(view: ChunkView, from: number, end: number): void {
    const { aliases, blocks } = this.#parts
    const rows = this.#rows
    const homes = this.#homes
    const indexes = this.#indexes
    let count = 0
    let newest = this.#newest
    for (let row = from; row < end; row++) {
      const holder = this.#staged[view.part[row] as number]?.holder
      const index = newest + stepOf(view.entryStep[row] as number)
      // Blocks up to there are entered for it.
      while (newest < index && newest < this.#entries)
        this.#warm ^= blocks.index.warmOne(rows[rowWords * ++newest + keyLowWord] ?? 0)
      if (holder === undefined) continue
      homes[count] = aliases.homeOf(holder.incarnation, view.hashLow[row] as number, view.hashHigh[row] as number)
      indexes[count++] = rowWords * index + idWord
    }
    this.#warm ^= aliases.warmAt(homes, count)
    for (let i = 0; i < count; i++) indexes[i] = rows[indexes[i] as number] ?? 0
    for (let i = 0; i < count; i++) this.#warm ^= blocks.entries.keyLow(indexes[i] as number)
  }

  #holdOne(holder: Holder, low: number, high: number, place: number, index: number, storeCount: number): boolean {
    const { announcements, blocks, reclaim } = this.#parts
    let known = this.#enter(index)
    for (let round = 0; known === 0 && round < roundsPerBlock && reclaim.makeRoom(0, round); round++)
      known = this.#enter(index)
    if (known <= 0) return false
    const rows = this.#rows
    const at = rowWords * index
    const isTouched = ((rows[at + parentWord] as number) & touchedFlag) !== 0 || blocks.entries.touched(known)
    const keyLow = rows[at + keyLowWord] as number
    const keyHigh = rows[at + keyHighWord] as number
    const id = announcements.hold(holder, low, high, place, keyLow, keyHigh, 0, storeCount, known)
    if (id === 0) return false
    rows[at + idWord] = id
    rows[at + parentWord] = (rows[at + parentWord] as number) | heldFlag
    blocks.entries.putTouched(id, isTouched ? 1 : 0)
    return true
  }

  /**
   * The entry of an index, made where it is missing, and its ancestors before it, so that a chain lies side by side; 0:
   * there is no room, `givenUp`: it or an ancestor was evicted since it was held, and what is below goes with it.
   */
  #enter(index: number): number {
    let id = this.#idOf(index)
    if (id !== 0) return id
    const { blocks } = this.#parts
    const rows = this.#rows
    const missing = this.#missing
    let depth = 0
    let at = index
    for (; at !== 0; at = (rows[rowWords * at + parentWord] as number) & indexMask) {
      id = this.#idOf(at)
      if (id !== 0) break
      if (this.#wasEvicted(at)) return givenUp
      missing[depth++] = at
    }
    while (depth > 0) {
      const next = rowWords * (missing[--depth] as number)
      id = blocks.enter(rows[next + keyLowWord] as number, rows[next + keyHighWord] as number, id)
      if (id === 0) return 0
      rows[next + idWord] = id
    }
    return id
  }

  /** Without evictions, what was held and is gone was taken back by a later record. */
  #wasEvicted(index: number): boolean {
    const isHeld = ((this.#rows[rowWords * index + parentWord] as number) & heldFlag) !== 0
    return isHeld && this.#parts.blocks.evictions > this.#evictions
  }

  /** The entry that an index was given, or 0 where it has none or it is gone. */
  #idOf(index: number): number {
    const rows = this.#rows
    const at = rowWords * index
    const id = rows[at + idWord] as number
    const { entries } = this.#parts.blocks
    return entries.hasKey(id, rows[at + keyLowWord] as number, rows[at + keyHighWord] as number) ? id : 0
  }
}

function checkPart({ groups, announced, number }: SnapshotPart): void {
  for (let tier = 0; tier < tierCount; tier++) {
    const known = (announced >>> (8 * tier)) & 0xff
    if (groups.length > maxGroups || known >>> groups.length !== 0)
      throw malformed('a worker announced cache groups that it does not name')
  }
  if (number < 1 || number > 0xffff) throw malformed('a part has a number that cannot be')
}

function malformed(what: string): SnapshotError {
  return new SnapshotError('malformed', `The snapshot contradicts itself: ${what}`)
}
