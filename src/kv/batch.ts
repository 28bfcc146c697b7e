/**
 * One event batch of one worker in Warmroute's own terms: what ingest emits and everyone applies (decision 5).
 *
 * 64-bit values travel as pairs of 32-bit words, low word first, in Uint32Arrays: JavaScript numbers lose bits above 2^53
 * and bigint costs seven times more (docs/benchmarks.md). Token ids never appear here (decision 2): a stored block is
 * described by its `local` hash (its own tokens and extras under the deployment's secret), from which the map chains the
 * block key once it knows the parent's.
 */

/** Index of a worker (URL and data-parallel rank) in the map and in the fleet view; reused after a worker is gone. */
export type WorkerSlot = number & { readonly brand: 'WorkerSlot' }

export interface KvBatch {
  readonly worker: WorkerSlot
  /** Counts the worker's clears and restarts: a batch of an older epoch is never applied. */
  readonly epoch: number
  /** The engine's sequence number of the batch; a batch delivered twice changes nothing (decision 6). */
  readonly sequence: number
  /** In the engine's order: within one batch a removal normally precedes the store that forced it. */
  readonly events: readonly KvEvent[]
}

export type KvEvent = KvStore | KvPresent | KvHold | KvRemove | KvClear

/** A run of blocks in chain order: block i+1 is the child of block i. */
export interface KvStore {
  readonly kind: 'store'
  readonly tier: number
  /** Cache group of a hybrid model; 0 where the engine has only one. */
  readonly group: number
  /** Engine hashes, two words a block. */
  readonly engineHashes: Uint32Array
  /** `local` hashes, two words a block, as made by `localHashes`. */
  readonly locals: Uint32Array
  /** Where the run hangs: at the root key of its scope, or under a block that the engine stored before. */
  readonly parent: KvParent
}

export type KvParent =
  | { readonly kind: 'root'; readonly keyLow: number; readonly keyHigh: number }
  | { readonly kind: 'block'; readonly hashLow: number; readonly hashHigh: number }

/**
 * Blocks that a tier now holds, named by hash alone: what an engine says that keeps their tokens to itself. They count
 * where their keys are known from what the worker announced before, in another tier or group.
 */
export interface KvPresent {
  readonly kind: 'present'
  readonly tier: number
  readonly group: number
  /** Engine hashes, two words a block. */
  readonly engineHashes: Uint32Array
}

/**
 * Blocks that the router concludes a worker to hold although no engine announced them. For want of an engine hash a block
 * is named by its key, also where it is removed.
 */
export interface KvHold {
  readonly kind: 'hold'
  readonly tier: number
  /** Block keys in chain order, two words a block. */
  readonly keys: Uint32Array
  /** Key of the block before the first, which the worker must hold too; null: the first one begins a prompt. */
  readonly parent: readonly [low: number, high: number] | null
}

export interface KvRemove {
  readonly kind: 'remove'
  /** Null: from every tier that holds them. */
  readonly tier: number | null
  readonly group: number
  /** Engine hashes, two words a block. */
  readonly engineHashes: Uint32Array
}

/** The engine dropped everything (AllBlocksCleared). */
export interface KvClear {
  readonly kind: 'clear'
}

/**
 * Where a worker's events stand: the last batch of its engine that was applied. Engines number their batches, and start
 * again at 0 as a new process; with the time that the batch itself carries, a number names one state of one process.
 */
export interface EventPosition {
  readonly sequence: number
  readonly timestamp: number
}

export function isSamePosition(one: EventPosition | null, other: EventPosition | null): boolean {
  if (one === null || other === null) return one === other
  return one.sequence === other.sequence && Object.is(one.timestamp, other.timestamp)
}

/** What an event may be about beside the engine's own blocks: a store of larger chunks, or one that no worker owns. */
export type StorePart = 'chunks' | 'shared'

export interface StoreEvent {
  readonly part: StorePart
  /** Tokens in each of the store's blocks. */
  readonly blockSize: number
  readonly event: KvEvent
}

/** A batch of an engine once its blocks have our names: what one router hands to others. */
export interface NamedBatch extends EventPosition {
  /** The batch before; null where what is known begins with this one. */
  readonly previous: EventPosition | null
  /** Tokens in a block of the engine's own; null while that is unknown. */
  readonly blockSize: number | null
  readonly events: readonly KvEvent[]
  readonly others: readonly StoreEvent[]
  /** Blocks whose removal is among both, since either may hold them. */
  readonly removedTwice: number
}
