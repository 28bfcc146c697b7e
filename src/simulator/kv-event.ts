import type { Tier } from '../kv/tier.ts'

/** Full blocks of one request that an engine has stored in one tier, in chain order. */
export interface BlockStored {
  readonly kind: 'stored'
  readonly tier: Tier
  /** Tokens in each of the blocks: the engine's block size, or the chunk size of a shared store. */
  readonly blockSize: number
  /** Two words a block, low word first. */
  readonly hashes: Uint32Array
  /** The block before the first one; null at the start of a chain. */
  readonly parent: readonly [low: number, high: number] | null
  /** The tokens of all blocks, `blocks × blockSize`; empty where `locals` stand for them. */
  readonly tokens: Uint32Array
  /** What each block is without those before it, two words a block, of requests that gave no tokens. */
  readonly locals?: Uint32Array
  /** Whether the first of these blocks is the first of its chain, which is where vLLM tells the salt. */
  readonly fromStart: boolean
  readonly cacheSalt: string | null
  readonly loraName: string | null
  readonly loraId: number | null
  readonly sessionId: string | null
}

/** One block that a tier no longer holds; others may. */
export interface BlockRemoved {
  readonly kind: 'removed'
  readonly tier: Tier
  readonly low: number
  readonly high: number
}

/** The whole cache was reset. */
export interface AllBlocksCleared {
  readonly kind: 'cleared'
}

export type KvEvent = BlockStored | BlockRemoved | AllBlocksCleared
