import { localHashes, type KeyMaker, type KeyScope } from '../kv/keys.ts'
import type { Cause } from './causes.ts'
import type { Difference, Watched } from './watched.ts'

/** What the reasons of events that were passed over point to. */
const causeOfSkip: ReadonlyMap<string, Cause> = new Map([
  ['tokens_mismatch', 'block_size'],
  ['lora_unnamed', 'lora'],
])

/** Says why a request's blocks are not what was expected, from what its worker's events told meanwhile. */
export class Diagnosis {
  readonly #keys: KeyMaker
  readonly #scopes = new Map<number, KeyScope>()

  constructor(keys: KeyMaker) {
    this.#keys = keys
  }

  /** Null where nothing tells. */
  causeOf(watched: Watched, { missing, over }: Difference, runBlocks: number | null): Cause | null {
    if (missing > 0) return this.#ofMissing(watched, runBlocks ?? 0)
    if (over > 0) return watched.salt !== null ? 'salt' : watched.adapter !== null ? 'lora' : 'finds_less'
    return 'finds_more'
  }

  #ofMissing(watched: Watched, runBlocks: number): Cause | null {
    const { record, adapter, salt, chat } = watched
    const skipped = record.skips > watched.skipsBefore || (record.skips > 0 && record.storedBlocks === 0)
    if (skipped) {
      const stored = record.storedBlocks > watched.storedBefore
      for (const [reason, cause] of causeOfSkip)
        if (record.skipReasons.has(reason) && (!stored || (cause === 'lora' && adapter !== null))) return cause
      if (!stored) return 'events_unusable'
    }
    // Nothing is announced of what the engine has already: only what it announced before can tell.
    const otherTokens = record.heardMs < watched.sentMs ? null : chat ? 'template' : 'tokenizer'
    if (runBlocks > 0) return otherTokens
    const [low, high] = this.#plain(watched)
    switch (record.roots.difference(low, high, adapter, salt)) {
      case 'adapter':
        return 'lora'
      case 'salt':
        return 'salt'
      default:
        return otherTokens
    }
  }

  /** The hash of the first block's tokens alone; scopes differ in their roots only, which it does not use. */
  #plain({ tokens, blockSize }: Watched): readonly [number, number] {
    let scope = this.#scopes.get(blockSize)
    if (scope === undefined) {
      scope = this.#keys.scope({ model: '', blockSize, adapter: null })
      this.#scopes.set(blockSize, scope)
    }
    const hash = localHashes(tokens.subarray(0, blockSize), scope)
    return [hash[0] as number, hash[1] as number]
  }
}
