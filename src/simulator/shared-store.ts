import assert from 'node:assert/strict'
import { fastBlockHash } from './block-hash.ts'
import { keyOf, nameOf } from './host-cache.ts'

export interface SharedStoreOptions {
  readonly capacityChunks: number
  /** Tokens of a chunk; a multiple of every engine's block size. */
  readonly chunkTokens?: number
}

/** Hears that a chunk which it brought has left the store. */
export type ChunkOwner = (low: number, high: number) => void

/**
 * A store of KV chunks that several engines of one process read and write, as LMCache's or Mooncake's. It names chunks by a chain
 * of its own over whole chunks of tokens, so that its names mean nothing to the engines. The least recently used chunk goes first.
 */
export class SharedStore {
  readonly chunkTokens: number
  readonly #capacityChunks: number
  /** By key of the name, least recently used first. */
  readonly #chunks = new Map<number, { readonly low: number; readonly high: number; readonly owner: ChunkOwner }>()

  constructor({ capacityChunks, chunkTokens = 256 }: SharedStoreOptions) {
    assert(Number.isInteger(capacityChunks) && capacityChunks > 0, 'a store holds at least one chunk')
    this.#capacityChunks = capacityChunks
    this.chunkTokens = chunkTokens
  }

  get names(): string[] {
    return Array.from(this.#chunks.values(), ({ low, high }) => nameOf(low, high))
  }

  /** Names of the leading whole chunks of a prompt, two words each. */
  namesOf(tokens: Uint32Array, length = tokens.length): Uint32Array {
    const chain = fastBlockHash({ cacheSalt: 'shared store', loraName: null, loraPath: null }, this.chunkTokens)
    const names = new Uint32Array(2 * Math.floor(length / this.chunkTokens))
    for (let at = 0; at < names.length; at += 2) {
      chain.append(tokens, (at / 2) * this.chunkTokens)
      names[at] = chain.low
      names[at + 1] = chain.high
    }
    return names
  }

  /** How many leading chunks are here. */
  leading(names: Uint32Array): number {
    let chunks = 0
    while (2 * chunks < names.length && this.#chunks.has(chunkKey(names, chunks))) chunks++
    return chunks
  }

  /** Leading chunks are read; of one chain the tail stays the first to go. */
  use(names: Uint32Array, chunks: number): void {
    for (let chunk = chunks - 1; chunk >= 0; chunk--) {
      const key = chunkKey(names, chunk)
      const known = this.#chunks.get(key)
      if (known === undefined) continue
      this.#chunks.delete(key)
      this.#chunks.set(key, known)
    }
  }

  /** Puts a chunk; false: it was here already. */
  put(low: number, high: number, owner: ChunkOwner): boolean {
    const key = keyOf(low, high)
    if (this.#chunks.has(key)) return false
    if (this.#chunks.size >= this.#capacityChunks) this.#evict()
    this.#chunks.set(key, { low, high, owner })
    return true
  }

  #evict(): void {
    for (const [key, { low, high, owner }] of this.#chunks) {
      this.#chunks.delete(key)
      owner(low, high)
      return
    }
  }
}

function chunkKey(names: Uint32Array, chunk: number): number {
  return keyOf(names[2 * chunk] as number, names[2 * chunk + 1] as number)
}
