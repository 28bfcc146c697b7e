import { trtllmBlockHash } from '../kv/engine-hash/trtllm.ts'
import type { EventOutlet } from './flavour.ts'
import { nameOf } from './host-cache.ts'
import type { BlockStored, KvEvent } from './kv-event.ts'
import { SetLike } from './set-like.ts'

export interface TrtllmOutletOptions {
  /** Null where the engine has one rank. */
  readonly rank: number | null
  /** Blocks on the GPU and on the host. */
  readonly blocksPerLevel: readonly [gpu: number, host: number]
  /** Tokens of the window that holds whole prefixes. */
  readonly window: number
  /** Tokens of a second, sliding window, whose pool announces the same blocks; null: there is none. */
  readonly slidingWindow: number | null
  /** Whether runs are announced together with a partial copy of their last block, as requests leave them that end in it. */
  readonly partialBlocks: boolean
  /** event_buffer_max_size: events that wait; the oldest give way to new ones. */
  readonly bufferedEvents: number
}

interface Held {
  readonly name: string
  readonly hash: bigint
  onGpu: boolean
  onHost: boolean
  /** Hash of the partial copy that was announced with it. */
  readonly partial: bigint | null
}

/**
 * A rank's KV events as TensorRT-LLM announces them: numbered, waiting as JSON until they are polled. A block is on one level
 * at a time: leaving the GPU for the host is an `updated`, and `removed` means gone from both.
 */
export class TrtllmOutlet implements EventOutlet {
  readonly subscribers = 0
  readonly #options: TrtllmOutletOptions
  readonly #tree = new SetLike()
  readonly #held = new Map<string, Held>()
  #waiting: string[] = []
  #id = 0
  #dropNext = 0
  #paused = false

  constructor(options: TrtllmOutletOptions) {
    this.#options = options
    const created = { type: 'created', num_blocks_per_cache_level: [...options.blocksPerLevel] }
    const { slidingWindow } = options
    this.#push(json(created), options.window)
    if (slidingWindow !== null) this.#push(json(created), slidingWindow)
  }

  get nextSequence(): number {
    return this.#id
  }

  /** What waits, as the JSON list that a poll answers; it is gone then. */
  take(): string {
    if (this.#paused) return '[]'
    const waiting = this.#waiting
    this.#waiting = []
    return `[${waiting.join(', ')}]`
  }

  publish(events: readonly KvEvent[]): void {
    const before = this.#waiting.length
    for (const event of this.#tree.of(events)) this.#tell(event)
    if (this.#dropNext === 0) return
    this.#dropNext--
    this.#waiting.length = before
  }

  dropNext(batches: number): void {
    this.#dropNext = batches
  }

  forgetBuffer(): void {
    this.#waiting = []
  }

  pause(): void {
    this.#paused = true
  }

  resume(): void {
    this.#paused = false
  }

  #tell(event: KvEvent): void {
    switch (event.kind) {
      case 'stored':
        if (event.tier === 'gpu') this.#stored(event)
        else if (event.tier === 'host') this.#copied(event)
        return
      case 'removed': {
        const held = this.#held.get(nameOf(event.low, event.high))
        if (held === undefined) return
        if (event.tier === 'gpu') this.#leftGpu(held)
        else if (event.tier === 'host') this.#leftHost(held)
        return
      }
      case 'cleared':
        this.#removed([...this.#held.values()])
        return
      default:
        event satisfies never
    }
  }

  /** Blocks that the host held come back; runs of the others are stored. */
  #stored(event: BlockStored): void {
    const blocks = event.hashes.length / 2
    let from = 0
    for (let block = 0; block < blocks; block++) {
      const held = this.#held.get(nameAt(event, block))
      if (held === undefined) continue
      this.#pushStored(event, from, block)
      from = block + 1
      if (!held.onGpu && held.onHost) this.#pushMove(held.hash, 1, 0)
      held.onGpu = true
    }
    this.#pushStored(event, from, blocks)
  }

  #copied(event: BlockStored): void {
    for (let block = 0; block < event.hashes.length / 2; block++) {
      const held = this.#held.get(nameAt(event, block))
      if (held !== undefined) held.onHost = true
    }
  }

