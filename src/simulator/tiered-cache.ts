import assert from 'node:assert/strict'
import { BlockCache } from './block-cache.ts'
import type { EngineOptions } from './engine-options.ts'
import { HostCache, nameOf } from './host-cache.ts'
import type { BlockStored, KvEvent } from './kv-event.ts'
import type { Sequence } from './sequence.ts'
import { SharedChunks } from './shared-chunks.ts'

export interface TieredCacheEvents {
  /** The tiers changed; absent: no events are built. */
  readonly tell?: (event: KvEvent) => void
  /** A chunk that the engine brought has left the shared store, which may be at any time. */
  readonly onSharedRemoved: (low: number, high: number) => void
}

/** What an engine holds, by tier: names of distinct blocks, and of chunks in the shared store. */
export interface TrueBlocks {
  readonly gpu: ReadonlySet<string>
  readonly host: ReadonlySet<string>
  /** Absent where there is no disk. */
  readonly disk?: ReadonlySet<string>
  readonly shared: ReadonlySet<string>
}

/** Leading blocks of a prompt by tier, `shared` those that follow the engine's own directly. */
export interface TrueMatch {
  readonly gpu: number
  readonly host: number
  /** Absent where there is no disk. */
  readonly disk?: number
  readonly shared: number
}

/** Blocks that were brought to the GPU from other tiers. */
export type LoadedBlocks = Readonly<Record<(typeof slowTiers)[number], number>>

/** The tiers behind the GPU, in the order in which they are asked. */
export const slowTiers = ['host', 'disk', 'shared'] as const

/** Places of blocks that are not on the GPU. */
const inHost = -1
const inShared = -2
const inDisk = -3

/**
 * All that an engine's requests can find cached: the blocks on its GPU, copies of them in its host tier and on its disk, and the store
 * that it shares with others. It knows where blocks are, and nothing of time.
 */
export class TieredCache {
  readonly #options: EngineOptions
  readonly #tell: TieredCacheEvents['tell']
  readonly #gpu: BlockCache
  readonly #host: HostCache | null
  readonly #disk: HostCache | null
  readonly #shared: SharedChunks | null
  /** By block, what to copy when it leaves the GPU. */
  readonly #copies: (BlockStored | undefined)[] = []
  /** Blocks that running requests will still need. */
  #reservedBlocks = 0
  #changes = 0

