import { sharedBlocks } from '../kv/keys.ts'
import { blocksOf } from '../kv/tier.ts'
import type { MatchQuery, PrefixMatch } from './map.ts'

/** The blocks of a prompt that is on its way to a worker, which will hold them once it has computed them. */
export interface Expected {
  readonly slot: number
  readonly blockSize: number
  /** Which block of the prompt the first key names. */
  readonly firstBlock: number
  /** The blocks of its prompt from there on in chain order, two words a block. */
  readonly keys: Uint32Array
  /** From then on it is no longer believed. */
  untilMs: number
  /** Requests of this very prompt that are under way there. */
  requests: number
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
  /** By worker and last key: equal prompts are kept once. */
  readonly #byEnd = new Map<number, Expected>()
  #isFilled = false

  /** @param limits Prompts that are remembered at a time; beyond that the oldest is forgotten. Read anew each time. */
  constructor(limits: { readonly requests: number }) {
    this.#limits = limits
  }

  /** @param firstBlock Blocks of the prompt before the first key, which are known to be there. */
  expect(slot: number, blockSize: number, keys: Uint32Array, untilMs: number, firstBlock = 0): Expected {
    const { requests } = this.#limits
    const expected: Expected = { slot, blockSize, firstBlock, keys, untilMs, requests: 1 }
    if (requests === 0 || keys.length === 0) return expected
    const end = endOf(slot, keys)
    const twin = this.#byEnd.get(end)
    if (twin !== undefined && isTwin(twin, expected)) {
      twin.untilMs = Math.max(twin.untilMs, untilMs)
      twin.requests++
      return twin
    }
    const oldest = this.#expected.length >= requests ? this.#expected.shift() : undefined
    if (oldest !== undefined) this.#drop(oldest)
    this.#expected.push(expected)
    this.#byEnd.set(end, expected)
    return expected
  }

  /** The worker has computed the prompt: events tell of it by then, if they do at all. */
  computed(expected: Expected, untilMs: number): void {
    expected.untilMs = Math.min(expected.untilMs, untilMs)
    expected.requests--
  }

  /** A request ended before its prompt was computed; an equal one may still bring it. */
  failed(expected: Expected): void {
    if (--expected.requests <= 0) expected.untilMs = -Infinity
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
      if (expected.untilMs <= nowMs) {
        this.#drop(expected)
        continue
      }
      all[kept++] = expected
      if (query?.blockSize !== expected.blockSize)
        query = queries.find(({ blockSize }) => blockSize === expected.blockSize)
      if (query === undefined) continue
      const { slot, firstBlock } = expected
      // What an earlier one brings need not be compared again.
      const known = blocksOf(match, slot) + (out[slot] as number)
      const from = Math.max(known, firstBlock)
      const shared = sharedBlocks(expected.keys, from - firstBlock, query.keys, from)
      if (shared === 0) continue
      // Where one key is shared, so are the blocks before it.
      out[slot] = (out[slot] as number) + (from - known) + shared
      this.#isFilled = true
    }
    all.length = kept
  }

  #drop(expected: Expected): void {
    const end = endOf(expected.slot, expected.keys)
    if (this.#byEnd.get(end) === expected) this.#byEnd.delete(end)
  }

  get count(): number {
    return this.#expected.length
  }
}

/** Keys name all that is before them, so that the last one tells a prompt's blocks apart from others. */
function endOf(slot: number, keys: Uint32Array): number {
  return ((keys[keys.length - 2] as number) ^ Math.imul(slot, 0x9e3779b1)) >>> 0
}

function isTwin(one: Expected, other: Expected): boolean {
  const last = one.keys.length - 1
  const otherLast = other.keys.length - 1
  return (
    one.slot === other.slot &&
    one.firstBlock + one.keys.length / 2 === other.firstBlock + other.keys.length / 2 &&
    one.keys[last] === other.keys[otherLast] &&
    one.keys[last - 1] === other.keys[otherLast - 1]
  )
}
