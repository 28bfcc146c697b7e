import { blockSize } from './engine.ts'

interface Sequence {
  readonly salt: string | null
  readonly tokens: readonly number[]
}

/**
 * What an engine must hold, from nothing but what was sent to it and what it generated: the third opinion beside the
 * router's prediction and the engine's own report. Knows of no eviction.
 */
export class Held {
  #sequences: Sequence[] = []

  /** The last generated token is never computed, so that it is in no block. */
  add(promptIds: readonly number[], generatedIds: readonly number[], salt: string | null): readonly number[] {
    const tokens = [...promptIds, ...generatedIds.slice(0, -1)]
    this.#sequences.push({ salt, tokens })
    return tokens
  }

  clear(): void {
    this.#sequences = []
  }

  /** Tokens of the prompt that a request finds cached: whole blocks, and never the last token. */
  cachedTokens(promptIds: readonly number[], salt: string | null): number {
    let longest = 0
    for (const sequence of this.#sequences) {
      if (sequence.salt !== salt) continue
      let at = 0
      while (at < promptIds.length && at < sequence.tokens.length && promptIds[at] === sequence.tokens[at]) at++
      longest = Math.max(longest, at)
    }
    return Math.floor(Math.min(longest, promptIds.length - 1) / blockSize) * blockSize
  }
}
