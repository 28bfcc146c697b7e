import assert from 'node:assert/strict'
import { RouterError } from '../errors.ts'
import { BlockCache } from './block-cache.ts'
import { fastBlockHash, type BlockHash } from './block-hash.ts'
import type { KvEvent } from './kv-event.ts'
import { Sequence, type GenerationRequest, type GenerationResult } from './sequence.ts'

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
  /** With the prompt, determines every generated token. */
  readonly seed: number
  /** The ids to generate from: ordinary tokens of the tokenizer, none of them special. */
  readonly outputTokens: Uint32Array
  readonly blockHash: BlockHash
  readonly onToken?: (sequence: Sequence, token: number, atMs: number) => void
  readonly onFinished?: (result: GenerationResult) => void
  /** One batch a step that changed the cache, in the order in which it changed; left out, no events are built. */
  readonly onEvents?: (events: readonly KvEvent[], atMs: number) => void
}

export const engineDefaults: Omit<EngineOptions, 'onToken' | 'onFinished' | 'onEvents'> = {
  blockSize: 16,
  capacityBlocks: 8_192,
  maxModelLength: 131_072,
  maxBatchedTokens: 2_048,
  maxRunningRequests: 256,
  stepBaseMs: 6,
  prefillTokensPerSecond: 8_000,
  decodeMsPerRequest: 0.35,
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
  readonly finished: number
  readonly aborted: number
  readonly steps: number
}

export interface EngineBacklog {
  /** Prompt tokens to compute beyond the step in progress. */
  readonly prefillTokens: number
  /** Requests that generate. */
  readonly decoding: number
  /** Until the step in progress ends. */
  readonly stepLeftMs: number
}

/**
 * A vLLM engine as a function of time: continuous batching with chunked prefill over a paged prefix cache. It has no
 * clock, timers or sockets; whoever drives it says what time it is. Equal options and calls give equal results.
 *
 * A step is scheduled as a whole (running requests first, then waiting ones while tokens, places and blocks suffice),
 * lasts for its modelled duration, and then yields its KV events and one token of each request that has no more to
 * compute. A request is admitted only when the cache can hold it to its end, so nothing is ever preempted.
 */
export class Engine {
  readonly options: EngineOptions
  readonly #cache: BlockCache
  readonly #sequences = new Map<string, Sequence>()
  #waiting: Sequence[] = []
  #running: Sequence[] = []
  /** What the step in progress computes: sequences and how many tokens of each. */
  #scheduled: Sequence[] = []
  #events: KvEvent[] = []
  #nowMs = 0
  #stepEndsAtMs: number | null = null
  /** A step's results are being told; a request that comes in answer to them waits for the next step. */
  #finishing = false
  /** Blocks that running requests will still need. */
  #reservedBlocks = 0
  #promptTokens = 0
  #generatedTokens = 0
  #prefixQueryTokens = 0
  #prefixHitTokens = 0
  #finished = 0
  #aborted = 0
  #steps = 0

