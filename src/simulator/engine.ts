import assert from 'node:assert/strict'
import { RouterError } from '../errors.ts'
import { engineDefaults, type EngineOptions } from './engine-options.ts'
import type { KvEvent } from './kv-event.ts'
import { promptTokensOf, Sequence, type GenerationRequest } from './sequence.ts'
import { slowTiers, TieredCache, type TrueBlocks, type TrueMatch } from './tiered-cache.ts'

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
 *
 * Steps in a row that only continue answers are passed over in one go where nobody hears of single tokens:
 *
 *     step        0    1    2    3    4    5        0 fills no block and admits nobody; 1 to 4 fill and open none;
 *     calm        ├────────────────────┤            the last one, 5, ends like any other: with an answer's end, or
 *                                                   before a block is full or opened. A request that comes cuts it short.
 */
export class Engine {
  readonly options: EngineOptions
  readonly #cache: TieredCache
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
  /** The request that was refused last, and the cache's changes when it was. */
  #refused: Sequence | null = null
  #refusedAtChange = 0
  /** A step's results are being told; a request that comes in answer to them waits for the next step. */
  #finishing = false
  /** What the requests admitted to the next step load from other tiers. */
  #loadingMs = 0
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
    this.#cache = new TieredCache(this.options, {
      ...(all.onEvents === undefined ? {} : { tell: (event) => this.#events.push(event) }),
      onSharedRemoved: (low, high) => this.#sharedRemoved(low, high),
    })
  }

  get nowMs(): number {
    return this.#nowMs
  }

  get stats(): EngineStats {
    this.#settle()
    return {
      running: this.#running.length,
      waiting: this.#waiting.length,
      kvUsage: this.#cache.usage,
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
    return this.#cache.cachedTokens(new Sequence(request, this.options, this.#nowMs))
  }

  /** What the tiers hold now. */
  trueBlocks(): TrueBlocks {
    return this.#cache.trueBlocks()
  }

  /** The leading blocks of a prompt that the tiers hold now, the block of its last token included. */
  trueMatch(request: GenerationRequest): TrueMatch {
    return this.#cache.trueMatch(new Sequence(request, this.options, this.#nowMs))
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
    return this.#waiting.reduce((sum, sequence) => sum + sequence.promptTokens - this.#cache.cachedTokens(sequence), 0)
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
    return this.#cache.clear()
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
      if (sequence === this.#refused && this.#cache.changes === this.#refusedAtChange) break
      if (!this.#admit(sequence)) {
        this.#refused = sequence
        this.#refusedAtChange = this.#cache.changes
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
    const loaded = this.#cache.admit(sequence, this.#nowMs)
    if (loaded === null) return false
    for (const tier of slowTiers) if (loaded[tier] > 0) this.#loadingMs += this.#loadMs(tier, loaded[tier])
    this.#prefixQueryTokens += sequence.promptTokens
    this.#prefixHitTokens += sequence.cachedTokens
    return true
  }

  #loadMs(tier: (typeof slowTiers)[number], blocks: number): number {
    const { loadMs, hostLoadMsPerBlock, diskLoadMsPerBlock, sharedLoadMsPerBlock } = this.options
    if (loadMs !== undefined) return loadMs(tier, blocks, this.#nowMs + this.#loadingMs)
    return blocks * { host: hostLoadMsPerBlock, disk: diskLoadMsPerBlock, shared: sharedLoadMsPerBlock }[tier]
  }

  #schedule(sequence: Sequence, tokens: number): void {
    this.#scheduled.push(sequence)
    sequence.scheduledTokens = tokens
    this.#cache.extend(sequence, sequence.computedTokens + tokens)
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

  #free(sequence: Sequence): void {
    this.#sequences.delete(sequence.id)
    sequence.gone = true
    this.#endedPromptTokens += sequence.promptTokens
    this.#endedCachedTokens += sequence.cachedTokens
    this.#cache.release(sequence)
  }
}
