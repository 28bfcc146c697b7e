import type { Dispatch } from '../policy.ts'

/** A prompt is compared with so many others at most. */
const mostCompared = 32

/**
 * The prompts of one worker's requests, by which it is known how much of what they hold several of them share. What is not known,
 * since another replica of the router sent it, is taken to share as much as what is.
 */
export class PromptsUnderWay {
  /** Each with the blocks that it shares with one that was there before. */
  readonly #shared = new Map<Dispatch, number>()
  #blocks = 0
  #sharedBlocks = 0

  began(dispatch: Dispatch): void {
    const { keys } = dispatch
    if (keys === null) return
    const shared = this.commonBlocks(keys)
    this.#shared.set(dispatch, shared)
    this.#sharedBlocks += shared
    this.#blocks += keys.length / 2
  }

  ended(dispatch: Dispatch): void {
    const shared = this.#shared.get(dispatch)
    if (shared === undefined) return
    this.#shared.delete(dispatch)
    this.#sharedBlocks -= shared
    this.#blocks -= (dispatch.keys?.length ?? 0) / 2
  }

  /** Part of the blocks that all of them count, each on its own, that is there but once. */
  get distinctShare(): number {
    return this.#blocks === 0 ? 1 : 1 - this.#sharedBlocks / this.#blocks
  }

  /** Leading blocks of a prompt that one of them holds: these stay as long as it does. */
  commonBlocks(keys: Uint32Array): number {
    let most = 0
    let left = mostCompared
    for (const other of this.#shared.keys()) {
      if (other.keys !== null) most = Math.max(most, commonBlocks(other.keys, keys))
      if (--left === 0) break
    }
    return most
  }
}

/** Keys name whole prefixes, so that two prompts that have a block's key in common have all before it in common, too. */
function commonBlocks(one: Uint32Array, other: Uint32Array): number {
  let common = 0
  let end = Math.min(one.length, other.length) / 2
  while (common < end) {
    const middle = (common + end + 1) >>> 1
    const at = 2 * middle - 2
    if (one[at] === other[at] && one[at + 1] === other[at + 1]) common = middle
    else end = middle - 1
  }
  return common
}
