import assert from 'node:assert/strict'
import { RouterError } from '../errors.ts'
import { BlockCache } from './block-cache.ts'
import { fastBlockHash, type BlockHash } from './block-hash.ts'
import { HostCache, nameOf } from './host-cache.ts'
import type { BlockStored, KvEvent } from './kv-event.ts'
import type { SharedStore } from './shared-store.ts'
import { promptTokensOf, Sequence, type GenerationRequest, type GenerationResult } from './sequence.ts'

/** What a simulated engine is; every figure has a default. */
export interface EngineOptions {
  /** Tokens in a block. */
  readonly blockSize: number
  /** Blocks in the KV cache. */
  readonly capacityBlocks: number
  /** Longest prompt plus output, in tokens; never more than the cache holds. */
  readonly maxModelLength: number
  /** Tokens that one step computes at most, over all requests; a longer prefill is cut into chunks. */
  readonly maxBatchedTokens: number
  /** Requests that are computed at the same time; further ones wait, first come, first served. */
  readonly maxRunningRequests: number
  /** Duration of a step = base + prefill tokens / rate + decoding requests × their share. */
  readonly stepBaseMs: number
  readonly prefillTokensPerSecond: number
  readonly decodeMsPerRequest: number
  /** Blocks in the host tier; 0: there is none. */
  readonly hostBlocks: number
  /** When a block is copied to the host tier: once it is full, or when it leaves the GPU. */
  readonly hostWrites: 'through' | 'evicted'
  /** To load a block from the host tier, added to the step that begins with it. */
  readonly hostLoadMsPerBlock: number
  /** Blocks on a disk behind the host tier, which takes what leaves that; 0: there is none. */
  readonly diskBlocks: number
  readonly diskLoadMsPerBlock: number
  /** How long it takes until so many blocks are loaded from a tier, in place of the figures by block. */
  readonly loadMs?: (tier: 'host' | 'disk' | 'shared', blocks: number, nowMs: number) => number
  /** Hears of each block or chunk that is loaded from the shared store or put there. */
  readonly onShared?: (kind: 'loaded' | 'put', low: number, high: number) => void
  /** A store that this engine shares with others; null: none. Requests with an adapter or a salt do not use it. */
  readonly sharedStore: SharedStore | null
  readonly sharedLoadMsPerBlock: number
  /** Whether what leaves the shared store is announced by the engine that brought it. */
  readonly sharedRemovals: boolean
  /** With the prompt, determines every generated token. */
  readonly seed: number
  /** The ids to generate from: ordinary tokens of the tokenizer, none of them special. */
  readonly outputTokens: Uint32Array
  readonly blockHash: BlockHash
  readonly onToken?: (sequence: Sequence, token: number, atMs: number) => void
  readonly onFirstToken?: (id: string, atMs: number) => void
  readonly onFinished?: (result: GenerationResult) => void
  /** One batch a step that changed the cache, in the order in which it changed; left out, no events are built. */
  readonly onEvents?: (events: readonly KvEvent[], atMs: number) => void
}

export const engineDefaults: Omit<
  EngineOptions,
  'loadMs' | 'onShared' | 'onToken' | 'onFirstToken' | 'onFinished' | 'onEvents'
> = {
  blockSize: 16,
  capacityBlocks: 8_192,
  maxModelLength: 131_072,
  maxBatchedTokens: 2_048,
  maxRunningRequests: 256,
  stepBaseMs: 6,
  prefillTokensPerSecond: 8_000,
  decodeMsPerRequest: 0.35,
  hostBlocks: 0,
  hostWrites: 'through',
  hostLoadMsPerBlock: 0.1,
  diskBlocks: 0,
  diskLoadMsPerBlock: 0.3,
  sharedStore: null,
  sharedLoadMsPerBlock: 0.5,
  sharedRemovals: true,
  seed: 0,
  outputTokens: Uint32Array.from({ length: 4_096 }, (_, i) => 1_000 + i),
  blockHash: fastBlockHash,
}