  constructor(options: EngineOptions, { tell, onSharedRemoved }: TieredCacheEvents) {
    const { capacityBlocks, hostBlocks, diskBlocks, hostWrites, sharedStore, sharedRemovals } = options
    this.#options = options
    this.#tell = tell
    assert(diskBlocks === 0 || hostBlocks > 0, 'a disk takes what leaves the host tier')
    this.#disk = this.#tierOf('disk', diskBlocks, null)
    this.#host = this.#tierOf('host', hostBlocks, this.#disk)
    this.#gpu = new BlockCache(capacityBlocks, (low, high, block) => {
      const copy = this.#copies[block]
      if (copy !== undefined && hostWrites === 'evicted') this.#host?.store([copy])
      tell?.({ kind: 'removed', tier: 'gpu', low, high })
    })
    const chunkEvents = {
      onRemoved: sharedRemovals ? onSharedRemoved : () => undefined,
      ...(tell === undefined ? {} : { onStored: tell }),
    }
    this.#shared = sharedStore === null ? null : new SharedChunks(sharedStore, options, chunkEvents)
  }

  /** Share of the GPU's blocks that running requests hold; cached but free blocks count as free. */
  get usage(): number {
    return 1 - this.#gpu.freeBlocks / this.#gpu.capacityBlocks
  }

  /** Counts what may make room for a request that had none. */
  get changes(): number {
    return this.#changes
  }

  /** What the tiers hold now. */
  trueBlocks(): TrueBlocks {
    const gpu = new Set<string>()
    this.#gpu.eachName((low, high) => gpu.add(nameOf(low, high)))
    const disk = this.#disk === null ? {} : { disk: new Set(this.#disk.names) }
    return { gpu, host: new Set(this.#host?.names), ...disk, shared: new Set(this.#shared?.names) }
  }

  /** The leading blocks of a prompt that the tiers hold now, the block of its last token included. */
  trueMatch(sequence: Sequence): TrueMatch {
    const places = this.#placesOf(sequence, Math.floor(sequence.promptTokens / this.#options.blockSize))
    const count = (wanted: (place: number) => boolean): number => places.filter(wanted).length
    return {
      gpu: count((place) => place >= 0),
      host: count((place) => place === inHost),
      ...(this.#disk === null ? {} : { disk: count((place) => place === inDisk) }),
      shared: count((place) => place === inShared),
    }
  }

  /** Leading tokens of a prompt that a request need not compute. */
  cachedTokens(sequence: Sequence): number {
    return this.#cachedPlaces(sequence).length * this.#options.blockSize
  }

  /** Takes a request in, with what the tiers hold of it; null: the GPU has no room for it up to its last token. */
  admit(sequence: Sequence, nowMs: number): LoadedBlocks | null {
    const places = this.#cachedPlaces(sequence)
    let needed = sequence.totalBlocks
    let freeHits = 0
    for (const place of places) {
      if (place < 0) continue
      needed--
      if (this.#gpu.isFree(place)) freeHits++
    }
    if (this.#gpu.freeBlocks - freeHits - this.#reservedBlocks < needed) return null
    for (const place of places) if (place >= 0) this.#gpu.hold(place)
    sequence.admit(places, nowMs)
    const loaded = this.#load(sequence)
    this.#reservedBlocks += sequence.totalBlocks - places.length
    return loaded
  }

  /** Gives a request the blocks for its tokens up to this one and names those that these tokens fill, as vLLM does beforehand. */
  extend(sequence: Sequence, reach: number): void {
    const { blockSize } = this.#options
    while (sequence.blocks.length * blockSize < reach) {
      sequence.blocks.push(this.#gpu.allocate())
      this.#reservedBlocks--
    }
    const full = Math.floor(reach / blockSize)
    if (full === sequence.announcedBlocks) return
    sequence.hashUpTo(full)
    while (sequence.namedBlocks < full) this.#name(sequence, sequence.namedBlocks++)
    this.#announce(sequence, sequence.announcedBlocks, full)
    sequence.announcedBlocks = full
    this.#shared?.put(sequence, full * blockSize)
  }

  /** Lets a request go, from the end of its chain, so that its tail is evicted first. */
  release(sequence: Sequence): void {
    this.#changes++
    if (!sequence.admitted) return
    this.#shared?.leave(sequence)
    this.#reservedBlocks -= sequence.totalBlocks - sequence.blocks.length
    for (let i = sequence.blocks.length - 1; i >= 0; i--) this.#gpu.release(sequence.blocks[i] as number)
  }

  /** Empties all tiers but the shared store. False while requests hold blocks. */
  clear(): boolean {
    if (!this.#gpu.forgetNames()) return false
    this.#changes++
    this.#host?.clear()
    this.#disk?.clear()
    this.#tell?.({ kind: 'cleared' })
    return true
  }

  #tierOf(tier: 'host' | 'disk', blocks: number, next: HostCache | null): HostCache | null {
    if (blocks === 0) return null
    const events = {
      onStored: (block: BlockStored) => this.#tell?.(block),
      onRemoved: (low: number, high: number, block: BlockStored) => {
        next?.store([block])
        this.#tell?.({ kind: 'removed', tier, low, high })
      },
    }
    return new HostCache(blocks, events, tier)
  }

  /** Where the leading blocks are that a request need not compute; the last token of a prompt is always computed. */
  #cachedPlaces(sequence: Sequence): number[] {
    return this.#placesOf(sequence, Math.floor((sequence.promptTokens - 1) / this.#options.blockSize))
  }

  /** Of at most so many leading blocks, the block on the GPU or the tier that holds each; up to the first that none holds. */
  #placesOf(sequence: Sequence, most: number): number[] {
    const places: number[] = []
    while (places.length < most) {
      const i = places.length
      sequence.hashUpTo(i + 1)
      const low = sequence.hashes[2 * i] as number
      const high = sequence.hashes[2 * i + 1] as number
      const block = this.#gpu.find(low, high)
      if (block >= 0) places.push(block)
      else if (this.#host?.has(low, high) === true) places.push(inHost)
      else if (this.#disk?.has(low, high) === true) places.push(inDisk)
      else break
    }
    const shared = Math.min(most, this.#shared?.leadingBlocks(sequence) ?? 0)
    if (shared > places.length) sequence.hashUpTo(shared)
    while (places.length < shared) places.push(inShared)
    return places
  }

  /** Brings the blocks that other tiers hold into the GPU, where they are named and announced like computed ones. */
  #load(sequence: Sequence): LoadedBlocks {
    const { blocks, hashes } = sequence
    const loaded = { host: 0, disk: 0, shared: 0 }
    for (let i = blocks.length - 1; i >= 0; i--) {
      if (blocks[i] === inHost) this.#host?.touch(hashes[2 * i] as number, hashes[2 * i + 1] as number)
      else if (blocks[i] === inDisk) this.#disk?.touch(hashes[2 * i] as number, hashes[2 * i + 1] as number)
    }
    if (blocks.includes(inShared)) this.#shared?.use(sequence)
    let first = 0
    for (let i = 0; i <= blocks.length; i++) {
      const place = blocks[i]
      if (place !== undefined && place < 0) {
        loaded[place === inHost ? 'host' : place === inDisk ? 'disk' : 'shared']++
        if (place === inShared) this.#shared?.loaded(hashes[2 * i] as number, hashes[2 * i + 1] as number)
        blocks[i] = this.#gpu.allocate()
        this.#name(sequence, i)
        continue
      }
      if (first < i && sequence.announcedBlocks > 0) this.#announce(sequence, first, i)
      first = i + 1
    }
    return loaded
  }

  #name(sequence: Sequence, i: number): void {
    this.#changes++
    const block = sequence.blocks[i] as number
    this.#gpu.name(block, sequence.hashes[2 * i] as number, sequence.hashes[2 * i + 1] as number)
    if (this.#host !== null) this.#copies[block] = sequence.storedEvent(i, i + 1)
  }

  /** Tells of named blocks, and copies them to the host tier where that is done at once. */
  #announce(sequence: Sequence, first: number, end: number): void {
    this.#tell?.(sequence.storedEvent(first, end))
    if (this.#host === null || this.#options.hostWrites !== 'through') return
    this.#host.store(sequence.blocks.slice(first, end).flatMap((block) => this.#copies[block] ?? []))
  }
}
