import assert from 'node:assert/strict'
import type { WorkerSlot } from '../kv/batch.ts'
import { aliasRecord } from './aliases.ts'
import { maxGeneration, memberIncarnationShift } from './layout.ts'
import type { MapParts } from './map-parts.ts'
import { SnapshotChanges } from './snapshot-changes.ts'
import { ChunkDraft, overrideBit, writtenStep } from './snapshot-chunk.ts'
import { SnapshotError, type SnapshotFacts, type SnapshotPart } from './snapshot.ts'

export interface SnapshotWriterLimits {
  /** Changes that wait to be written; more than this at a time, and the snapshot is given up. */
  readonly changes: number
}

export const snapshotWriterLimits: SnapshotWriterLimits = { changes: 1_048_576 }

export interface SnapshotContents {
  readonly parts: readonly SnapshotPart[]
  readonly entries: number
  readonly records: number
}

/** Between two looks at the clock. */
const stepRecords = 32
/** With no more changes than this they are written at once, together with the positions. */
const fewChanges = 512
/** Above this, changes go before what was not seen yet. */
const manyChanges = 4096
const maxParts = 65_535

/** One life of an incarnation, whose records carry the number of its part; 0: they are left out. */
interface Life {
  readonly birth: number
  readonly number: number
  records: number
}

/**
 * Goes through a map in slices while batches go on being applied, and ends with each worker's exact state at one moment:
 *
 *     aliases   ████████████▒▒▒▒░░░░░░░░░░░░░░░░░     █ seen: what changes here is noted, and written again later
 *               partitions   ▲ being seen             ▒ copied in one go, and seen in slices; noted like what was seen
 *                                                     ░ not seen yet: what changes here will be seen as it is then
 *
 * What changed is written in its state of the moment, over what was written of it before, until little is left; that is
 * written in one go at the end, at which each worker is asked for its position. Blocks that the budget gives up meanwhile
 * may be in or out. Blocks that wait for their parents, and what was assumed of workers, are left out.
 */
export class SnapshotWriter {
  readonly #parts: MapParts
  readonly #wants: (slot: WorkerSlot) => boolean
  readonly #changes: SnapshotChanges
  /** Index + 1 of each entry that was written. */
  readonly #marks: Int32Array
  readonly #lives: (Life | undefined)[] = []
  #livesGiven = 0
  readonly #copy: Int32Array
  #copied = 0
  /** What was born since is not meant by what was copied. */
  #copiedAtBirth = 0
  #at = 0
  #draft = new ChunkDraft()
  readonly #spare: ChunkDraft[] = []
  #full: ChunkDraft[] = []
  #entries = 0
  #records = 0
  /** Keeps the reads that warm the cache from being optimized away. */
  #warm = 0
  readonly #ancestors: number[] = []
  readonly #writeChange = (incarnation: number, low: number, high: number, place: number): void =>
    this.#override(incarnation, low, high, place)

  /**
   * One at a time a map; `stop` ends it.
   *
   * @param wants Whether a slot's blocks may have a place in the snapshot; asked before the first of them is written.
   */
  constructor(parts: MapParts, wants: (slot: WorkerSlot) => boolean, limits = snapshotWriterLimits) {
    const { announcements, aliases, blocks, memory } = parts
    assert.ok(announcements.changes === null, 'one snapshot of a map is made at a time')
    this.#parts = parts
    this.#wants = wants
    this.#changes = new SnapshotChanges(aliases, limits.changes)
    // Pages of it cost nothing until they are first written, so it need not grow with the map.
    this.#marks = new Int32Array(new SharedArrayBuffer(4 * (memory.sizes.maxEntries + 2)))
    this.#copy = new Int32Array(aliases.partitionWords)
    announcements.changes = this.#changes
    blocks.entries.marks = this.#marks
  }

  /** Everything was seen, and little has changed since: `finish` will be quick. */
  get isReady(): boolean {
    const { passed, count } = this.#changes
    return this.#at >= this.#copied && passed === this.#parts.aliases.partitions && count <= fewChanges
  }

