import type { BlockHash, HashChain } from './block-hash.ts'
import type { BlockStored } from './kv-event.ts'
import { mix32 } from './random.ts'

/** One prompt to continue. */
export interface GenerationRequest {
  /** Differs from those of all other live requests of the engine. */
  readonly id: string
  readonly tokens: Uint32Array
  /** How many tokens to generate, at least 1. */
  readonly outputTokens: number
  readonly cacheSalt?: string
  readonly lora?: { readonly name: string; readonly id: number; readonly path: string }
  readonly sessionId?: string
  /** Tells apart several answers to one prompt (OpenAI's `n`). */
  readonly choice?: number
  /** Announces the whole prefix, cached blocks included (vLLM's `kv_cache_report_mode: full`). */
  readonly reportWhole?: boolean
  /** Takes the place of `tokens`, which are then empty, and of the tokens to generate. */
  readonly given?: GivenBlocks
}

/** A prompt, and what will be generated from it, known by the names of its blocks alone: what a recorded workload tells. */
export interface GivenBlocks {
  readonly promptTokens: number
  /** Names of all full blocks up to the last computed token, two words a block. */
  readonly names: Uint32Array
  /** What each block is without those before it, two words a block, for events to tell in place of tokens. */
  readonly locals: Uint32Array
}

export interface GenerationResult {
  readonly id: string
  readonly promptTokens: number
  /** Prompt tokens that the prefix cache held. */
  readonly cachedTokens: number
  readonly arrivedMs: number
  /** When the engine began to compute it. */
  readonly startedMs: number
  readonly ttftMs: number
  readonly finishedMs: number
  readonly generated: Uint32Array
  /** When each generated token came; of given blocks only the first. */
  readonly tokenTimesMs: Float64Array
}

interface SequenceOptions {
  readonly blockSize: number
  readonly seed: number
  readonly outputTokens: Uint32Array
  readonly blockHash: BlockHash
}

/** A request inside the engine: its tokens so far, the blocks that it holds, how far it is computed. */
export class Sequence {
  readonly id: string
  readonly request: GenerationRequest
  readonly promptTokens: number
  readonly arrivedMs: number
  /** Blocks from its first to its last computed token; the last generated token is never computed. */
  readonly totalBlocks: number
  readonly #options: SequenceOptions
  /** Null where the names of the blocks are given. */
  readonly #chain: HashChain | null
  #tokens: Uint32Array
  #hashes: Uint32Array
  #hashedBlocks = 0
  #generated = 0
  #draw = 0
  #tokenTimesMs: Float64Array = new Float64Array(0)
  #startedMs = 0
  blocks: number[] = []
  /** Leading blocks that bear a name in the cache, through this sequence or before it. */
  namedBlocks = 0
  /** Leading blocks that need no event (any more). */
  announcedBlocks = 0
  computedTokens = 0
  scheduledTokens = 0
  cachedTokens = 0
  /** Leading chunks that this sequence has offered to the shared store. */
  sharedChunks = 0
  /** Names of its leading chunks there, as far as they are known. */
  chunkNames: Uint32Array = new Uint32Array(0)
  admitted = false
  /** Finished or aborted. */
  gone = false

  constructor(request: GenerationRequest, options: SequenceOptions, arrivedMs: number) {
    this.id = request.id
    this.request = request
    const { given } = request
    this.promptTokens = promptTokensOf(request)
    this.arrivedMs = arrivedMs
    this.totalBlocks = Math.ceil((this.promptTokens + request.outputTokens - 1) / options.blockSize)
    this.#options = options
    this.#chain = given === undefined ? chainOf(request, options) : null
    this.#tokens = request.tokens
    this.#hashes = given?.names ?? new Uint32Array(2 * Math.floor(request.tokens.length / options.blockSize))
  }

  /** Names of the leading blocks, two words each; `hashUpTo` fills them. */
  get hashes(): Uint32Array {
    return this.#hashes
  }

  get generatedTokens(): number {
    return this.#generated
  }

  /** Prompt and generated tokens; those to come are 0. */
  get tokens(): Uint32Array {
    return this.#tokens
  }

  /** Known tokens whose keys and values are still to be computed. */
  get uncomputedTokens(): number {
    return this.promptTokens + this.#generated - this.computedTokens
  }

  /** Tokens still to be generated. */
  get leftTokens(): number {
    return this.request.outputTokens - this.#generated
  }

  get complete(): boolean {
    return this.#generated === this.request.outputTokens
  }

