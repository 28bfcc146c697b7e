import { mix32 } from '../../simulator/random.ts'
import { answeredRuns } from '../prompts.ts'
import {
  blockCount,
  eachPart,
  sharedRuns,
  type BlockRuns,
  type TokenRange,
  type TraceSession,
} from '../traces/trace.ts'

/** Ordinary ids of every vocabulary, also of the small one that comes with the simulated engines. */
export const commonTokens: TokenRange = { first: 1_000, count: 3_000 }

interface TokenScope {
  readonly blockTokens: number
  readonly range?: TokenRange
}

/**
 * The prompts of one session as token ids, turn after turn: equal blocks hold equal tokens. Where the next prompt goes on from this one
 * and its answer, it has the tokens that were truly generated:
 *
 *     prompt  ████████████████▒▒        █ made from ids of blocks   ▒ ids of the next prompt's blocks, else the request's own
 *     answer                  ░░░░░░    as generated, as far as the next prompt has blocks there
 *     next    ████████████████▒▒░░░░░░██████▒
 */
export class TokenPrompts {
  readonly #session: TraceSession
  /** Tells the blocks of a second user of the same session apart. */
  readonly #copy: number
  readonly #blockTokens: number
  readonly #range: TokenRange
  /** Prompt and answer of the turn before; so many of their tokens belong to blocks that have ids. */
  #tokens: Uint32Array = new Uint32Array(0)
  #runs: BlockRuns = new Uint32Array(0)
  #known = 0
  #promptTokens = 0

  constructor(session: TraceSession, copy: number, { blockTokens, range = commonTokens }: TokenScope) {
    this.#session = session
    this.#copy = copy
    this.#blockTokens = blockTokens
    this.#range = range
  }

  /** @param own Differs for all requests of a run. */
  of(turn: number, own: number): Uint32Array {
    const request = this.#session.requests[turn]
    if (request === undefined) throw new RangeError('a session has no turn after its last')
    const { promptTokens, outputTokens } = request
    const runs = answeredRuns(this.#session, turn)
    const tokens = new Uint32Array(promptTokens + outputTokens)
    const known = Math.min(tokens.length, blockCount(runs) * this.#blockTokens)
    const kept = Math.min(this.#known, known, sharedRuns(this.#runs, runs) * this.#blockTokens)
    tokens.set(this.#tokens.subarray(0, kept))
    this.#write(runs, kept, known, tokens)
    const seed = mix32(own ^ 0x5bd1e995)
    for (let at = known; at < tokens.length; at++) tokens[at] = this.#token(mix32(seed + at))
    this.#tokens = tokens
    this.#runs = runs
    this.#known = known
    this.#promptTokens = promptTokens
    return tokens.subarray(0, promptTokens)
  }

  /** Whether the next prompt holds something of the answer to this one. */
  get goesOn(): boolean {
    return this.#known > this.#promptTokens
  }

  /** What was generated to the last prompt. */
  answered(generated: readonly number[]): void {
    const most = Math.min(generated.length, this.#known - this.#promptTokens)
    for (let i = 0; i < most; i++) this.#tokens[this.#promptTokens + i] = generated[i] as number
  }

  #write(runs: BlockRuns, from: number, end: number, tokens: Uint32Array): void {
    const { commonBlocks } = this.#session
    eachPart(runs, this.#blockTokens, from, end, (id, block, part, place) => {
      const copy = block < commonBlocks ? 0 : this.#copy
      tokens[place] = this.#token(mix32(mix32(id + Math.imul(copy, 0x9e3779b1)) + part))
    })
  }

  #token(word: number): number {
    return this.#range.first + ((word >>> 0) % this.#range.count)
  }
}