export interface EngineStats {
  readonly running: number
  readonly waiting: number
  /** Share of blocks that running requests hold, 0 to 1; cached but free blocks count as free. */
  readonly kvUsage: number
  readonly promptTokens: number
  readonly generatedTokens: number
  /** Prompt tokens that were looked up in the prefix cache, and those found there. */
  readonly prefixQueryTokens: number
  readonly prefixHitTokens: number
  /** The same of requests that have ended, in whatever way. */
  readonly endedPromptTokens: number
  readonly endedCachedTokens: number
  readonly finished: number
  readonly aborted: number
  readonly steps: number
  /** Durations of all steps, the one in progress included. */
  readonly busyMs: number
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

export interface EngineBacklog {
  /** Prompt tokens to compute beyond the step in progress. */
  readonly prefillTokens: number
  /** Requests that generate. */
  readonly decoding: number
  /** Until the step in progress ends. */
  readonly stepLeftMs: number
}

/** Places of blocks that are not on the GPU. */
const inHost = -1
const inShared = -2
const inDisk = -3

/**
 * A vLLM engine as a function of time: continuous batching with chunked prefill over a paged prefix cache. It has no
 * clock, timers or sockets; whoever drives it says what time it is. Equal options and calls give equal results.
 *
 * A step is scheduled as a whole (running requests first, then waiting ones while tokens, places and blocks suffice),
 * lasts for its modelled duration, and then yields its KV events and one token of each request that has no more to
 * compute. A request is admitted only when the cache can hold it to its end, so nothing is ever preempted.
 *
 * Steps in a row that only continue answers are passed over in one go where nobody hears of single tokens:
 *
 *     step        0    1    2    3    4    5        0 fills no block and admits nobody; 1 to 4 fill and open none;
 *     calm        ├────────────────────┤            the last one, 5, ends like any other: with an answer's end, or
 *                                                   before a block is full or opened. A request that comes cuts it short.
 */
export class Engine {
  readonly options: EngineOptions
  readonly #cache: BlockCache
  readonly #host: HostCache | null
  readonly #disk: HostCache | null
  /** By block, what to copy when it leaves the GPU. */
  readonly #copies: (BlockStored | undefined)[] = []
  readonly #sequences = new Map<string, Sequence>()
  #waiting: Sequence[] = []
  #running: Sequence[] = []
  /** What the step in progress computes: sequences and how many tokens of each. */
  #scheduled: Sequence[] = []
  #events: KvEvent[] = []
  #nowMs = 0
  #stepEndsAtMs: number | null = null
  #stepMs = 0
  #slowness = 1
  /** Steps like the one in progress, itself included, in which nothing else happens. */
  #calmSteps = 1
  /** Steps until the first answer ends, the one in progress included; 1 where that is not known. */
  #untilTold = 1
  /** Calm steps that are over and not counted in the sequences yet. */
  #passedSteps = 0
  /** Counts what may let in the request that was refused last, and that count when it was. */
  #changes = 0
  #refused: Sequence | null = null
  #refusedAtChange = 0
  /** A step's results are being told; a request that comes in answer to them waits for the next step. */
  #finishing = false
  /** What the requests admitted to the next step load from other tiers. */
  #loadingMs = 0
  /** Blocks that running requests will still need. */
  #reservedBlocks = 0
  #promptTokens = 0
  #generatedTokens = 0
  #prefixQueryTokens = 0
  #prefixHitTokens = 0
  #endedPromptTokens = 0
  #endedCachedTokens = 0
  #finished = 0
  #aborted = 0
  #steps = 0
  #busyMs = 0

