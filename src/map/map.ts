import type { KvBatch, KvEvent, WorkerSlot } from '../kv/batch.ts'

/** The keys of one prompt at one block size; one query per distinct block size in the pool (decision 3). */
export interface MatchQuery {
  readonly blockSize: number
  /** Block keys in chain order, two words a block, low word first. */
  readonly keys: Uint32Array
}

/**
 * The prefix match of every worker, by tier, in blocks of that worker's own block size (decision 4). Indexed by
 * WorkerSlot; allocated once by the caller and filled anew by each `match`.
 */
export interface PrefixMatch {
  /** gpu + host + disk partition the worker's run: its longest unbroken row of leading blocks in any of its own tiers. */
  readonly gpu: Uint32Array
  readonly host: Uint32Array
  readonly disk: Uint32Array
  /** Further blocks directly after the run that the shared store holds. */
  readonly shared: Uint32Array
}

/** A match of so many slots to be filled. */
export function newPrefixMatch(slots: number): PrefixMatch {
  const counts = (): Uint32Array => new Uint32Array(slots)
  return { gpu: counts(), host: counts(), disk: counts(), shared: counts() }
}

/** What the request path needs of the map; safe on any thread while thread 0 writes (decision 26). */
export interface MapReader {
  /** Fills `out` for all workers in one walk, whatever it held before; without queries with zeros. Exact under any order of events, holes included. */
  match(queries: readonly MatchQuery[], out: PrefixMatch): void
}

export interface WorkerMapOptions {
  /** Engine counts stores of one block and needs as many removals (vLLM); otherwise a store is set-like (decision 6). */
  readonly countsStores: boolean
  /** Blocks of this size make the worker's keys; null while unknown. */
  readonly blockSize: number | null
  /** Workers among whose blocks of the same size a hash is looked up that this one has not announced itself. */
  readonly kin?: readonly WorkerSlot[]
}

/** How a batch was applied, for metrics; reused by the callee. */
export interface ApplyOutcome {
  storedBlocks: number
  removedBlocks: number
  /** Removals of hashes that the worker never announced (ignored). */
  unknownRemovals: number
  /** Blocks waiting for a parent that was never seen (decision 7). */
  orphaned: number
  /** Blocks named by hash alone whose key is not known from elsewhere (left out). */
  unknownHashes: number
  /** Blocks refused because their parent was evicted for the budget (decision 8). */
  parentEvicted: number
  /** True when the batch was a duplicate or of an older epoch, and changed nothing. */
  ignored: boolean
}

export interface MapStats {
  readonly entries: number
  readonly keys: number
  readonly sets: number
  readonly aliases: number
  readonly orphans: number
  readonly orphansDropped: number
  readonly bytes: number
  readonly budgetBytes: number
  readonly evictions: number
  readonly blocksByTier: readonly [number, number, number, number]
}

/** The global KV-cache map: block key → which workers hold it, in which tier. One writer, many readers. */
export interface CacheMap extends MapReader {
  addWorker(slot: WorkerSlot, options: WorkerMapOptions): void
  /** Forgets the worker wholly; its slot may be given to another. */
  removeWorker(slot: WorkerSlot): void
  /** Drops every entry, alias, count and orphan of the worker in a time that does not depend on their number. */
  clear(slot: WorkerSlot, epoch: number): void
  apply(batch: KvBatch): ApplyOutcome
  /** Gives blocks of the worker their keys whose parents its kin has announced since they came. */
  adopt(slot: WorkerSlot): void
  /**
   * Applies what the router itself concludes of a worker that announces nothing. A worker's entries are either announced
   * or assumed, never both: its first assumption clears what was announced, its next batch what was assumed.
   */
  assume(slot: WorkerSlot, events: readonly KvEvent[]): ApplyOutcome
  /** Drops what was assumed of a worker, if anything was. */
  retract(slot: WorkerSlot): void
  /** Blocks that the worker holds, by tier. */
  workerBlocks(slot: WorkerSlot): { gpu: number; host: number; disk: number }
  stats(): MapStats
}
