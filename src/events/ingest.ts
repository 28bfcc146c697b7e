import { RouterError } from '../errors.ts'
import type { EventPosition, KvEvent, NamedBatch, StoreEvent, StorePart, WorkerSlot } from '../kv/batch.ts'
import type { KeyMaker } from '../kv/keys.ts'
import { tiers, type Tier } from '../kv/tier.ts'
import type { ApplyOutcome, CacheMap } from '../map/map.ts'
import type { EventCounters, EventsWitness } from './counters.ts'
import { decodeBatch, type DecodedBatch, type DecodedEvent } from './decode.ts'
import type { ChunkStore } from './chunk-store.ts'
import type { LearnedOfEngine } from './learned.ts'
import type { Losses } from './losses.ts'
import { Normalizer } from './normalize.ts'
import type { ClearReason } from './sequence.ts'

export interface IngestOptions {
  readonly worker: WorkerSlot
  readonly map: CacheMap
  readonly keys: KeyMaker
  /** Canonical name of the pool's model. */
  readonly model: string
  /** Tokens a block, where it is known before the first event. */
  readonly blockSize: number | null
  /** Whether the engine counts stores of one block (decision 6). */
  readonly countsStores: boolean
  readonly zeroParentIsRoot?: boolean
  /** Where media are that mean something else here than by default; names in lower case. */
  readonly media?: Readonly<Record<string, Tier>>
  /** Where a worker's blocks go that are not its engine's own; null where there is no place left. */
  readonly stores?: (part: StorePart) => ChunkStore | null
  /** Epoch of the first batch, at least 1: higher than any that replicas may still know of this worker. */
  readonly firstEpoch?: number
  /** What is lost for good; absent: the stream is believed however much that is. */
  readonly losses?: Losses
  /** Hears of what came from the engine, for the other replicas. */
  readonly sink?: IngestSink
  readonly counters: EventCounters
  readonly witness?: EventsWitness
  /** Block size that the engine's own events show; the map knows it already. */
  readonly onBlockSize: (tokens: number) => void
}

/** Where the batches of an engine go beside the map. */
export interface IngestSink {
  /** A batch was applied. */
  batch(batch: NamedBatch): void
  /** What was known is not believed any more. */
  cleared(reason: ForgetReason): void
}

/** Why a worker's blocks are forgotten. */
export type ForgetReason = ClearReason | 'start' | 'window'

/**
 * THE event in four calls: decode the engine's bytes, name its blocks by our own hashes, apply them to the map, hand
 * them on. What may be applied at all, and in which order, `sequence.ts` has decided before.
 */
export class Ingest {
  readonly #options: IngestOptions
  readonly #normalizer: Normalizer
  /** Stores beside the engine's own blocks, once something was stored there. */
  readonly #stores: { chunks?: ChunkStore; shared?: ChunkStore } = {}
  #epoch: number
  #position: EventPosition | null = null
  /** Of one batch, by tier and then in all tiers. */
  readonly #blocksStored = new Float64Array(tiers.length + 1)
  readonly #blocksRemoved = new Float64Array(tiers.length + 1)

