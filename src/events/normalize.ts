import type { KvEvent, KvParent } from '../kv/batch.ts'
import { localHashes, type BlockExtras, type KeyMaker, type KeyScope } from '../kv/keys.ts'
import type { RootBlock } from '../kv/root-block.ts'
import { tierIndex, type TierIndex } from '../kv/tier.ts'
import type { DecodedEvent, DecodedStore, ExtraKey } from './decode.ts'

export interface NormalizerOptions {
  readonly keys: KeyMaker
  /** Canonical name of the pool's model: part of every key. */
  readonly model: string
  /** Tokens a block where it is known before the first event; null: the first stored event tells. */
  readonly blockSize: number | null
  /** llm-d's simulator writes parent 0 where vLLM writes nil. */
  readonly zeroParentIsRoot?: boolean
  readonly skipped: (reason: string, count: number) => void
  /** The engine's blocks have another size than was known; comes before the events that showed it are returned. */
  readonly onBlockSize: (tokens: number) => void
  /** The first block of a chain, stored in the GPU's memory. */
  readonly onRoot?: (block: RootBlock) => void
}

/** Names of places where a block can be, in lower case, as vLLM, SGLang and NVIDIA Dynamo's connectors write them. */
const tierByMedium: ReadonlyMap<string, TierIndex> = new Map([
  ...['gpu', 'device'].map((medium) => [medium, tierIndex.gpu] as const),
  ...['cpu', 'cpu_pinned', 'cpu_tier1', 'host'].map((medium) => [medium, tierIndex.host] as const),
  ...['disk', 'storage', 'nvme', 'cpu_tier2'].map((medium) => [medium, tierIndex.disk] as const),
  ...['external', 'remote', 'shared', 'network'].map((medium) => [medium, tierIndex.shared] as const),
])

/** Only these hold a prompt's prefix block by block; sliding windows, mamba states and the like constrain hits at most. */
const prefixKinds: ReadonlySet<string> = new Set(['full_attention', 'mla_attention', 'sink_full_attention'])

/** Scopes are kept for so many pairs of block size and adapter; beyond, they are made anew each time. */
const maxScopes = 1_024
/** A group is told apart by a small number; larger ones are no engine's. */
const maxGroup = 65_535

/**
 * Translates what one engine says into Warmroute's own events: media into tiers, adapter, salt and media identifiers into
 * the key of a block, token ids into `local` hashes. Knows no clock and no map.
 */
export class Normalizer {
  readonly #options: NormalizerOptions
  readonly #scopes = new Map<string, KeyScope>()
  /** Groups whose stores were passed over: their removals carry no kind. */
  readonly #otherGroups = new Set<number>()
  #blockSize: number | null

  constructor(options: NormalizerOptions) {
    this.#options = options
    this.#blockSize = options.blockSize
  }

  normalize(events: readonly DecodedEvent[]): KvEvent[] {
    const normalized: KvEvent[] = []
    for (const event of events) {
      const own = event.kind === 'clear' ? event : this.#blocks(event)
      if (own !== null) normalized.push(own)
    }
    return normalized
  }

  #blocks(event: Exclude<DecodedEvent, { kind: 'clear' }>): KvEvent | null {
    const tier = tierOf(event.medium, event.locality)
    if (tier === null) return this.#skip('unknown_medium')
    const group = event.group ?? 0
    if (group < 0 || group > maxGroup) return this.#skip('group_number')
    if (event.hashes.length === 0) return null
    if (event.kind === 'store') return this.#store(event, tier, group)
    if (this.#otherGroups.has(group)) return this.#skip('group_kind')
    return { kind: 'remove', tier: event.everywhere === true ? null : tier, group, engineHashes: event.hashes }
  }

