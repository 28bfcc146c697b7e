import type { Worker } from '../workers/worker.ts'
import type { WorkerRecord } from './record.ts'

/** What a request is expected to find and to leave behind, as it is sent to its worker. */
export interface Expected {
  /** Block keys of its prompt at the worker's block size. */
  readonly keys: Uint32Array
  readonly tokens: Uint32Array
  /** Leading blocks that the worker's own tiers hold by the map, and those directly behind that the shared store holds. */
  readonly runBlocks: number
  readonly sharedBlocks: number
  /** Blocks behind these that other requests are computing there: found only if they come in time. */
  readonly comingBlocks: number
  readonly adapter: string | null
  readonly salt: string | null
  readonly chat: boolean
  /** Whether its engine answers with what it generates, so that what it computes stays cached. */
  readonly generates: boolean
  /** Whether the cached tokens that it reports are those of this one prompt. */
  readonly reports: boolean
}

/** A request on its way, with what its worker's events had told when it was sent. */
export interface Watched extends Expected {
  readonly worker: Worker
  readonly record: WorkerRecord
  readonly blockSize: number
  /** Full blocks that are left cached at least, and found cached at most. */
  readonly blocks: number
  readonly sentMs: number
  readonly storedBefore: number
  readonly removedBefore: number
  readonly skipsBefore: number
  readonly clearsBefore: number
}

/** What an answer that is complete tells. */
export interface Answered {
  /** Null where the engine did not report it. */
  readonly cachedTokens: number | null
  readonly stream: boolean
}

/** An answer of which the map does not have all blocks yet. */
export interface Sought {
  readonly watched: Watched
  readonly found: number | null
  /** The longest run of its prompt since then. */
  run: number | null
  readonly answeredMs: number
  /** Blocks removed before anybody looked for its own; null while nobody does. */
  readonly removedUnseen: number | null
}

/** How much of what was expected cannot be explained by what the events have told in between; in blocks. */
export interface Difference {
  /** Blocks of the prompt that should have been stored by now and are not in the map. */
  readonly missing: number
  /** Blocks that were predicted and neither found nor removed in between. */
  readonly over: number
  /** Blocks that were found and neither predicted nor stored in between. */
  readonly under: number
}

/** What bears on a comparison besides the request. */
export interface Circumstances {
  /** Whether the map knows all that the engine holds. */
  readonly isWhole: boolean
  /** Blocks that the map holds of the worker. */
  readonly heldBlocks: number
  /** Blocks removed while nobody looked for the prompt's own. */
  readonly removedUnseen: number
}

/** From this share of a cache removed in the meantime on, even what was just used may be among it. */
const thrashingShare = 0.25

/**
 * Compares what was expected with what came. Each block that was evicted on the way must have been told as removed, and
 * each block that others stored on the way as stored: a difference that is larger than these is no race. What a request
 * left behind was used last, so it is evicted only when all that was free before it is gone.
 *
 * @param runBlocks the longest run of the prompt by the map since the answer; null where it was not looked up
 * @param foundBlocks what the engine reported; null where it did not
 */
export function differenceOf(
  watched: Watched,
  runBlocks: number | null,
  foundBlocks: number | null,
  { isWhole, heldBlocks, removedUnseen }: Circumstances,
): Difference {
  const { record, blocks } = watched
  const stored = record.storedBlocks - watched.storedBefore
  const removed = record.removedBlocks - watched.removedBefore
  const expected = Math.min(watched.runBlocks, blocks)
  const reach = Math.min(watched.runBlocks + watched.sharedBlocks, blocks)
  // What the engine held before its events were heard is stored for nobody to hear.
  const tellsAll = isWhole || (foundBlocks !== null && foundBlocks <= expected)
  // A copy that was never announced may be removed, and with it the block that the map has in its place.
  const evicted = !isWhole ? removed : removedUnseen >= heldBlocks * thrashingShare ? removedUnseen : 0
  const missing = runBlocks === null || !tellsAll ? 0 : blocks - runBlocks - evicted
  if (foundBlocks === null) return { missing: Math.max(0, missing), over: 0, under: 0 }
  return {
    missing: Math.max(0, missing),
    over: Math.max(0, expected - foundBlocks - removed),
    under: isWhole ? Math.max(0, foundBlocks - reach - stored) : 0,
  }
}

export function isNone({ missing, over, under }: Difference): boolean {
  return missing === 0 && over === 0 && under === 0
}

/** Whether the worker's cache is still the one that the request was sent to, and known. */
export function isComparable({ worker, record, clearsBefore, blockSize }: Watched): boolean {
  return worker.exact && record.clears === clearsBefore && worker.blockSize === blockSize
}
