import type { Approximate, Computed } from './approximate.ts'
import type { Coming, Expected } from './coming.ts'

export interface SentPrompt extends Computed {
  readonly blockSize: number
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
    const { coming } = this.#parts
    const untilMs = nowMs + Math.max(leastPatienceMs, patience * predictedMs)
    const expected = coming.expect(prompt.slot, prompt.blockSize, prompt.keys, untilMs)
    return { prompt, expected, computed: false }
  }

  /** The first token has come: the prompt's blocks are there. */
  computed(underWay: UnderWay, nowMs: number): void {
    if (underWay.computed) return
    underWay.computed = true
    const { expected } = underWay
    const isHeld = this.#parts.approximate.computed(underWay.prompt, nowMs)
    // What is concluded is in the map at once, and what events tell a moment later.
    this.#parts.coming.computed(expected, isHeld ? nowMs : nowMs + eventsDelayMs)
  }

  /** The whole answer has come, with the cached tokens that the engine reported, if it did. */
  answered(underWay: UnderWay, cachedTokens: number | null, nowMs: number): void {
    const { approximate } = this.#parts
    const { prompt } = underWay
    if (cachedTokens !== null) {
      const { believedBlocks, blockSize } = prompt
      const isWhole = believedBlocks * blockSize - cachedTokens < coarsestTokens
      approximate.found(prompt, isWhole ? believedBlocks : Math.floor(cachedTokens / blockSize))
    }
    if (underWay.computed) approximate.computed(prompt, nowMs)
    else this.computed(underWay, nowMs)
  }

  /** It ended in another way. What was computed stays; what was not will not come. */
  ended(underWay: UnderWay): void {
    if (!underWay.computed) this.#parts.coming.failed(underWay.expected)
  }

  /** The worker went down, was started anew or left. */
  forget(slot: SentPrompt['slot']): void {
    this.#parts.coming.forget(slot)
    this.#parts.approximate.forget(slot)
  }
}
