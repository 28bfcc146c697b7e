import { tierIndex, type Tier } from '../kv/tier.ts'
import type { ChunkStore } from './chunk-store.ts'

export interface LookupLimits {
  /** Lookups under way; prompts that come while so many are get none. */
  readonly concurrency: number
  /** Of longer prompts only so many tokens are looked up. */
  readonly maxTokens: number
  /** What was looked up is believed, and not looked up again, for so long. */
  readonly ttlMs: number
}

export interface ChunkLookupOptions {
  readonly chunkTokens: number
  readonly limits: LookupLimits
  /** Who holds the leading chunks; null where that could not be learned. Never rejects. */
  readonly ask: (
    tokens: Uint32Array,
  ) => Promise<readonly { readonly instance: string; readonly tier: Tier; readonly tokens: number }[] | null>
  /** Keys of the chunks of a prompt, two words each. */
  readonly keysOf: (tokens: Uint32Array) => Uint32Array
  /** Where what an instance holds is kept; null: the instance is no worker's, or there is no place left. */
  readonly storeOf: (instance: string, tier: Tier) => ChunkStore | null
  /** Monotonic milliseconds. */
  readonly clock: () => number
  /** Runs something when the requests at hand have been seen to. */
  readonly later: (run: () => void) => void
  readonly count: (result: 'answered' | 'failed' | 'left_out') => void
}

/** After so many failures in a row nobody is asked for a while, which grows to the longest. */
const failuresUntilPause = 3
const firstPauseMs = 1_000
const longestPauseMs = 60_000
/** Prompts that are remembered as looked up. */
const mostRemembered = 4_096

/**
 * Asks a chunk store's own directory who holds a prompt, for requests to come: the one at hand has been routed and waits
 * for nothing. What it answers is no more than a hint, since it names one holder of a chunk and may be old when it comes.
 */
export class ChunkLookup {
  readonly #o: ChunkLookupOptions
  /** When a prompt was looked up, by its last chunk; the oldest first. */
  readonly #asked = new Map<string, number>()
  #underWay = 0
  #failures = 0
  #pausedUntilMs = -Infinity

  constructor(options: ChunkLookupOptions) {
    this.#o = options
  }

  /** A prompt was routed. Returns at once and never throws. */
  routed(tokens: Uint32Array): void {
    const { chunkTokens, limits, clock, later, count } = this.#o
    const chunks = Math.floor(Math.min(tokens.length, limits.maxTokens) / chunkTokens)
    if (chunks === 0) return
    if (this.#underWay >= limits.concurrency || clock() < this.#pausedUntilMs) {
      count('left_out')
      return
    }
    this.#underWay++
    later(() => {
      this.#lookUp(tokens.slice(0, chunks * chunkTokens))
        .catch(() => this.#failed())
        .finally(() => this.#underWay--)
    })
  }

  async #lookUp(tokens: Uint32Array): Promise<void> {
    const { ask, keysOf, count } = this.#o
    const keys = keysOf(tokens)
    if (!this.#isDue(keys)) return
    const holdings = await ask(tokens)
    if (holdings === null) {
      this.#failed()
      return
    }
    this.#failures = 0
    count('answered')
    for (const { instance, tier, tokens: held } of holdings) this.#keep(instance, tier, held, keys)
  }

  #keep(instance: string, tier: Tier, heldTokens: number, keys: Uint32Array): void {
    const { chunkTokens, storeOf } = this.#o
    const words = 2 * Math.floor(heldTokens / chunkTokens)
    const store = words === 0 ? null : storeOf(instance, tier)
    if (store === null) return
    store.open(chunkTokens)
    store.apply([{ kind: 'hold', tier: tierIndex[tier], keys: keys.subarray(0, words), parent: null }])
  }

  #isDue(keys: Uint32Array): boolean {
    const { clock, limits } = this.#o
    const nowMs = clock()
    const name = `${keys.at(-1) ?? 0}:${keys.at(-2) ?? 0}`
    const askedMs = this.#asked.get(name)
    if (askedMs !== undefined && nowMs - askedMs < limits.ttlMs) return false
    this.#asked.delete(name)
    this.#asked.set(name, nowMs)
    if (this.#asked.size > mostRemembered) this.#asked.delete(this.#asked.keys().next().value ?? '')
    return true
  }

  #failed(): void {
    const { clock, count } = this.#o
    count('failed')
    this.#failures++
    if (this.#failures < failuresUntilPause) return
    const pauseMs = Math.min(longestPauseMs, firstPauseMs * 2 ** (this.#failures - failuresUntilPause))
    this.#pausedUntilMs = clock() + pauseMs
  }
}
