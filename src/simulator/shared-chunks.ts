import assert from 'node:assert/strict'
import type { EngineOptions } from './engine-options.ts'
import type { BlockStored } from './kv-event.ts'
import type { Sequence } from './sequence.ts'
import type { SharedStore } from './shared-store.ts'

export interface SharedChunksEvents {
  /** Absent: nobody hears of chunks. */
  readonly onStored?: (chunk: BlockStored) => void
  /** A chunk that the engine brought has left the store. */
  readonly onRemoved: (low: number, high: number) => void
}

/** One engine's part in a store that it shares with others: what it finds there, and what it brings. */
export class SharedChunks {
  readonly #store: SharedStore
  readonly #blockSize: number
  readonly #onShared: EngineOptions['onShared']
  readonly #events: SharedChunksEvents

  constructor(
    store: SharedStore,
    { blockSize, onShared }: Pick<EngineOptions, 'blockSize' | 'onShared'>,
    events: SharedChunksEvents,
  ) {
    assert(store.chunkTokens % blockSize === 0, 'a chunk of the shared store is a whole number of blocks')
    this.#store = store
    this.#blockSize = blockSize
    this.#onShared = onShared
    this.#events = events
  }

  get names(): readonly string[] {
    return this.#store.names
  }

  /** Leading blocks of a prompt that the store holds; it is asked by whole chunks from the first on. */
  leadingBlocks(sequence: Sequence): number {
    if (!isPlain(sequence)) return 0
    if (sequence.chunkNames.length === 0) sequence.chunkNames = this.#namesOf(sequence, sequence.promptTokens)
    return (this.#store.leading(sequence.chunkNames) * this.#store.chunkTokens) / this.#blockSize
  }

  /** What it holds of a prompt is about to be loaded. */
  use({ chunkNames }: Sequence): void {
    this.#store.use(chunkNames, this.#store.leading(chunkNames))
  }

  /** A block was loaded from here. */
  loaded(low: number, high: number): void {
    this.#onShared?.('loaded', low, high)
  }

  /** Puts the whole chunks among the first so many tokens into the store. */
  put(sequence: Sequence, tokens: number): void {
    if (!isPlain(sequence)) return
    const store = this.#store
    const chunks = Math.floor(tokens / store.chunkTokens)
    if (chunks === sequence.sharedChunks) return
    const names = this.#namesOf(sequence, tokens)
    for (let chunk = sequence.sharedChunks; chunk < chunks; chunk++) {
      const low = names[2 * chunk] as number
      const high = names[2 * chunk + 1] as number
      if (!store.put(low, high, this.#events.onRemoved)) continue
      this.#onShared?.('put', low, high)
      this.#events.onStored?.(this.#storedEvent(sequence, names, chunk))
    }
    sequence.sharedChunks = chunks
    // Of given blocks the whole chain is used anew once a prompt's chunk is computed, and at the end: there may be thousands.
    if (sequence.request.given === undefined || sequence.computedTokens < sequence.promptTokens)
      store.use(names, chunks)
  }

  /** The request has ended. */
  leave({ request, sharedChunks }: Sequence): void {
    if (request.given !== undefined) this.#store.use(request.given.names, sharedChunks)
  }

  /** Names of the whole chunks among so many tokens. Blocks that are given by name are chunks of their own. */
  #namesOf({ request, tokens }: Sequence, length: number): Uint32Array {
    if (request.given === undefined) return this.#store.namesOf(tokens, length)
    assert(this.#store.chunkTokens === this.#blockSize, 'blocks that are given by name are chunks of the shared store')
    return request.given.names.subarray(0, 2 * Math.floor(length / this.#blockSize))
  }

  #storedEvent({ request, tokens }: Sequence, names: Uint32Array, chunk: number): BlockStored {
    const { chunkTokens } = this.#store
    const { given } = request
    return {
      kind: 'stored',
      tier: 'shared',
      blockSize: chunkTokens,
      hashes: names.slice(2 * chunk, 2 * chunk + 2),
      parent: chunk === 0 ? null : [names[2 * chunk - 2] as number, names[2 * chunk - 1] as number],
      tokens: tokens.slice(chunk * chunkTokens, (chunk + 1) * chunkTokens),
      ...(given === undefined ? {} : { locals: given.locals.subarray(2 * chunk, 2 * chunk + 2) }),
      fromStart: chunk === 0,
      cacheSalt: null,
      loraName: null,
      loraId: null,
      sessionId: null,
    }
  }
}

/** The shared store does not tell adapters and tenants apart. */
function isPlain({ request }: Sequence): boolean {
  return request.lora === undefined && request.cacheSalt === undefined
}
