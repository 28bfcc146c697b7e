import { fastBlockHash, type BlockHash } from './block-hash.ts'
import type { KvEvent } from './kv-event.ts'
import type { GenerationResult, Sequence } from './sequence.ts'
import type { SharedStore } from './shared-store.ts'

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