  /** Goes on until `isOver` says so, looked at every few microseconds, or `isReady`. @throws SnapshotError overrun */
  step(isOver: () => boolean): void {
    const { aliases } = this.#parts
    do {
      this.#checkChanges()
      if (this.#at < this.#copied && this.#changes.count < manyChanges) this.#seeSome()
      else if (this.#changes.passed === aliases.partitions || this.#changes.count >= manyChanges)
        this.#changes.take(stepRecords, this.#writeChange)
      else {
        this.#copied = aliases.copyPartition(this.#changes.passed, this.#copy)
        this.#copiedAtBirth = this.#parts.holders.lastBirth
        this.#at = 0
        this.#changes.passed++
      }
    } while (!this.isReady && !isOver())
  }

  /** Chunks that are full, oldest first; the caller gives each back once it is encoded. */
  take(): ChunkDraft[] {
    const full = this.#full
    this.#full = []
    return full
  }

  giveBack(draft: ChunkDraft): void {
    this.#spare.push(draft)
  }

  /** Writes what is left, in one go, and says what the parts are. After it `take` gives the last chunks. */
  finish(factsOf: (slot: WorkerSlot) => SnapshotFacts | null): SnapshotContents {
    assert.ok(this.isReady, 'a snapshot is closed when it is ready')
    this.#checkChanges()
    this.#changes.take(Infinity, this.#writeChange)
    const parts: SnapshotPart[] = []
    for (const holder of this.#parts.holders) {
      const life = this.#lifeOf(holder.incarnation)
      const facts = life === null ? null : factsOf(holder.slot)
      if (life === null || facts === null) continue
      parts.push({
        ...facts,
        number: life.number,
        blockSize: this.#parts.holders.blockSize(holder.slot),
        groups: [...holder.groups],
        announced: this.#parts.memory.incarnations[2 * holder.incarnation + 1] as number,
        records: life.records,
        blocks: [...holder.blocks],
      })
    }
    this.stop()
    if (this.#draft.entries > 0 || this.#draft.records > 0) this.#full.push(this.#draft)
    return { parts, entries: this.#entries, records: this.#records }
  }

  stop(): void {
    const { announcements, blocks } = this.#parts
    if (announcements.changes !== this.#changes) return
    announcements.changes = null
    blocks.entries.marks = null
  }

  #checkChanges(): void {
    if (!this.#changes.isOverrun) return
    this.stop()
    throw new SnapshotError('overrun', 'More of the map changed than could be noted while its snapshot was made')
  }

  /** Writes some of the records of the partition that was copied, as far as they still mean what they meant then. */
  #seeSome(): void {
    const { blocks } = this.#parts
    const { entries } = blocks
    const words = this.#copy
    const end = Math.min(this.#copied, this.#at + stepRecords * aliasRecord.words)
    // Reads at once what is read one after the other below.
    for (let at = this.#at; at < end; at += aliasRecord.words)
      this.#warm ^= entries.set(aliasRecord.entry(words, at)) ^ entries.generation(aliasRecord.entry(words, at))
    for (let at = this.#at; at < end; at += aliasRecord.words) {
      if (!aliasRecord.isUsed(words, at)) continue
      const incarnation = aliasRecord.incarnation(words, at)
      const life = this.#lifeOf(incarnation)
      if (life === null || life.birth > this.#copiedAtBirth) continue
      const id = aliasRecord.entry(words, at)
      const generation = aliasRecord.generation(words, at)
      const place = aliasRecord.place(words, at)
      // Evicted, or removed since it was copied: its id may be unused.
      if (generation !== entries.generation(id) || entries.set(id) === 0) continue
      // Only the last generation may be that of two blocks, of which one is held.
      if (generation === maxGeneration && !blocks.isHeld(id, (incarnation << memberIncarnationShift) | place)) continue
      const low = aliasRecord.hashLow(words, at)
      this.#write(life, low, aliasRecord.hashHigh(words, at), place, id, aliasRecord.storeCount(words, at))
    }
    this.#at = end
  }

  #override(incarnation: number, low: number, high: number, place: number): void {
    const { announcements } = this.#parts
    const life = this.#lifeOf(incarnation)
    if (life === null) return
    const id = announcements.lookUp(incarnation, low, high, place)
    this.#write(life, low, high, place | overrideBit, id, id === 0 ? 0 : announcements.storeCount)
  }

  #write(life: Life, low: number, high: number, place: number, id: number, storeCount: number): void {
    const newest = this.#entries
    const step = id === 0 ? 0 : this.#indexOf(id) - newest
    if (this.#draft.isFull) this.#nextChunk()
    const draft = this.#draft
    const row = draft.records++
    draft.hashLow[row] = low
    draft.hashHigh[row] = high
    draft.entryStep[row] = writtenStep(step)
    draft.part[row] = life.number
    draft.place[row] = place
    draft.storeCount[row] = storeCount
    life.records++
    this.#records++
  }

  /** Index + 1 of a block, which is written first if it was not yet, and its ancestors before it. */
  #indexOf(id: number): number {
    const marks = this.#marks
    if (marks[id] !== 0) return marks[id] as number
    const { entries } = this.#parts.blocks
    const ancestors = this.#ancestors
    let depth = 0
    for (let at = id; at !== 0 && marks[at] === 0; at = entries.parent(at)) ancestors[depth++] = at
    while (depth > 0) {
      const at = ancestors[--depth] as number
      const parent = entries.parent(at)
      if (this.#draft.isFull) this.#nextChunk()
      const draft = this.#draft
      const row = draft.entries++
      draft.keyLow[row] = entries.keyLow(at)
      draft.keyHigh[row] = entries.keyHigh(at)
      draft.touched[row] = entries.touched(at) ? 1 : 0
      this.#entries++
      draft.parentBack[row] = parent === 0 ? 0 : this.#entries - (marks[parent] as number)
      marks[at] = this.#entries
    }
    return marks[id]
  }

  #nextChunk(): void {
    this.#full.push(this.#draft)
    this.#draft = (this.#spare.pop() ?? new ChunkDraft()).begin(this.#entries)
  }

  /** The life of an incarnation whose records are wanted; null: they are not. */
  #lifeOf(incarnation: number): Life | null {
    const { holders, memory } = this.#parts
    // Below zero are those whose blocks are not proved yet.
    if ((memory.incarnations[2 * incarnation] as number) <= 0) return null
    const birth = holders.births[incarnation] as number
    let life = this.#lives[incarnation]
    if (life?.birth !== birth) {
      const holder = holders.of(incarnation)
      const isWanted = holder !== undefined && !holder.isAssumed && this.#wants(holder.slot)
      life = { birth, number: isWanted ? this.#nextNumber() : 0, records: 0 }
      this.#lives[incarnation] = life
    }
    return life.number === 0 ? null : life
  }

  #nextNumber(): number {
    if (this.#livesGiven === maxParts)
      throw new SnapshotError('overrun', 'More workers were cleared than could be told apart while a snapshot was made')
    return ++this.#livesGiven
  }
}