  constructor(options: Partial<EngineOptions> = {}) {
    const all = { ...engineDefaults, ...options }
    const room = all.capacityBlocks * all.blockSize
    this.options = { ...all, maxModelLength: Math.min(all.maxModelLength, room) }
    assert(all.outputTokens.length > 0, 'an engine has something to say')
    this.#cache = new BlockCache(all.capacityBlocks, (low, high) => {
      if (all.onEvents !== undefined) this.#events.push({ kind: 'removed', low, high })
    })
  }

  get nowMs(): number {
    return this.#nowMs
  }

  get stats(): EngineStats {
    return {
      running: this.#running.length,
      waiting: this.#waiting.length,
      kvUsage: 1 - this.#cache.freeBlocks / this.#cache.capacityBlocks,
      promptTokens: this.#promptTokens,
      generatedTokens: this.#generatedTokens,
      prefixQueryTokens: this.#prefixQueryTokens,
      prefixHitTokens: this.#prefixHitTokens,
      finished: this.#finished,
      aborted: this.#aborted,
      steps: this.#steps,
    }
  }

  /** When the step in progress ends; null while there is nothing to do. */
  nextEventMs(): number | null {
    return this.#stepEndsAtMs
  }

  /** Runs all steps that end at or before this time. */
  advanceTo(nowMs: number): void {
    assert(nowMs >= this.#nowMs, 'time does not go back')
    while (this.#stepEndsAtMs !== null && this.#stepEndsAtMs <= nowMs) {
      this.#nowMs = this.#stepEndsAtMs
      this.#stepEndsAtMs = null
      this.#finishing = true
      this.#finishStep()
      this.#finishing = false
      this.#startStep()
    }
    this.#nowMs = nowMs
  }

  /** Tokens of this prompt that the cache holds now and that a request would not compute again. */
  cachedTokens(request: GenerationRequest): number {
    return this.#matchedBlocks(new Sequence(request, this.options, this.#nowMs)).length * this.options.blockSize
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
    for (const sequence of this.#waiting) {
      prefillTokens += sequence.promptTokens - this.#matchedBlocks(sequence).length * this.options.blockSize
    }
    return { prefillTokens, decoding, stepLeftMs: this.#stepEndsAtMs === null ? 0 : this.#stepEndsAtMs - this.#nowMs }
  }

  /** Queues a request. PROMPT_TOO_LONG where prompt and output exceed `maxModelLength`. */
  add(request: GenerationRequest, nowMs: number): void {
    this.advanceTo(nowMs)
    const length = request.tokens.length + request.outputTokens
    if (length > this.options.maxModelLength) {
      throw new RouterError('PROMPT_TOO_LONG', `${length} tokens exceed the limit of ${this.options.maxModelLength}.`)
    }
    assert(request.tokens.length > 0 && request.outputTokens > 0, 'a request has a prompt and asks for output')
    assert(!this.#sequences.has(request.id), 'the ids of live requests differ')
    const sequence = new Sequence(request, this.options, nowMs)
    this.#sequences.set(request.id, sequence)
    this.#waiting.push(sequence)
    if (this.#stepEndsAtMs === null && !this.#finishing) this.#startStep()
  }

  /** Drops a request and frees its blocks at once. False where there is none of this id. */
  abort(id: string, nowMs: number): boolean {
    this.advanceTo(nowMs)
    const sequence = this.#sequences.get(id)
    if (sequence === undefined) return false
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
      if (!this.#admit(sequence)) break
      admitted++
      const tokens = Math.min(sequence.uncomputedTokens, budgetTokens)
      budgetTokens -= tokens
      prefillTokens += tokens
      this.#running.push(sequence)
      this.#schedule(sequence, tokens)
    }
    if (admitted > 0) this.#waiting.splice(0, admitted)
    if (this.#scheduled.length === 0) return
    const durationMs = stepBaseMs + (prefillTokens * 1_000) / prefillTokensPerSecond + decoding * decodeMsPerRequest
    this.#steps++
    this.#stepEndsAtMs = this.#nowMs + durationMs
  }

  /** Takes a waiting request in if the cache has room for it up to its last token. */
  #admit(sequence: Sequence): boolean {
    const hits = this.#matchedBlocks(sequence)
    const needed = sequence.totalBlocks - hits.length
    const freeHits = hits.reduce((sum, block) => sum + (this.#cache.isFree(block) ? 1 : 0), 0)
    if (this.#cache.freeBlocks - freeHits - this.#reservedBlocks < needed) return false
    for (const block of hits) this.#cache.hold(block)
    sequence.admit(hits, this.#nowMs)
    this.#reservedBlocks += needed
    this.#prefixQueryTokens += sequence.promptTokens
    this.#prefixHitTokens += sequence.cachedTokens
    return true
  }

  /** The leading blocks that are cached; the last token of a prompt is always computed, so it is never among them. */
  #matchedBlocks(sequence: Sequence): number[] {
    const hits: number[] = []
    const most = Math.floor((sequence.promptTokens - 1) / this.options.blockSize)
    for (let i = 0; i < most; i++) {
      sequence.hashUpTo(i + 1)
      const block = this.#cache.find(sequence.hashes[2 * i] as number, sequence.hashes[2 * i + 1] as number)
      if (block < 0) break
      hits.push(block)
    }
    return hits
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
    for (; sequence.namedBlocks < full; sequence.namedBlocks++) {
      const i = sequence.namedBlocks
      const block = sequence.blocks[i] as number
      this.#cache.name(block, sequence.hashes[2 * i] as number, sequence.hashes[2 * i + 1] as number)
    }
    if (this.options.onEvents !== undefined) this.#events.push(sequence.storedEvent(sequence.announcedBlocks, full))
    sequence.announcedBlocks = full
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
      this.options.onToken?.(sequence, token, this.#nowMs)
      if (sequence.complete) this.options.onFinished?.(sequence.result(this.#nowMs))
    }
    if (ended) this.#running = this.#running.filter((sequence) => !sequence.gone)
  }

  /** Releases from the end of the chain, so that its tail is evicted first. */
  #free(sequence: Sequence): void {
    this.#sequences.delete(sequence.id)
    sequence.gone = true
    if (!sequence.admitted) return
    this.#reservedBlocks -= sequence.totalBlocks - sequence.blocks.length
    for (let i = sequence.blocks.length - 1; i >= 0; i--) this.#cache.release(sequence.blocks[i] as number)
  }
}