  constructor(options: Partial<EngineOptions> = {}) {
    const all = { ...engineDefaults, ...options }
    const room = all.capacityBlocks * all.blockSize
    this.options = { ...all, maxModelLength: Math.min(all.maxModelLength, room) }
    assert(all.outputTokens.length > 0, 'an engine has something to say')
    const tell = (event: KvEvent): void => {
      if (all.onEvents !== undefined) this.#events.push(event)
    }
    const tierOf = (tier: 'host' | 'disk', blocks: number, next: HostCache | null): HostCache | null =>
      blocks === 0
        ? null
        : new HostCache(
            blocks,
            {
              onStored: tell,
              onRemoved: (low, high, block) => {
                next?.store([block])
                tell({ kind: 'removed', tier, low, high })
              },
            },
            tier,
          )
    this.#disk = tierOf('disk', all.diskBlocks, null)
    this.#host = tierOf('host', all.hostBlocks, this.#disk)
    assert(all.diskBlocks === 0 || all.hostBlocks > 0, 'a disk takes what leaves the host tier')
    this.#cache = new BlockCache(all.capacityBlocks, (low, high, block) => {
      const copy = this.#copies[block]
      if (copy !== undefined && all.hostWrites === 'evicted') this.#host?.store([copy])
      tell({ kind: 'removed', tier: 'gpu', low, high })
    })
    const chunkTokens = all.sharedStore?.chunkTokens ?? all.blockSize
    assert(chunkTokens % all.blockSize === 0, 'a chunk of the shared store is a whole number of blocks')
  }

  get nowMs(): number {
    return this.#nowMs
  }

  get stats(): EngineStats {
    this.#settle()
    return {
      running: this.#running.length,
      waiting: this.#waiting.length,
      kvUsage: 1 - this.#cache.freeBlocks / this.#cache.capacityBlocks,
      promptTokens: this.#promptTokens,
      generatedTokens: this.#generatedTokens,
      prefixQueryTokens: this.#prefixQueryTokens,
      prefixHitTokens: this.#prefixHitTokens,
      endedPromptTokens: this.#endedPromptTokens,
      endedCachedTokens: this.#endedCachedTokens,
      finished: this.#finished,
      aborted: this.#aborted,
      steps: this.#steps,
      busyMs: this.#busyMs,
    }
  }

  /**
   * When the engine has something to tell at the earliest: the end of the step in progress, or of a later one where those until
   * then tell no more than events that can wait; null while there is nothing to do.
   */
  nextEventMs(): number | null {
    if (this.#stepEndsAtMs === null || this.#untilTold <= 1) return this.#stepEndsAtMs
    // A little less than the sum of so many durations, whichever way it is rounded.
    return this.#stepEndsAtMs + (this.#untilTold - 1) * this.#stepMs * (1 - 1e-9)
  }

  /** Runs all steps that end at or before this time. */
  advanceTo(nowMs: number): void {
    assert(nowMs >= this.#nowMs, 'time does not go back')
    while (this.#stepEndsAtMs !== null && this.#stepEndsAtMs <= nowMs) {
      this.#nowMs = this.#stepEndsAtMs
      if (this.#calmSteps > 1) {
        this.#passStep()
        continue
      }
      this.#settle()
      this.#stepEndsAtMs = null
      this.#finishing = true
      this.#finishStep()
      this.#finishing = false
      this.#startStep()
    }
    this.#nowMs = nowMs
  }

  /** Tokens of this prompt that the cache holds now, in any tier, and that a request would not compute again. */
  cachedTokens(request: GenerationRequest): number {
    return this.#matchedBlocks(new Sequence(request, this.options, this.#nowMs)).length * this.options.blockSize
  }

  /** What the tiers hold now. */
  trueBlocks(): TrueBlocks {
    const gpu = new Set<string>()
    this.#cache.eachName((low, high) => gpu.add(nameOf(low, high)))
    const disk = this.#disk === null ? {} : { disk: new Set(this.#disk.names) }
    return { gpu, host: new Set(this.#host?.names), ...disk, shared: new Set(this.options.sharedStore?.names) }
  }

  /** The leading blocks of a prompt that the tiers hold now, the block of its last token included. */
  trueMatch(request: GenerationRequest): TrueMatch {
    const sequence = new Sequence(request, this.options, this.#nowMs)
    const places = this.#placesOf(sequence, Math.floor(sequence.promptTokens / this.options.blockSize))
    const count = (wanted: (place: number) => boolean): number => places.filter(wanted).length
    return {
      gpu: count((place) => place >= 0),
      host: count((place) => place === inHost),
      ...(this.#disk === null ? {} : { disk: count((place) => place === inDisk) }),
      shared: count((place) => place === inShared),
    }
  }

  /** Tokens that a request under way has generated; 0 where there is none of this id. */
  generatedTokens(id: string): number {
    this.#settle()
    return this.#sequences.get(id)?.generatedTokens ?? 0
  }

  /** What is left to do before a request that came now could begin: what an all-knowing router would look at. */
  backlog(): EngineBacklog {
    let prefillTokens = 0
    let decoding = 0
    for (const sequence of this.#running) {
      const left = sequence.promptTokens - sequence.computedTokens
      if (left > 0)
        prefillTokens += left - (this.#scheduled.includes(sequence) ? Math.min(left, sequence.scheduledTokens) : 0)
      else decoding++
    }
    prefillTokens += this.waitingTokens()
    return { prefillTokens, decoding, stepLeftMs: this.#stepEndsAtMs === null ? 0 : this.#stepEndsAtMs - this.#nowMs }
  }

  /** Prompt tokens of waiting requests that are not cached. */
  waitingTokens(): number {
    const uncached = (sequence: Sequence): number =>
      sequence.promptTokens - this.#matchedBlocks(sequence).length * this.options.blockSize
    return this.#waiting.reduce((sum, sequence) => sum + uncached(sequence), 0)
  }

  /** Queues a request. PROMPT_TOO_LONG where prompt and output exceed `maxModelLength`. */
  add(request: GenerationRequest, nowMs: number): void {
    this.advanceTo(nowMs)
    const promptTokens = promptTokensOf(request)
    const length = promptTokens + request.outputTokens
    if (length > this.options.maxModelLength) {
      throw new RouterError('PROMPT_TOO_LONG', `${length} tokens exceed the limit of ${this.options.maxModelLength}.`)
    }
    assert(promptTokens > 0 && request.outputTokens > 0, 'a request has a prompt and asks for output')
    assert(!this.#sequences.has(request.id), 'the ids of live requests differ')
    const sequence = new Sequence(request, this.options, nowMs)
    this.#sequences.set(request.id, sequence)
    this.#waiting.push(sequence)
    this.#disturb()
    if (this.#stepEndsAtMs === null && !this.#finishing) this.#startStep()
  }

  /** From the next step on each takes so many times as long as the engine's figures say. */
  slowDown(factor: number, nowMs: number): void {
    this.advanceTo(nowMs)
    this.#slowness = factor
    this.#disturb()
  }

  /** Drops a request and frees its blocks at once. False where there is none of this id. */
  abort(id: string, nowMs: number): boolean {
    this.advanceTo(nowMs)
    const sequence = this.#sequences.get(id)
    if (sequence === undefined) return false
    this.#settle()
    this.#disturb()
    this.#aborted++
    this.#waiting = this.#waiting.filter((other) => other !== sequence)
    this.#running = this.#running.filter((other) => other !== sequence)
    this.#scheduled = this.#scheduled.filter((other) => other !== sequence)
    this.#free(sequence)
    return true
  }

  /** Empties the prefix cache. False while requests hold blocks. Subscribers hear of it with the next step only. */
  resetPrefixCache(nowMs: number): boolean {
    this.advanceTo(nowMs)
    if (!this.#cache.forgetNames()) return false
    this.#changes++
    this.#host?.clear()
    this.#disk?.clear()
    if (this.options.onEvents !== undefined) this.#events.push({ kind: 'cleared' })
    return true
  }

  #startStep(): void {
    const { maxBatchedTokens, maxRunningRequests, stepBaseMs, prefillTokensPerSecond, decodeMsPerRequest } =
      this.options
    let budgetTokens = maxBatchedTokens
    let prefillTokens = 0
    let decoding = 0
    this.#scheduled = []
    for (const sequence of this.#running) {
      const tokens = Math.min(sequence.uncomputedTokens, budgetTokens)
      if (tokens === 0) continue
      budgetTokens -= tokens
      if (sequence.computedTokens >= sequence.promptTokens) decoding++
      else prefillTokens += tokens
      this.#schedule(sequence, tokens)
    }
    let admitted = 0
    while (admitted < this.#waiting.length && this.#running.length < maxRunningRequests && budgetTokens > 0) {
      const sequence = this.#waiting[admitted] as Sequence
      if (sequence === this.#refused && this.#changes === this.#refusedAtChange) break
      if (!this.#admit(sequence)) {
        this.#refused = sequence
        this.#refusedAtChange = this.#changes
        break
      }
      this.#refused = null
      admitted++
      const tokens = Math.min(sequence.uncomputedTokens, budgetTokens)
      budgetTokens -= tokens
      prefillTokens += tokens
      this.#running.push(sequence)
      this.#schedule(sequence, tokens)
    }
    if (admitted > 0) this.#waiting.splice(0, admitted)
    if (this.#scheduled.length === 0) return
    const computingMs =
      stepBaseMs + this.#loadingMs + (prefillTokens * 1_000) / prefillTokensPerSecond + decoding * decodeMsPerRequest
    this.#stepMs = computingMs * this.#slowness
    this.#loadingMs = 0
    this.#steps++
    this.#busyMs += this.#stepMs
    this.#stepEndsAtMs = this.#nowMs + this.#stepMs
    this.#disturb()
    if (decoding === this.#scheduled.length && this.options.onToken === undefined) this.#foresee()
  }

  /** All that are scheduled continue their answers: for how many steps on end will they, and nothing else? */
  #foresee(): void {
    const { blockSize, maxRunningRequests } = this.options
    const mayAdmit = this.#waiting.length > 0 && this.#running.length < maxRunningRequests
    if ((mayAdmit && this.#refused !== this.#waiting[0]) || this.#scheduled.length < this.#running.length) return
    let untilTold = Infinity
    let untilBlock = Infinity
    for (const sequence of this.#scheduled) {
      if (sequence.request.given === undefined) return
      untilTold = Math.min(untilTold, sequence.leftTokens)
      const inBlock = sequence.computedTokens % blockSize
      // The step after which the block is full, and the one that opens the next.
      const full = inBlock < blockSize - 1 ? blockSize - 1 - inBlock : blockSize
      const opens = blockSize - inBlock
      untilBlock = Math.min(untilBlock, full, opens)
    }
    // A block more that is cached may let in the request that was refused.
    this.#untilTold = mayAdmit ? Math.min(untilTold, untilBlock) : untilTold
    // What this step has to tell is told when it ends.
    if (this.#events.length === 0) this.#calmSteps = Math.min(untilTold, untilBlock)
  }

  /** Something comes in between: the step in progress is the last one that is foreseen. */
  #disturb(): void {
    this.#calmSteps = 1
    this.#untilTold = 1
  }

  #passStep(): void {
    this.#calmSteps--
    this.#untilTold--
    this.#passedSteps++
    this.#steps++
    this.#busyMs += this.#stepMs
    this.#stepEndsAtMs = this.#nowMs + this.#stepMs
  }

  #settle(): void {
    if (this.#passedSteps === 0) return
    for (const sequence of this.#scheduled) sequence.passed(this.#passedSteps)
    this.#generatedTokens += this.#passedSteps * this.#scheduled.length
    this.#passedSteps = 0
  }

  /** Takes a waiting request in if the cache has room for it up to its last token. */
  #admit(sequence: Sequence): boolean {
    const places = this.#matchedBlocks(sequence)
    let needed = sequence.totalBlocks
    let freeHits = 0
    for (const place of places) {
      if (place < 0) continue
      needed--
      if (this.#cache.isFree(place)) freeHits++
    }
    if (this.#cache.freeBlocks - freeHits - this.#reservedBlocks < needed) return false
    for (const place of places) if (place >= 0) this.#cache.hold(place)
    sequence.admit(places, this.#nowMs)
    this.#load(sequence)
    this.#reservedBlocks += sequence.totalBlocks - places.length
    this.#prefixQueryTokens += sequence.promptTokens
    this.#prefixHitTokens += sequence.cachedTokens
    return true
  }

  /** Brings the blocks that other tiers hold into the GPU, where they are named and announced like computed ones. */
  #load(sequence: Sequence): void {
    const { blocks, hashes } = sequence
    const { sharedStore, onShared } = this.options
    const loaded = { host: 0, disk: 0, shared: 0 }
    for (let i = blocks.length - 1; i >= 0; i--) {
      if (blocks[i] === inHost) this.#host?.touch(hashes[2 * i] as number, hashes[2 * i + 1] as number)
      else if (blocks[i] === inDisk) this.#disk?.touch(hashes[2 * i] as number, hashes[2 * i + 1] as number)
    }
    if (blocks.includes(inShared)) sharedStore?.use(sequence.chunkNames, sharedStore.leading(sequence.chunkNames))
    let first = 0
    for (let i = 0; i <= blocks.length; i++) {
      const place = blocks[i]
      if (place !== undefined && place < 0) {
        loaded[place === inHost ? 'host' : place === inDisk ? 'disk' : 'shared']++
        if (place === inShared) onShared?.('loaded', hashes[2 * i] as number, hashes[2 * i + 1] as number)
        blocks[i] = this.#cache.allocate()
        this.#name(sequence, i)
        continue
      }
      if (first < i && sequence.announcedBlocks > 0) this.#announce(sequence, first, i)
      first = i + 1
    }
    for (const tier of ['host', 'disk', 'shared'] as const) {
      if (loaded[tier] > 0) this.#loadingMs += this.#loadMs(tier, loaded[tier])
    }
  }

  #loadMs(tier: 'host' | 'disk' | 'shared', blocks: number): number {
    const { loadMs, hostLoadMsPerBlock, diskLoadMsPerBlock, sharedLoadMsPerBlock } = this.options
    if (loadMs !== undefined) return loadMs(tier, blocks, this.#nowMs + this.#loadingMs)
    return blocks * { host: hostLoadMsPerBlock, disk: diskLoadMsPerBlock, shared: sharedLoadMsPerBlock }[tier]
  }

  /** Where the leading blocks are that a request need not compute; the last token of a prompt is always computed. */
  #matchedBlocks(sequence: Sequence): number[] {
    return this.#placesOf(sequence, Math.floor((sequence.promptTokens - 1) / this.options.blockSize))
  }

  /** Of at most so many leading blocks, the block on the GPU or the tier that holds each; up to the first that none holds. */
  #placesOf(sequence: Sequence, most: number): number[] {
    const places: number[] = []
    while (places.length < most) {
      const i = places.length
      sequence.hashUpTo(i + 1)
      const low = sequence.hashes[2 * i] as number
      const high = sequence.hashes[2 * i + 1] as number
      const block = this.#cache.find(low, high)
      if (block >= 0) places.push(block)
      else if (this.#host?.has(low, high) === true) places.push(inHost)
      else if (this.#disk?.has(low, high) === true) places.push(inDisk)
      else break
    }
    const shared = Math.min(most, this.#sharedBlocks(sequence))
    if (shared > places.length) sequence.hashUpTo(shared)
    while (places.length < shared) places.push(inShared)
    return places
  }

  /** Leading blocks that the shared store holds; it is asked by whole chunks from the first on. */
  #sharedBlocks(sequence: Sequence): number {
    const { sharedStore, blockSize } = this.options
    if (sharedStore === null || !isPlain(sequence)) return 0
    if (sequence.chunkNames.length === 0) sequence.chunkNames = this.#chunkNames(sequence, sequence.promptTokens)
    return (sharedStore.leading(sequence.chunkNames) * sharedStore.chunkTokens) / blockSize
  }

  /** Names of the whole chunks among so many tokens. Blocks that are given by name are chunks of their own. */
  #chunkNames({ request, tokens }: Sequence, length: number): Uint32Array {
    const { sharedStore, blockSize } = this.options
    if (sharedStore === null) return new Uint32Array(0)
    if (request.given === undefined) return sharedStore.namesOf(tokens, length)
    assert(sharedStore.chunkTokens === blockSize, 'blocks that are given by name are chunks of the shared store')
    return request.given.names.subarray(0, 2 * Math.floor(length / blockSize))
  }

  /** Gives a request the blocks for its next tokens and names those that these tokens fill, as vLLM does beforehand. */
  #schedule(sequence: Sequence, tokens: number): void {
    this.#scheduled.push(sequence)
    sequence.scheduledTokens = tokens
    const { blockSize } = this.options
    const reach = sequence.computedTokens + tokens
    while (sequence.blocks.length * blockSize < reach) {
      sequence.blocks.push(this.#cache.allocate())
      this.#reservedBlocks--
    }
    const full = Math.floor(reach / blockSize)
    if (full === sequence.announcedBlocks) return
    sequence.hashUpTo(full)
    while (sequence.namedBlocks < full) this.#name(sequence, sequence.namedBlocks++)
    this.#announce(sequence, sequence.announcedBlocks, full)
    sequence.announcedBlocks = full
    this.#share(sequence, full * blockSize)
  }

  #name(sequence: Sequence, i: number): void {
    this.#changes++
    const block = sequence.blocks[i] as number
    this.#cache.name(block, sequence.hashes[2 * i] as number, sequence.hashes[2 * i + 1] as number)
    if (this.#host !== null) this.#copies[block] = sequence.storedEvent(i, i + 1)
  }

  /** Tells of named blocks, and copies them to the host tier where that is done at once. */
  #announce(sequence: Sequence, first: number, end: number): void {
    if (this.options.onEvents !== undefined) this.#events.push(sequence.storedEvent(first, end))
    if (this.#host === null || this.options.hostWrites !== 'through') return
    this.#host.store(sequence.blocks.slice(first, end).flatMap((block) => this.#copies[block] ?? []))
  }

  /** Puts the whole chunks among the first so many tokens into the shared store. */
  #share(sequence: Sequence, tokens: number): void {
    const { sharedStore: store, onEvents } = this.options
    if (store === null || !isPlain(sequence)) return
    const chunks = Math.floor(tokens / store.chunkTokens)
    if (chunks === sequence.sharedChunks) return
    const names = this.#chunkNames(sequence, tokens)
    const { given } = sequence.request
    for (let chunk = sequence.sharedChunks; chunk < chunks; chunk++) {
      const name = names.slice(2 * chunk, 2 * chunk + 2)
      const [low = 0, high = 0] = name
      const isNew = store.put(low, high, this.#ownsChunks)
      if (isNew) this.options.onShared?.('put', low, high)
      if (!isNew || onEvents === undefined) continue
      this.#events.push({
        kind: 'stored',
        tier: 'shared',
        blockSize: store.chunkTokens,
        hashes: name,
        parent: chunk === 0 ? null : [names[2 * chunk - 2] as number, names[2 * chunk - 1] as number],
        tokens: sequence.tokens.slice(chunk * store.chunkTokens, (chunk + 1) * store.chunkTokens),
        ...(given === undefined ? {} : { locals: given.locals.subarray(2 * chunk, 2 * chunk + 2) }),
        fromStart: chunk === 0,
        cacheSalt: null,
        loraName: null,
        loraId: null,
        sessionId: null,
      })
    }
    sequence.sharedChunks = chunks
    // Of given blocks the whole chain is used anew once a prompt's chunk is computed, and at the end: there may be thousands.
    if (given === undefined || sequence.computedTokens < sequence.promptTokens) store.use(names, chunks)
  }

  /** Hears of its chunks that leave the shared store. */
  readonly #ownsChunks = (low: number, high: number): void => {
    if (this.options.sharedRemovals) this.#sharedRemoved(low, high)
  }

  /** An idle engine has no step to tell it with. */
  #sharedRemoved(low: number, high: number): void {
    const { onEvents } = this.options
    const removed = { kind: 'removed', tier: 'shared', low, high } as const
    if (this.#stepEndsAtMs === null && !this.#finishing && this.#events.length === 0) onEvents?.([removed], this.#nowMs)
    else if (onEvents !== undefined) this.#events.push(removed)
  }

  #finishStep(): void {
    const scheduled = this.#scheduled
    this.#scheduled = []
    if (this.#events.length > 0) {
      const events = this.#events
      this.#events = []
      this.options.onEvents?.(events, this.#nowMs)
    }
    let ended = false
    for (const sequence of scheduled) {
      if (sequence.gone) continue
      sequence.computedTokens += sequence.scheduledTokens
      if (sequence.uncomputedTokens > 0) continue
      if (sequence.generatedTokens === 0) this.#promptTokens += sequence.promptTokens
      const token = sequence.generate(this.#nowMs)
      this.#generatedTokens++
      if (sequence.complete) {
        ended = true
        this.#finished++
        this.#free(sequence)
      }
      if (sequence.generatedTokens === 1) this.options.onFirstToken?.(sequence.id, this.#nowMs)
      this.options.onToken?.(sequence, token, this.#nowMs)
      if (sequence.complete) this.options.onFinished?.(sequence.result(this.#nowMs))
    }
    if (ended) this.#running = this.#running.filter((sequence) => !sequence.gone)
  }

  /** Releases from the end of the chain, so that its tail is evicted first. */
  #free(sequence: Sequence): void {
    this.#sequences.delete(sequence.id)
    this.#changes++
    sequence.gone = true
    this.#endedPromptTokens += sequence.promptTokens
    this.#endedCachedTokens += sequence.cachedTokens
    if (!sequence.admitted) return
    const { sharedStore } = this.options
    if (sharedStore !== null && sequence.request.given !== undefined)
      sharedStore.use(sequence.request.given.names, sequence.sharedChunks)
    this.#reservedBlocks -= sequence.totalBlocks - sequence.blocks.length
    for (let i = sequence.blocks.length - 1; i >= 0; i--) this.#cache.release(sequence.blocks[i] as number)
  }
}

/** The shared store does not tell adapters and tenants apart. */
function isPlain({ request }: Sequence): boolean {
  return request.lora === undefined && request.cacheSalt === undefined
}
