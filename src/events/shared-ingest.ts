import { RouterError } from '../errors.ts'
import type { KvEvent, KvPresent } from '../kv/batch.ts'
import type { KeyMaker } from '../kv/keys.ts'
import { tierIndex } from '../kv/tier.ts'
import type { ChunkStore } from './chunk-store.ts'
import type { EventCounters } from './counters.ts'
import { decodeBatch, type DecodedBatch, type DecodedEvent } from './decode.ts'
import { decodeMooncake } from './mooncake.ts'
import { Normalizer } from './normalize.ts'
import type { PayloadIngest } from './sources/zmq.ts'

/** In which form a store publishes its events: as Mooncake's master does, or as engines do. */
export type SharedKind = 'mooncake' | 'lmcache'

export interface SharedIngestOptions {
  readonly kind: SharedKind
  readonly store: ChunkStore
  readonly keys: KeyMaker
  /** Canonical name of the pool's model. */
  readonly model: string
  /** Tokens in a block that is named by hash alone: the engines' block size, since only they can have described it. */
  readonly blockSize: () => number | null
  readonly counters: EventCounters
}

/** Brings the events of a store that no worker owns into the map. Whatever they say of a medium, all of it is shared. */
export class SharedIngest implements PayloadIngest {
  readonly #o: SharedIngestOptions
  readonly #normalizer: Normalizer
  #epoch = 1

  constructor(options: SharedIngestOptions) {
    this.#o = options
    this.#normalizer = new Normalizer({
      keys: options.keys,
      model: options.model,
      blockSize: null,
      skipped: (reason, count) => options.counters.skipped(reason, count),
      onBlockSize: () => undefined,
    })
  }

  get epoch(): number {
    return this.#epoch
  }

  apply(_sequence: number, _timestamp: number, payload: Buffer): void {
    const decoded = this.#decode(payload)
    if (decoded === null) return
    for (const event of decoded.events) this.#applyEvent(event)
  }

  clear(): void {
    this.#epoch++
    this.#o.store.clear()
  }

  #applyEvent(event: DecodedEvent): void {
    const { store, counters, blockSize } = this.#o
    const size = event.kind === 'store' && event.tokens.length > 0 ? event.blockSize : (store.blockSize ?? blockSize())
    const own = this.#ownOf(event)
    if (own === null) return
    if (size === null) {
      counters.skipped('block_size_unknown', 1)
      return
    }
    if (store.blockSize !== null && store.blockSize > size) {
      counters.skipped('chunk_size', 1)
      return
    }
    store.open(size)
    const outcome = store.apply([own])
    counters.event(own.kind === 'clear' ? 'cleared' : own.kind === 'remove' ? 'removed' : 'stored', 1)
    if (own.kind === 'store' || own.kind === 'present') counters.blocks('shared', 'stored', outcome.storedBlocks)
    if (own.kind === 'remove') counters.blocks('shared', 'removed', outcome.removedBlocks)
    if (outcome.unknownHashes > 0) counters.skipped('hash_unknown', outcome.unknownHashes)
    if (outcome.unknownRemovals > 0) counters.skipped('unknown_removal', outcome.unknownRemovals)
    if (outcome.orphaned > 0) counters.skipped('parent_unknown', outcome.orphaned)
  }

  /** Null where the event is left out. */
  #ownOf(event: DecodedEvent): KvEvent | null {
    if (event.kind === 'clear') return event
    const named = { tier: tierIndex.shared, group: 0, engineHashes: event.hashes }
    if (event.kind === 'remove') return { kind: 'remove', ...named }
    if (event.tokens.length === 0) return { kind: 'present', ...named } satisfies KvPresent
    const { others } = this.#normalizer.normalize([{ ...event, medium: 'shared', group: 0 }])
    return others[0]?.event ?? null
  }

  #decode(payload: Buffer): DecodedBatch | null {
    const { kind, counters } = this.#o
    try {
      const decoded = kind === 'mooncake' ? decodeMooncake(payload) : decodeBatch(payload)
      for (const [reason, count] of Object.entries(decoded.skipped)) if (count > 0) counters.skipped(reason, count)
      return decoded
    } catch (error) {
      if (!(error instanceof RouterError)) throw error
      counters.skipped('batch_malformed', 1)
      return null
    }
  }
}
