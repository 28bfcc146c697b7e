import { mix32 } from './random.ts'

/** What besides its tokens tells one cached prefix from another. */
export interface HashScope {
  readonly cacheSalt: string | null
  readonly loraName: string | null
  /** Where the adapter was loaded from; part of vLLM's hash, not of its events. */
  readonly loraPath: string | null
}

/**
 * The names that an engine gives to the blocks of one token sequence, in order. Each is chained to the one before it; 64
 * bits as two words, low word first, are what events carry.
 */
export interface HashChain {
  /** Names the next block: `tokens[from]` up to `tokens[from + blockSize − 1]`. Reads the result from `low` and `high`. */
  append(tokens: Uint32Array, from: number): void
  readonly low: number
  readonly high: number
}

export type BlockHash = (scope: HashScope, blockSize: number) => HashChain

/**
 * The default: cheap, chained, 64 bits. It is a different function from the router's own keys on purpose, so that the two
 * can agree only through events.
 */
export const fastBlockHash: BlockHash = (scope, blockSize) => {
  let low = mixText(scope.loraName, 0x2545f491)
  let high = mixText(scope.cacheSalt, 0x5851f42d)
  return {
    append(tokens, from) {
      let a = mix32(low ^ 0x6a09e667)
      let b = high ^ a
      for (let at = from; at < from + blockSize; at++) {
        const token = tokens[at] as number
        a = Math.imul(((a << 5) | (a >>> 27)) ^ token, 0x9e3779b1)
        b = Math.imul(((b << 11) | (b >>> 21)) + token, 0x85ebca6b) ^ a
      }
      low = mix32(a ^ (b >>> 16)) >>> 0
      high = mix32(b + low) >>> 0
    },
    get low() {
      return low
    },
    get high() {
      return high
    },
  }
}

function mixText(text: string | null, start: number): number {
  let word = start | 0
  if (text === null) return word
  for (let i = 0; i < text.length; i++) word = mix32(word ^ (text.charCodeAt(i) + 1))
  return mix32(word ^ (text.length << 16))
}