  hashUpTo(blocks: number): void {
    if (this.#chain === null) return
    const { blockSize } = this.#options
    for (; this.#hashedBlocks < blocks; this.#hashedBlocks++) {
      this.#chain.append(this.#tokens, this.#hashedBlocks * blockSize)
      this.#hashes[2 * this.#hashedBlocks] = this.#chain.low
      this.#hashes[2 * this.#hashedBlocks + 1] = this.#chain.high
    }
  }

  /** Enters the engine with these cached blocks. Memory for the output is taken only now, not while it waits. */
  admit(hits: number[], nowMs: number): void {
    if (this.#chain === null) this.#tokenTimesMs = new Float64Array(1)
    else this.#makeRoom()
    this.#startedMs = nowMs
    this.blocks = hits
    this.namedBlocks = hits.length
    this.announcedBlocks = this.request.reportWhole === true ? 0 : hits.length
    this.cachedTokens = hits.length * this.#options.blockSize
    this.computedTokens = this.cachedTokens
    this.admitted = true
  }

  #makeRoom(): void {
    const { outputTokens, tokens: prompt, choice = 0 } = this.request
    const tokens = new Uint32Array(this.promptTokens + outputTokens)
    tokens.set(prompt)
    this.#tokens = tokens
    const hashes = new Uint32Array(2 * this.totalBlocks)
    hashes.set(this.#hashes)
    this.#hashes = hashes
    this.#tokenTimesMs = new Float64Array(outputTokens)
    this.#draw = drawStart(prompt, this.#options.seed + choice)
  }

  /** So many steps have passed that computed one token each and told nobody. */
  passed(steps: number): void {
    this.computedTokens += steps
    this.#generated += steps
  }

  /** The next token, drawn from the seed and all tokens before it; 0 where blocks are given. */
  generate(nowMs: number): number {
    if (this.#chain === null) {
      if (this.#generated++ === 0) this.#tokenTimesMs[0] = nowMs
      return 0
    }
    const { outputTokens } = this.#options
    this.#draw = mix32(this.#draw + 0x9e3779b9)
    const token = outputTokens[(this.#draw >>> 0) % outputTokens.length] as number
    this.#tokens[this.promptTokens + this.#generated] = token
    this.#tokenTimesMs[this.#generated] = nowMs
    this.#generated++
    return token
  }

  /** Announces the blocks from `first` up to, not including, `end`. */
  storedEvent(first: number, end: number): BlockStored {
    const { blockSize } = this.#options
    const { given } = this.request
    return {
      kind: 'stored',
      tier: 'gpu',
      blockSize,
      ...(given === undefined ? {} : { locals: given.locals.subarray(2 * first, 2 * end) }),
      hashes: this.#hashes.slice(2 * first, 2 * end),
      parent: first === 0 ? null : [this.#hashes[2 * first - 2] as number, this.#hashes[2 * first - 1] as number],
      tokens: this.#tokens.slice(first * blockSize, end * blockSize),
      fromStart: first === 0,
      cacheSalt: this.request.cacheSalt ?? null,
      loraName: this.request.lora?.name ?? null,
      loraId: this.request.lora?.id ?? null,
      sessionId: this.request.sessionId ?? null,
    }
  }

  result(finishedMs: number): GenerationResult {
    return {
      id: this.id,
      promptTokens: this.promptTokens,
      cachedTokens: this.cachedTokens,
      arrivedMs: this.arrivedMs,
      startedMs: this.#startedMs,
      ttftMs: (this.#tokenTimesMs[0] as number) - this.arrivedMs,
      finishedMs,
      generated: this.#tokens.slice(this.promptTokens, this.promptTokens + this.#generated),
      tokenTimesMs: this.#tokenTimesMs,
    }
  }
}

export function promptTokensOf({ tokens, given }: GenerationRequest): number {
  return given?.promptTokens ?? tokens.length
}

function chainOf(request: GenerationRequest, { blockHash, blockSize }: SequenceOptions): HashChain {
  const { cacheSalt = null, lora } = request
  return blockHash({ cacheSalt, loraName: lora?.name ?? null, loraPath: lora?.path ?? null }, blockSize)
}

function drawStart(tokens: Uint32Array, seed: number): number {
  let word = mix32(seed)
  for (const token of tokens) word = Math.imul(((word << 7) | (word >>> 25)) ^ token, 0x9e3779b1)
  return mix32(word)
}
