/**
 * The map's memory: one reservation a table, as large as the byte budget could ever ask, on SharedArrayBuffers.
 *
 *     entries      5 words an entry {key low, key high, set id, parent entry, children}; ids are stable
 *     touched      1 byte an entry, set racily by readers, cleared by the clock hand
 *     index        1 word a place {tag, entry id, the id in as many bits as there are ids}; 2^n partitions, each open-addressed and growing alone
 *     sets         set id → record {generation, member count, members…}
 *     incarnations who is meant by a member; a cleared worker gets a new incarnation, so one store forgets it
 *     workers      the incarnation and the block size of each worker slot
 *
 * Pages of a reservation cost nothing until they are first written, so tables grow inside it in small steps, and a
 * reader on another thread needs no message when they do. What counts against the budget is what was taken into use.
 */
import assert from 'node:assert/strict'

/** Words of an entry. */
export const entryWords = 5
export const keyLowWord = 0
export const keyHighWord = 1
export const setWord = 2
export const parentWord = 3
export const childrenWord = 4

/** Entry ids take at most 26 bits. */
export const entryIdBits = 26
export const entryIdMask = (1 << entryIdBits) - 1
/** The bits above an alias's entry id hold the entry's generation. */
export const maxGeneration = (1 << (32 - entryIdBits)) - 1

/** Cache groups of one worker and tier that the map can tell apart. */
export const maxGroups = 8
export const tierCount = 4
export const sharedTier = 3

/** A member of a set: incarnation, group and tier of a holder in one word. */
export const memberTierBits = 2
export const memberGroupBits = 3
export const memberIncarnationShift = memberTierBits + memberGroupBits

/** Below this a map could not hold even its fixed tables. */
export const minimumBudgetBytes = 64 * 1024
export const defaultBudgetBytes = 1024 * 1024 * 1024
export const defaultMaxWorkers = 1024
export const defaultOrphansPerWorker = 4096

/** Homes are computed from 16 bits, so no partition is larger. */
const maxPartitionPlaces = 65_536
const keysPerPartition = 32_768
/** Room above the mean for the fullest partition, over the highest load. */
const partitionSlack = 1.5

export interface MapSizes {
  readonly maxWorkers: number
  readonly maxIncarnations: number
  readonly maxEntries: number
  readonly maxSets: number
  readonly maxSetWords: number
  /** Bits of an index word that hold the entry id; the others hold the top bits of the key's high word. */
  readonly idBits: number
  readonly indexBits: number
  readonly indexPlaces: number
  readonly aliasBits: number
  readonly aliasPlaces: number
}

/** What another thread needs to read the map; survives structured cloning. */
export interface MapHandle {
  readonly sizes: MapSizes
  readonly entries: SharedArrayBuffer
  readonly touched: SharedArrayBuffer
  readonly index: SharedArrayBuffer
  readonly indexCapacities: SharedArrayBuffer
  readonly setOffsets: SharedArrayBuffer
  readonly setRecords: SharedArrayBuffer
  readonly incarnations: SharedArrayBuffer
  readonly workers: SharedArrayBuffer
}

/** The same memory as views. */
export interface MapMemory {
  readonly sizes: MapSizes
  readonly entries: Int32Array
  readonly touched: Uint8Array
  readonly index: Int32Array
  readonly indexCapacities: Int32Array
  readonly setOffsets: Int32Array
  readonly setRecords: Int32Array
  /** Two words each: owner's slot + 1 (0: dead; negated: readers pass it over), and the announced groups, eight bits a tier. */
  readonly incarnations: Int32Array
  /** Two words a slot: incarnation (0: no such worker) and block size (0: unknown). */
  readonly workers: Int32Array
}

export function mapSizes(budgetBytes: number, maxWorkers: number): MapSizes {
  assert.ok(budgetBytes >= minimumBudgetBytes, `a map needs a budget of at least ${minimumBudgetBytes} bytes`)
  assert.ok(maxWorkers >= 1 && maxWorkers <= 8192, 'a map serves 1 to 8192 workers')
  const maxEntries = Math.min(Math.floor(budgetBytes / 32), entryIdMask - 1)
  const maxAliases = Math.floor(budgetBytes / 20)
  const indexBits = partitionBits(maxEntries)
  const aliasBits = partitionBits(maxAliases)
  return {
    maxWorkers,
    maxIncarnations: Math.max(64, 4 * maxWorkers),
    maxEntries,
    maxSets: Math.min(Math.floor(budgetBytes / 64), 1 << 24),
    maxSetWords: Math.floor(budgetBytes / 8),
    idBits: 32 - Math.clz32(maxEntries),
    indexBits,
    indexPlaces: partitionPlaces(maxEntries, indexBits),
    aliasBits,
    aliasPlaces: partitionPlaces(maxAliases, aliasBits),
  }
}

export function reserveMap(sizes: MapSizes): MapHandle {
  const words = (count: number): SharedArrayBuffer => new SharedArrayBuffer(4 * count)
  return {
    sizes,
    // Readers look at the entry after a matched one, so there is one more than ids.
    entries: words((sizes.maxEntries + 2) * entryWords),
    touched: new SharedArrayBuffer(sizes.maxEntries + 2),
    index: words(sizes.indexPlaces << sizes.indexBits),
    indexCapacities: words(1 << sizes.indexBits),
    setOffsets: words(sizes.maxSets + 1),
    setRecords: words(sizes.maxSetWords),
    incarnations: words(2 * sizes.maxIncarnations),
    workers: words(2 * sizes.maxWorkers),
  }
}

export function viewMap(handle: MapHandle): MapMemory {
  return {
    sizes: handle.sizes,
    entries: new Int32Array(handle.entries),
    touched: new Uint8Array(handle.touched),
    index: new Int32Array(handle.index),
    indexCapacities: new Int32Array(handle.indexCapacities),
    setOffsets: new Int32Array(handle.setOffsets),
    setRecords: new Int32Array(handle.setRecords),
    incarnations: new Int32Array(handle.incarnations),
    workers: new Int32Array(handle.workers),
  }
}

/** Bytes of the tables whose size does not depend on what is stored. */
export function fixedBytes(sizes: MapSizes): number {
  return 8 * sizes.maxIncarnations + 8 * sizes.maxWorkers + (8 << sizes.indexBits) + (8 << sizes.aliasBits)
}

/** At least one bit, because a shift by 32 is a shift by 0. */
function partitionBits(keys: number): number {
  let bits = 1
  while (keys / (1 << bits) > keysPerPartition) bits++
  return bits
}

function partitionPlaces(keys: number, bits: number): number {
  return Math.min(maxPartitionPlaces, Math.ceil((keys / (1 << bits)) * partitionSlack) + 256)
}