  #store(event: DecodedStore, tier: TierIndex, group: number): KvEvent | null {
    if (event.specKind !== null && !prefixKinds.has(event.specKind)) {
      this.#otherGroups.add(group)
      return this.#skip('group_kind')
    }
    if (event.tokens.length === 0) return this.#skip('no_token_ids')
    const blocks = event.hashes.length / 2
    if (event.blockSize === 0 || event.tokens.length !== blocks * event.blockSize) return this.#skip('tokens_mismatch')
    // An adapter that is only numbered is unknown outside its process; as the base model's its blocks would be wrong.
    if (event.loraName === null && (event.loraId ?? 0) > 0) return this.#skip('lora_unnamed')
    if (tier === tierIndex.gpu) this.#learnBlockSize(event.blockSize, blocks)
    const scope = this.#scope(event.blockSize, event.loraName)
    const parent = this.#parent(event.parent, scope)
    const extras = extrasOf(event, blocks, parent.kind === 'root')
    const locals = localHashes(event.tokens, scope, extras)
    if (parent.kind === 'root' && tier === tierIndex.gpu) this.#tellRoot(event, scope, locals, extras?.[0] ?? [])
    return { kind: 'store', tier, group, engineHashes: event.hashes, locals, parent }
  }

  #tellRoot(event: DecodedStore, scope: KeyScope, locals: Uint32Array, extras: readonly string[]): void {
    const { onRoot } = this.#options
    if (onRoot === undefined) return
    const tokens = event.tokens.subarray(0, event.blockSize)
    const plain = extras.length === 0 ? locals : localHashes(tokens, scope)
    onRoot({
      tokens,
      hashLow: event.hashes[0] as number,
      hashHigh: event.hashes[1] as number,
      adapter: event.loraName,
      extras,
      plainLow: plain[0] as number,
      plainHigh: plain[1] as number,
    })
  }

  /**
   * A short last page (SGLang) comes alone and with a size of its own, so a smaller size counts only when several
   * blocks have it.
   */
  #learnBlockSize(tokens: number, blocks: number): void {
    if (tokens === this.#blockSize) return
    if (this.#blockSize !== null && tokens < this.#blockSize && blocks < 2) return
    this.#blockSize = tokens
    this.#options.onBlockSize(tokens)
  }

  #scope(blockSize: number, adapter: string | null): KeyScope {
    const name = `${blockSize} ${adapter === null ? '' : `+${adapter}`}`
    let scope = this.#scopes.get(name)
    if (scope === undefined) {
      scope = this.#options.keys.scope({ model: this.#options.model, blockSize, adapter })
      if (this.#scopes.size < maxScopes) this.#scopes.set(name, scope)
    }
    return scope
  }

  #parent(hash: Uint32Array | null, scope: KeyScope): KvParent {
    const hashLow = hash?.[0] ?? 0
    const hashHigh = hash?.[1] ?? 0
    const isRoot = hash === null || (this.#options.zeroParentIsRoot === true && hashLow === 0 && hashHigh === 0)
    return isRoot
      ? { kind: 'root', keyLow: scope.rootLow, keyHigh: scope.rootHigh }
      : { kind: 'block', hashLow, hashHigh }
  }

  #skip(reason: string): null {
    this.#options.skipped(reason, 1)
    return null
  }
}

/** Null where the medium is not known. What is remote to its publisher is as near to every worker as to that one. */
function tierOf(medium: string | null, locality: string | null): TierIndex | null {
  const tier = medium === null ? tierIndex.gpu : tierByMedium.get(medium.toLowerCase())
  if (tier === undefined) return null
  return locality?.toUpperCase() === 'REMOTE' ? tierIndex.shared : tier
}

/** What sets blocks apart besides tokens and adapter: the salt of the first block first, then media and embeddings. */
function extrasOf(event: DecodedStore, blocks: number, atRoot: boolean): BlockExtras | undefined {
  const { extraKeys, cacheSalt, loraName } = event
  if (extraKeys === null && (cacheSalt === null || !atRoot)) return undefined
  const extras: (readonly string[] | null)[] = []
  for (let block = 0; block < blocks; block++) {
    const isFirst = atRoot && block === 0
    const own = ownExtras(extraKeys?.[block] ?? [], loraName, isFirst)
    if (isFirst && cacheSalt !== null && !own.includes(`salt:${cacheSalt}`)) own.unshift(`salt:${cacheSalt}`)
    extras.push(own.length > 0 ? own : null)
  }
  return extras
}

/**
 * vLLM lists extra keys without saying what they are: the adapter's name on every block, then media, then the salt on
 * the first block of a chain, then embeddings.
 */
function ownExtras(keys: readonly ExtraKey[], loraName: string | null, isFirst: boolean): string[] {
  const extras: string[] = []
  let adapterSeen = false
  let saltSeen = false
  for (const key of keys) {
    switch (key.kind) {
      case 'text':
        if (!adapterSeen && key.text === loraName) adapterSeen = true
        else if (isFirst && !saltSeen) {
          saltSeen = true
          extras.unshift(`salt:${key.text}`)
        } else extras.push(`text:${key.text}`)
        break
      case 'media':
        extras.push(`mm:${key.id}@${key.offset}`)
        break
      case 'embeds':
        extras.push(`embeds:${key.hex}`)
        break
      case 'other':
        extras.push(`other:${key.hex}`)
        break
      default:
        key satisfies never
    }
  }
  return extras
}
