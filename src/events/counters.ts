import type { RootBlock } from '../kv/root-block.ts'
import type { Tier } from '../kv/tier.ts'

/** What the events' room counts; `main.ts` wires it to metrics. */
export interface EventCounters {
  /** Events that were applied. */
  event(kind: 'stored' | 'removed' | 'cleared', count: number): void
  /** Blocks that such events named, by tier; `all` where a removal means every tier. */
  blocks(tier: Tier | 'all', kind: 'stored' | 'removed', count: number): void
  /** Events, or parts of them, that were passed over. */
  skipped(reason: string, count: number): void
  /** Batches that were lost between the engine and here. */
  gap(): void
  /** Engine processes that turned out to be other ones. */
  restart(): void
  /** Subscriptions that broke. */
  disconnect(): void
}

/** Told what a worker's events did, so that the map can be checked by what its requests find. */
export interface EventsWitness {
  /** A batch came: blocks that it stored and removed, in all tiers; none where all of it was passed over. */
  applied(storedBlocks: number, removedBlocks: number): void
  /** What was known of the worker is gone: by an event of its own, or since it is no longer believed. */
  cleared(): void
  /** The first block of a chain was stored in the GPU's memory. */
  root(block: RootBlock): void
}