  constructor(options: IngestOptions) {
    this.#options = options
    this.#epoch = options.firstEpoch ?? 1
    this.#normalizer = new Normalizer({
      ...options,
      skipped: (reason, count) => options.counters.skipped(reason, count),
      onRoot: (block) => options.witness?.root(block),
      onBlockSize: (blockSize) => {
        options.map.addWorker(options.worker, { countsStores: options.countsStores, blockSize })
        options.onBlockSize(blockSize)
      },
    })
  }

  /** Counts the worker's clears and restarts. */
  get epoch(): number {
    return this.#epoch
  }

  /** The last batch that was applied; null where nothing is. */
  get position(): EventPosition | null {
    return this.#position
  }

  /** Whether the stream loses so much that nothing of it is believed: the worker counts as one without events. */
  get isLossy(): boolean {
    return this.#options.losses?.areFrequent ?? false
  }

  /** What the engine's batches have shown of it. */
  get learned(): LearnedOfEngine {
    return this.#normalizer.learned
  }

  /** Goes on from what another one had applied, and the map holds. */
  resume(position: EventPosition | null, learned: LearnedOfEngine): void {
    this.#position = position
    this.#normalizer.recall(learned)
  }

  /** Applies one payload of the engine. One that cannot be decoded is passed over and counted. */
  apply(sequence: number, timestamp: number, payload: Buffer): void {
    const decoded = this.#decode(payload)
    this.applyEvents(sequence, timestamp, decoded?.events ?? [])
  }

  /** Applies events that are decoded already: not every engine publishes payloads. */
  applyEvents(sequence: number, timestamp: number, decoded: readonly DecodedEvent[]): void {
    const previous = this.#position
    const named = this.#normalizer.normalize(decoded)
    const batch = { sequence, timestamp, previous, blockSize: this.#normalizer.blockSize, ...named }
    this.#enter(batch)
    this.#options.sink?.batch(batch)
  }

  /** Applies a batch that another router had from the engine. */
  follow(batch: NamedBatch): void {
    this.#normalizer.observe(batch)
    this.#enter(batch)
  }

  #enter({ sequence, timestamp, events, others, removedTwice }: NamedBatch): void {
    const { worker, map, counters, witness } = this.#options
    this.#position = { sequence, timestamp }
    if (this.isLossy) {
      counters.skipped('stream_lossy', 1)
      this.#tell(events)
      return
    }
    const unknownElsewhere = others.length === 0 ? 0 : this.#applyOthers(others)
    if (events.length === 0) {
      if (unknownElsewhere > 0) counters.skipped('unknown_removal', unknownElsewhere)
      witness?.applied(0, 0)
      return
    }
    const outcome = map.apply({ worker, epoch: this.#epoch, sequence, events })
    outcome.unknownRemovals = Math.max(0, outcome.unknownRemovals + unknownElsewhere - removedTwice)
    this.#count(events, outcome)
    this.#tell(events)
  }

  /** Applies what is not the engine's own; answers how many removals named what is not there. */
  #applyOthers(others: readonly StoreEvent[]): number {
    let unknownRemovals = 0
    for (const part of ['chunks', 'shared'] as const) {
      const own = others.filter((other) => other.part === part)
      if (own.length === 0) continue
      const store = this.#stores[part] ?? this.#options.stores?.(part) ?? null
      if (store === null) {
        this.#options.counters.skipped('store_left_out', own.length)
        continue
      }
      this.#stores[part] = store
      const blockSize = own.reduce((largest, other) => Math.max(largest, other.blockSize), 0)
      store.open(blockSize)
      const events = own.filter((other) => isOfSize(other, blockSize)).map(({ event }) => event)
      const outcome = store.apply(events)
      unknownRemovals += outcome.unknownRemovals
      outcome.unknownRemovals = 0
      this.#count(events, outcome)
    }
    return unknownRemovals
  }

  /** Forgets the worker's blocks, since the engine is not known to hold them, and tells the other replicas. */
  clear(reason: ForgetReason): void {
    this.forget(reason)
    this.#options.sink?.cleared(reason)
  }

  /**
   * Forgets the worker's blocks, here only, and opens a new epoch. What is concluded of a worker whose stream is lossy does
   * not hang on one more loss.
   */
  forget(reason: string): void {
    const { worker, map, losses } = this.#options
    const { chunks, shared } = this.#stores
    const wasLossy = this.isLossy
    if (reason === 'gap') losses?.gap()
    else if (reason === 'restart') losses?.clear()
    this.#epoch++
    this.#position = null
    this.#normalizer.reset()
    if (reason === 'gap' && wasLossy) return
    map.clear(worker, this.#epoch)
    chunks?.clear()
    // What others may still hold is kept, unless something that left it may not have been heard.
    if (shared?.tellsRemovals === true) shared.clear()
    this.#options.witness?.cleared()
  }

  #decode(payload: Buffer): DecodedBatch | null {
    const { counters } = this.#options
    try {
      const decoded = decodeBatch(payload)
      const { unknown_kind, unknown_field, event_malformed } = decoded.skipped
      if (unknown_kind > 0) counters.skipped('unknown_kind', unknown_kind)
      if (unknown_field > 0) counters.skipped('unknown_field', unknown_field)
      if (event_malformed > 0) counters.skipped('event_malformed', event_malformed)
      return decoded
    } catch (error) {
      if (!(error instanceof RouterError)) throw error
      counters.skipped('batch_malformed', 1)
      return null
    }
  }

  #tell(events: readonly KvEvent[]): void {
    const { witness } = this.#options
    if (witness === undefined) return
    let storedBlocks = 0
    let removedBlocks = 0
    for (const event of events) {
      if (event.kind === 'store' || event.kind === 'present') storedBlocks += event.engineHashes.length / 2
      else if (event.kind === 'remove') removedBlocks += event.engineHashes.length / 2
      else witness.cleared()
    }
    witness.applied(storedBlocks, removedBlocks)
  }

  #count(events: readonly KvEvent[], outcome: ApplyOutcome): void {
    const { counters } = this.#options
    if (outcome.ignored) {
      counters.skipped('batch_ignored', 1)
      return
    }
    let stored = 0
    let removed = 0
    let cleared = 0
    for (const { kind } of events) {
      if (kind === 'store' || kind === 'present') stored++
      else if (kind === 'remove') removed++
      else cleared++
    }
    this.#countBlocks(events)
    if (stored > 0) counters.event('stored', stored)
    if (removed > 0) counters.event('removed', removed)
    if (cleared > 0) counters.event('cleared', cleared)
    if (outcome.unknownRemovals > 0) counters.skipped('unknown_removal', outcome.unknownRemovals)
    if (outcome.unknownHashes > 0) counters.skipped('hash_unknown', outcome.unknownHashes)
    if (outcome.orphaned > 0) counters.skipped('parent_unknown', outcome.orphaned)
    if (outcome.parentEvicted > 0) counters.skipped('parent_evicted', outcome.parentEvicted)
  }

  /** A tier whose stream is missing shows at once where blocks are counted by tier. */
  #countBlocks(events: readonly KvEvent[]): void {
    const { counters } = this.#options
    const stored = this.#blocksStored.fill(0)
    const removed = this.#blocksRemoved.fill(0)
    for (const event of events) {
      if (event.kind === 'clear' || event.kind === 'hold') continue
      const counts = event.kind === 'remove' ? removed : stored
      const place = event.tier ?? tiers.length
      counts[place] = (counts[place] as number) + event.engineHashes.length / 2
    }
    for (let place = 0; place <= tiers.length; place++) {
      const tier = tiers[place] ?? 'all'
      if (stored[place] !== 0) counters.blocks(tier, 'stored', stored[place] as number)
      if (removed[place] !== 0) counters.blocks(tier, 'removed', removed[place] as number)
    }
  }
}

/** Whether an event still means something in a store of this size: what was stored in a smaller one is forgotten. */
function isOfSize({ event, blockSize }: StoreEvent, size: number): boolean {
  return blockSize === size || event.kind === 'remove' || event.kind === 'clear'
}
