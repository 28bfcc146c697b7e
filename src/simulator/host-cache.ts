import assert from 'node:assert/strict'
import type { BlockStored } from './kv-event.ts'

export interface HostCacheEvents {
  readonly onStored: (block: BlockStored) => void
  /** @param block What is about to be forgotten. */
  readonly onRemoved: (low: number, high: number, block: BlockStored) => void
}

/**
 * An engine's second tier: copies of single blocks in the memory of its machine, or on its disk. The least recently used one gives
 * way to a new one; of one chain the tail goes first.
 */
export class HostCache {
  readonly #capacityBlocks: number
  readonly #events: HostCacheEvents
  readonly #tier: 'host' | 'disk'
  /** By key of the name, least recently used first. */
  readonly #blocks = new Map<number, BlockStored>()

  constructor(capacityBlocks: number, events: HostCacheEvents, tier: 'host' | 'disk' = 'host') {
    assert(Number.isInteger(capacityBlocks) && capacityBlocks > 0, 'a host tier has at least one block')
    this.#capacityBlocks = capacityBlocks
    this.#events = events
    this.#tier = tier
  }

  has(low: number, high: number): boolean {
    return this.#blocks.has(keyOf(low, high))
  }

  get names(): string[] {
    return Array.from(this.#blocks.values(), (block) => nameOf(...wordsOf(block)))
  }

  /** Copies single blocks, given in chain order; those that are here already are only used again. */
  store(blocks: readonly BlockStored[]): void {
    for (const block of blocks) {
      const key = keyOf(...wordsOf(block))
      if (this.#blocks.has(key)) continue
      if (this.#blocks.size >= this.#capacityBlocks) this.#evict()
      const copy: BlockStored = { ...block, tier: this.#tier }
      this.#blocks.set(key, copy)
      this.#events.onStored(copy)
    }
    for (const block of blocks.toReversed()) this.touch(...wordsOf(block))
  }

  touch(low: number, high: number): void {
    const key = keyOf(low, high)
    const block = this.#blocks.get(key)
    if (block === undefined) return
    this.#blocks.delete(key)
    this.#blocks.set(key, block)
  }

  /** Forgets all without a word, as a reset of the whole cache does. */
  clear(): void {
    this.#blocks.clear()
  }

  #evict(): void {
    for (const [key, block] of this.#blocks) {
      this.#blocks.delete(key)
      this.#events.onRemoved(...wordsOf(block), block)
      return
    }
  }
}

/** A block's name as a text, for tables and for tests. */
export function nameOf(low: number, high: number): string {
  return `${(high >>> 0).toString(16).padStart(8, '0')}${(low >>> 0).toString(16).padStart(8, '0')}`
}

/** A block's name as a number, for maps: 53 of its 64 bits, and far cheaper than a text. */
export function keyOf(low: number, high: number): number {
  return (high & 0x1fffff) * 0x100000000 + (low >>> 0)
}

function wordsOf({ hashes }: BlockStored): readonly [low: number, high: number] {
  return [hashes[0] as number, hashes[1] as number]
}
