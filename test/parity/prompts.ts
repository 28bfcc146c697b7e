import { randomWords } from '../support/random.ts'
import type { Block } from './engine-cache.ts'

export interface Prompt {
  readonly tokens: Uint32Array
  /** Its full blocks. */
  readonly blocks: readonly Block[]
}

const systemPrompts = 5
const systemBlocks = [2, 60] as const
const apps = 30
const appTokens = [0, 600] as const
const sessionsKept = 60
const turnTokens = [1, 500] as const
const vocabulary = 50_000

/**
 * Prompts as conversations make them: a few system prompts, applications under these, sessions that grow by a random number
 * of tokens a turn and are left for new ones. Some are shorter than a block, some the same as the one before.
 */
export class Prompts {
  readonly #blockSize: number
  readonly #word: () => number
  readonly #apps: Uint32Array[]
  readonly #sessions: Uint32Array[] = []
  /** Children by the text of their tokens; null: those of the root. */
  readonly #children = new Map<Block | null, Map<string, Block>>()

  constructor(blockSize: number, seed: number) {
    this.#blockSize = blockSize
    this.#word = randomWords(seed)
    const systems = Array.from({ length: systemPrompts }, () => this.tokens(blockSize * this.between(systemBlocks)))
    this.#apps = Array.from({ length: apps }, () =>
      joined(systems[this.#word() % systemPrompts] as Uint32Array, this.tokens(this.between(appTokens))),
    )
  }

  next(): Prompt {
    const draw = this.#word() % 100
    if (draw < 3) return this.#promptOf(this.tokens(1 + (this.#word() % (3 * this.#blockSize))))
    const isNew = this.#sessions.length < sessionsKept || draw < 15
    const at = isNew ? this.#sessions.length % sessionsKept : this.#word() % this.#sessions.length
    const place = isNew && this.#sessions.length === sessionsKept ? this.#word() % sessionsKept : at
    const before = isNew ? (this.#apps[this.#word() % apps] as Uint32Array) : (this.#sessions[at] as Uint32Array)
    const tokens = draw > 94 ? before : joined(before, this.tokens(this.between(turnTokens)))
    this.#sessions[place] = tokens
    return this.#promptOf(tokens)
  }

  /** Tokens that no prompt has. */
  marks(): Prompt {
    const tokens = this.tokens(3 * this.#blockSize)
    tokens[0] = vocabulary + (this.#word() % vocabulary)
    return this.#promptOf(tokens)
  }

  between([least, most]: readonly [least: number, most: number]): number {
    return least + (this.#word() % (most - least + 1))
  }

  tokens(count: number): Uint32Array {
    return Uint32Array.from({ length: count }, () => this.#word() % vocabulary)
  }

  #promptOf(tokens: Uint32Array): Prompt {
    const blocks: Block[] = []
    for (let at = 0; at + this.#blockSize <= tokens.length; at += this.#blockSize)
      blocks.push(this.#block(blocks.at(-1) ?? null, tokens.subarray(at, at + this.#blockSize)))
    return { tokens, blocks }
  }

  #block(parent: Block | null, tokens: Uint32Array): Block {
    let children = this.#children.get(parent)
    if (children === undefined) this.#children.set(parent, (children = new Map<string, Block>()))
    const name = tokens.join()
    let block = children.get(name)
    if (block === undefined) {
      block = { parent, hash: [this.#word(), this.#word() >>> 1], tokens }
      children.set(name, block)
    }
    return block
  }
}

function joined(one: Uint32Array, other: Uint32Array): Uint32Array {
  const both = new Uint32Array(one.length + other.length)
  both.set(one)
  both.set(other, one.length)
  return both
}
