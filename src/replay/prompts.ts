import { chainKeys, type KeyScope } from '../kv/keys.ts'
import { mix32 } from '../simulator/random.ts'
import type { GivenBlocks } from '../simulator/sequence.ts'
import type { GivenPrompt } from './chooser.ts'
import { blockCount, eachPart, sharedRuns, type BlockRuns, type TraceSession } from './traces/trace.ts'

export interface PromptScope {
  readonly blockTokens: number
  /** The router's; its block size, which the engines have too, divides the trace's. */
  readonly keys: KeyScope
}

/** The engines' names hang under a root of their own, so that they and the router's keys can agree through events only. */
const namesRoot = [0x243f6a88, 0x85a308d3] as const

/**
 * The prompts of one session, turn after turn, in blocks of the engines' size. A block's local hash is made from its id and its
 * place in the trace's block; what the trace gives no id is the request's own:
 *
 *     prompt  ████████████████▒▒      █ named by its own ids   ▒ tokens beyond them
 *     answer                  ░░░░░░  named by the ids of the next prompt where that goes on from this one
 *
 * Names and keys of blocks that the turn before had are kept, so that a turn costs what is new in it.
 */
export class SessionPrompts {
  readonly #session: TraceSession
  readonly #scope: PromptScope
  /** Tells the blocks of a second user of the same session apart. */
  readonly #copy: number
  /** Blocks of the engines in a block of the trace. */
  readonly #parts: number
  #before: {
    readonly prompt: GivenPrompt
    readonly allKeys: Uint32Array
    readonly runs: BlockRuns
    readonly known: number
  }

  constructor(session: TraceSession, copy: number, scope: PromptScope) {
    this.#session = session
    this.#scope = scope
    this.#copy = copy
    this.#parts = scope.blockTokens / scope.keys.blockSize
    const none = new Uint32Array(0)
    const prompt = { promptTokens: 0, names: none, locals: none, keys: none }
    this.#before = { prompt, allKeys: none, runs: none, known: 0 }
  }

  /** @param own Differs for all requests of a run. */
  of(turn: number, own: number): GivenPrompt {
    const request = this.#session.requests[turn]
    if (request === undefined) throw new RangeError('a session has no turn after its last')
    const { keys: scope } = this.#scope
    const { promptTokens, outputTokens, blocks } = request
    const promptBlocks = Math.floor(promptTokens / scope.blockSize)
    const full = Math.floor((promptTokens + outputTokens - 1) / scope.blockSize)
    const ownKnown = Math.min(promptBlocks, blockCount(blocks) * this.#parts)
    const runs = answeredRuns(this.#session, turn)
    const known = runs === blocks ? ownKnown : Math.min(full, blockCount(runs) * this.#parts)
    const before = this.#before
    const kept = Math.min(before.known, known, sharedRuns(before.runs, runs) * this.#parts)
    const locals = extended(before.prompt.locals, kept, full)
    this.#write(runs, kept, known, locals)
    for (let block = known; block < full; block++) {
      locals[2 * block] = mix32(mix32(own) + block)
      locals[2 * block + 1] = mix32(own ^ mix32(block + 0x2545f491))
    }
    const names = extended(before.prompt.names, kept, full)
    chainFrom(kept, locals, names, ...namesRoot)
    const allKeys = extended(before.allKeys, kept, full)
    chainFrom(kept, locals, allKeys, scope.rootLow, scope.rootHigh)
    const prompt = { promptTokens, names, locals, keys: allKeys.subarray(0, 2 * promptBlocks) }
    this.#before = { prompt, allKeys, runs, known }
    return prompt
  }

  #write(runs: BlockRuns, from: number, end: number, locals: Uint32Array): void {
    const { commonBlocks } = this.#session
    eachPart(runs, this.#parts, from, end, (id, cell, part, block) => {
      const copy = cell < commonBlocks ? 0 : this.#copy
      const place = mix32(part ^ Math.imul(copy, 0x9e3779b1))
      locals[2 * block] = mix32(id + place)
      locals[2 * block + 1] = mix32(id ^ mix32(place + 0x5851f42d))
    })
  }
}

/** What is known of prompt and answer together: the next prompt where that goes on from this one. */
export function answeredRuns({ requests }: TraceSession, turn: number): BlockRuns {
  const blocks = requests[turn]?.blocks ?? noBlocks
  const next = requests[turn + 1]?.blocks
  return next !== undefined && sharedRuns(blocks, next) === blockCount(blocks) ? next : blocks
}

const noBlocks: BlockRuns = new Uint32Array(0)

/** A prompt that has nothing in common with any other. */
export function strangePrompt(
  promptTokens: number,
  outputTokens: number,
  own: number,
  { blockSize }: Pick<KeyScope, 'blockSize'>,
): GivenBlocks {
  const locals = new Uint32Array(2 * Math.floor((promptTokens + outputTokens - 1) / blockSize))
  for (let at = 0; at < locals.length; at++) locals[at] = mix32(mix32(own ^ 0x428a2f98) + at)
  const names = new Uint32Array(locals.length)
  chainKeys(...namesRoot, locals, names)
  return { promptTokens, names, locals }
}

function extended(words: Uint32Array, keptBlocks: number, blocks: number): Uint32Array {
  const longer = new Uint32Array(2 * blocks)
  longer.set(words.subarray(0, 2 * keptBlocks))
  return longer
}

function chainFrom(kept: number, locals: Uint32Array, out: Uint32Array, rootLow: number, rootHigh: number): void {
  const [low, high] = kept === 0 ? [rootLow, rootHigh] : [out[2 * kept - 2] as number, out[2 * kept - 1] as number]
  chainKeys(low, high, locals.subarray(2 * kept), out.subarray(2 * kept))
}
