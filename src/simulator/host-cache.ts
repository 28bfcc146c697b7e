import assert from 'node:assert/strict'
import type { BlockStored } from './kv-event.ts'

export interface HostCacheEvents {
  readonly onStored: (block: BlockStored) => void
  readonly onRemoved: (low: number, high: number) => void
}

/**
 * An engine's second tier: copies of single blocks in the memory of its machine. The least recently used one gives way to a new
 * one; of one chain the tail goes first.
 */
export class HostCache {
  readonly #capacityBlocks: number
  readonly #events: HostCacheEvents
  /** By name, least recently used first. */
  readonly #blocks = new Map<string, BlockStored>()

  constructor(capacityBlocks: number, events: HostCacheEvents) {
    assert(Number.isInteger(capacityBlocks) && capacityBlocks > 0, 'a host tier has at least one block')
    this.#capacityBlocks = capacityBlocks
    this.#events = events
  }

  has(low: number, high: number): boolean {
    return this.#blocks.has(nameOf(low, high))
  }

  get names(): Iterable<string> {
    return this.#blocks.keys()
  }

  /** Copies single blocks, given in chain order; those that are here already are only used again. */
  store(blocks: readonly BlockStored[]): void {
    for (const block of blocks) {
      const [low, high] = wordsOf(block)
      const name = nameOf(low, high)
      if (this.#blocks.has(name)) continue
      if (this.#blocks.size >= this.#capacityBlocks) this.#evict()
      const copy: BlockStored = { ...block, tier: 'host' }
      this.#blocks.set(name, copy)
      this.#events.onStored(copy)
    }
    for (const block of blocks.toReversed()) this.touch(...wordsOf(block))
  }

  touch(low: number, high: number): void {
    const name = nameOf(low, high)
    const block = this.#blocks.get(name)
    if (block === undefined) return
    this.#blocks.delete(name)
    this.#blocks.set(name, block)
  }

  /** Forgets all without a word, as a reset of the whole cache does. */
  clear(): void {
    this.#blocks.clear()
  }

  #evict(): void {
    for (const [name, block] of this.#blocks) {
      this.#blocks.delete(name)
      this.#events.onRemoved(...wordsOf(block))
      return
    }
  }
}

/** A block's name as a text, for tables and for tests. */
export function nameOf(low: number, high: number): string {
  return `${(high >>> 0).toString(16).padStart(8, '0')}${(low >>> 0).toString(16).padStart(8, '0')}`
}

function wordsOf({ hashes }: BlockStored): readonly [low: number, high: number] {
  return [hashes[0] as number, hashes[1] as number]
}
