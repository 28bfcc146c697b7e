import type { Approximate, Computed } from './approximate.ts'
import type { Coming, Expected } from './coming.ts'

export interface SentPrompt extends Computed {
  readonly blockSize: number
  /** Which block of the prompt the first key names; absent: the first. Of a prompt that is not whole nothing is assumed. */
  readonly firstBlock?: number
}

/** Hears what becomes of the prompts that are sent, so that other replicas of the router can be told. */
export interface SentPromptsListener {
  sent(underWay: UnderWay, predictedMs: number): void
  computed(underWay: UnderWay): void
  /** @param foundBlocks leading blocks that the engine found cached; null: it did not say */
  answered(underWay: UnderWay, foundBlocks: number | null): void
  /** Always the last one, whether it was computed or not. */
  ended(underWay: UnderWay): void
}

/** A prompt that a worker was sent and is not done with. */
export interface UnderWay {
  readonly prompt: SentPrompt
  readonly expected: Expected
  computed: boolean
}

export interface SentPromptsParts {
  readonly coming: Coming
  readonly approximate: Approximate
  /** Absent where nobody else need know. */
  readonly listener?: SentPromptsListener
}

/** A prompt is expected for this many times as long as its prefill was predicted to take, but not less than a while. */
const patience = 4
const leastPatienceMs = 2000
/**
 * Engines find whole pages or chunks only, and those may be larger than the blocks that are known of them (hybrid models,
 * chunked stores, an assumed block size): to find less by fewer tokens than this is no sign that anything was evicted.
 */
const coarsestTokens = 256
/** From the first token until the events that tell of its blocks have come. */
const eventsDelayMs = 250

/**
 * What follows from sending a prompt to a worker:
 *
 *     sent ──► expected ──► computed ──► done          expected: `Coming`, until events tell or could have told
 *                  │                                   held: `Approximate`, where no events tell
 *                  └──► failed: not expected any more
 */
export class SentPrompts {
  readonly #parts: SentPromptsParts

  constructor(parts: SentPromptsParts) {
    this.#parts = parts
  }

  sent(prompt: SentPrompt, predictedMs: number, nowMs: number): UnderWay {
    const { coming, listener } = this.#parts
    const untilMs = nowMs + Math.max(leastPatienceMs, patience * predictedMs)
    const expected = coming.expect(prompt.slot, prompt.blockSize, prompt.keys, untilMs, prompt.firstBlock)
    const underWay = { prompt, expected, computed: false }
    listener?.sent(underWay, predictedMs)
    return underWay
  }

  /** The first token has come: the prompt's blocks are there. */
  computed(underWay: UnderWay, nowMs: number): void {
    if (underWay.computed) return
    underWay.computed = true
    const { expected, prompt } = underWay
    const isHeld = isWhole(prompt) && this.#parts.approximate.computed(prompt, nowMs)
    // What is concluded is in the map at once, and what events tell a moment later.
    this.#parts.coming.computed(expected, isHeld ? nowMs : nowMs + eventsDelayMs)
    this.#parts.listener?.computed(underWay)
  }

  /** The whole answer has come, with the cached tokens that the engine reported, if it did. */
  answered(underWay: UnderWay, cachedTokens: number | null, nowMs: number): void {
    const foundBlocks = cachedTokens === null ? null : foundOf(underWay.prompt, cachedTokens)
    this.found(underWay, foundBlocks, nowMs)
    this.#parts.listener?.answered(underWay, foundBlocks)
  }

  /** The same in whole blocks. */
  found(underWay: UnderWay, foundBlocks: number | null, nowMs: number): void {
    const { approximate } = this.#parts
    const { prompt } = underWay
    if (foundBlocks !== null && isWhole(prompt)) approximate.found(prompt, foundBlocks)
    if (!underWay.computed) this.computed(underWay, nowMs)
    else if (isWhole(prompt)) approximate.computed(prompt, nowMs)
  }

  /** It ended, in whatever way. What was computed stays; what was not will not come. */
  ended(underWay: UnderWay): void {
    if (!underWay.computed) this.#parts.coming.failed(underWay.expected)
    this.#parts.listener?.ended(underWay)
  }

  /** The worker went down, was started anew or left. */
  forget(slot: SentPrompt['slot']): void {
    this.#parts.coming.forget(slot)
    this.#parts.approximate.forget(slot)
  }
}

function isWhole({ firstBlock }: SentPrompt): boolean {
  return firstBlock === undefined || firstBlock === 0
}

function foundOf({ believedBlocks, blockSize }: SentPrompt, cachedTokens: number): number {
  const more = cachedTokens - believedBlocks * blockSize
  return Math.abs(more) < coarsestTokens ? believedBlocks : Math.floor(cachedTokens / blockSize)
}
