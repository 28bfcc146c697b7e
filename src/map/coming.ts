import { sharedBlocks } from '../kv/keys.ts'
import type { MatchQuery, PrefixMatch } from './map.ts'

/** The blocks of one request that is on its way to a worker, which will hold them once it has computed them. */
export interface Expected {
  readonly slot: number
  readonly blockSize: number
  /** All blocks of its prompt in chain order, two words a block. */
  readonly keys: Uint32Array
  /** From then on it is no longer believed. */
  untilMs: number
}

/**
 * What workers are about to hold: the prompts of requests that were sent and whose blocks no event has told of yet.
 * Without it the second of two equal prompts finds no trace of the first for as long as its prefill takes, and a burst
 * of them scatters over the fleet to compute the same blocks everywhere.
 *
 * A request is kept as the keys of its prompt and compared where a worker's run ends, so that sending one costs nothing
 * per block, and a decision one comparison for each request under way.
 */
export class Coming {
  readonly #limits: { readonly requests: number }
  /** The oldest first. */
  readonly #expected: Expected[] = []
  #isFilled = false

  /** @param limits Requests that are remembered at a time; beyond that the oldest is forgotten. Read anew each time. */
  constructor(limits: { readonly requests: number }) {
    this.#limits = limits
  }

  expect(slot: number, blockSize: number, keys: Uint32Array, untilMs: number): Expected {
    const expected: Expected = { slot, blockSize, keys, untilMs }
    const { requests } = this.#limits
    if (this.#expected.length >= requests) this.#expected.shift()
    if (requests > 0) this.#expected.push(expected)
    return expected
  }

  /** The worker went down, was started anew or left: nothing of what it was sent is coming any more. */
  forget(slot: number): void {
    for (const expected of this.#expected) if (expected.slot === slot) expected.untilMs = -Infinity
  }

  /**
   * Writes, by slot, how many blocks of a prompt are on their way to a worker directly behind those that `match` found,
   * and forgets what has expired.
   */
  match(queries: readonly MatchQuery[], match: PrefixMatch, nowMs: number, out: Uint32Array): void {
    if (this.#isFilled) out.fill(0)
    this.#isFilled = false
    const all = this.#expected
    let kept = 0
    let query: MatchQuery | undefined
    for (const expected of all) {
      if (expected.untilMs <= nowMs) continue
      all[kept++] = expected
      if (query?.blockSize !== expected.blockSize)
        query = queries.find(({ blockSize }) => blockSize === expected.blockSize)
      if (query === undefined) continue
      const { slot } = expected
      // What an earlier one brings need not be compared again.
      const from = heldBlocks(match, slot) + (out[slot] as number)
      const further = sharedBlocks(expected.keys, from, query.keys, from)
      if (further === 0) continue
      out[slot] = (out[slot] as number) + further
      this.#isFilled = true
    }
    all.length = kept
  }

  get count(): number {
    return this.#expected.length
  }
}

function heldBlocks({ gpu, host, disk, shared }: PrefixMatch, slot: number): number {
  return (gpu[slot] as number) + (host[slot] as number) + (disk[slot] as number) + (shared[slot] as number)
}