  #leftGpu(held: Held): void {
    held.onGpu = false
    if (held.onHost) this.#pushMove(held.hash, 0, 1)
    else this.#removed([held])
  }

  #leftHost(held: Held): void {
    held.onHost = false
    if (!held.onGpu) this.#removed([held])
  }

  #removed(all: readonly Held[]): void {
    for (const { name } of all) this.#held.delete(name)
    const hashes = all.flatMap(({ hash, partial }) => (partial === null ? [hash] : [partial, hash]))
    if (hashes.length > 0) this.#pushBoth(json({ type: 'removed', block_hashes: hashes }))
  }

  #pushStored(event: BlockStored, from: number, end: number): void {
    if (end === from) return
    const partial = this.#options.partialBlocks ? partialOf(event, end - 1) : null
    const parent = from === 0 ? hashOf(event.parent) : hashAt(event, from - 1)
    const blocks = Array.from({ length: end - from }, (_, i) => storedBlock(event, from + i))
    for (let block = from; block < end; block++) {
      const own = block === end - 1 ? (partial?.hash ?? null) : null
      const name = nameAt(event, block)
      this.#held.set(name, { name, hash: hashAt(event, block), onGpu: true, onHost: false, partial: own })
    }
    const scope = event.loraName === null ? {} : { lora_name: event.loraName }
    if (partial !== null) {
      const above = end - 1 === from ? parent : hashAt(event, end - 2)
      const before = json({ type: 'stored', parent_hash: parent, ...scope, blocks: blocks.slice(0, -1) })
      if (blocks.length > 1) this.#pushBoth(before)
      this.#pushBoth(json({ type: 'stored', parent_hash: above, ...scope, blocks: [partial.block] }))
      this.#pushBoth(json({ type: 'stored', parent_hash: above, ...scope, blocks: blocks.slice(-1) }))
    } else this.#pushBoth(json({ type: 'stored', parent_hash: parent, ...scope, blocks }))
  }

  #pushMove(hash: bigint, from: number, to: number): void {
    const level = { type: 'event_diff', new_value: to, old_value: from }
    this.#pushBoth(json({ type: 'updated', block_hash: hash, cache_level: level, priority: null }))
  }

  /** The same for both windows. */
  #pushBoth(data: string): void {
    const { window, slidingWindow } = this.#options
    this.#push(data, window)
    if (slidingWindow !== null) this.#push(data, slidingWindow)
  }

  #push(data: string, window: number): void {
    const { rank, bufferedEvents } = this.#options
    const ofRank = rank === null ? '' : `, "attention_dp_rank": ${rank}`
    this.#waiting.push(`{"event_id": ${this.#id++}, "data": ${data}, "window_size": ${window}${ofRank}}`)
    if (this.#waiting.length > bufferedEvents) this.#waiting.shift()
  }
}

function nameAt({ hashes }: BlockStored, block: number): string {
  return nameOf(hashes[2 * block] as number, hashes[2 * block + 1] as number)
}

function hashAt({ hashes }: BlockStored, block: number): bigint {
  return (BigInt((hashes[2 * block + 1] as number) >>> 0) << 32n) | BigInt((hashes[2 * block] as number) >>> 0)
}

function hashOf(parent: BlockStored['parent']): bigint | null {
  return parent === null ? null : (BigInt(parent[1] >>> 0) << 32n) | BigInt(parent[0] >>> 0)
}

function storedBlock(event: BlockStored, block: number): object {
  const { blockSize, tokens } = event
  return blockOf(hashAt(event, block), tokens.subarray(block * blockSize, (block + 1) * blockSize), event.cacheSalt)
}

function blockOf(hash: bigint, tokens: Uint32Array, cacheSalt: string | null): object {
  return {
    type: 'stored_block',
    block_hash: hash,
    tokens: Array.from(tokens, (token) => ({ type: 'unique_token', token_id: token, token_extra_id: 0 })),
    cache_level: 0,
    priority: 35,
    ...(cacheSalt === null ? {} : { cache_salt: cacheSalt }),
  }
}

/** The first half of a block, as another request would have left it that ended there; null where that is nothing. */
function partialOf(event: BlockStored, block: number): { readonly hash: bigint; readonly block: object } | null {
  const { blockSize } = event
  const tokens = event.tokens.subarray(block * blockSize, block * blockSize + (blockSize >>> 1))
  if (tokens.length === 0) return null
  const [low, high] =
    block === 0 ? (event.parent ?? [0, 0]) : [event.hashes[2 * block - 2], event.hashes[2 * block - 1]]
  const own = trtllmBlockHash(tokens, { low: low ?? 0, high: high ?? 0 })
  const hash = (BigInt(own.high) << 32n) | BigInt(own.low)
  return { hash, block: blockOf(hash, tokens, event.cacheSalt) }
}

/** JSON with 64-bit numbers as Python writes them: all their digits. */
function json(value: object): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === 'bigint' ? (JSON as unknown as { rawJSON(text: string): unknown }).rawJSON(String(inner)) : inner,
  )
}
