import type { KvEvent, KvParent, KvPresent, KvRemove, KvStore, NamedBatch, StoreEvent, StorePart } from '../kv/batch.ts'
import { localHashes, type BlockExtras, type KeyMaker, type KeyScope } from '../kv/keys.ts'
import type { RootBlock } from '../kv/root-block.ts'
import { tierIndex, type Tier, type TierIndex } from '../kv/tier.ts'
import type { DecodedEvent, DecodedStore, ExtraKey } from './decode.ts'
import { HashSet } from './hash-set.ts'
import type { LearnedOfEngine } from './learned.ts'

export interface NormalizerOptions {
  readonly keys: KeyMaker
  /** Canonical name of the pool's model: part of every key. */
  readonly model: string
  /** Tokens a block where it is known before the first event; null: the first stored event tells. */
  readonly blockSize: number | null
  /** llm-d's simulator writes parent 0 where vLLM writes nil. */
  readonly zeroParentIsRoot?: boolean
  /** Where media are that mean something else here than by default; names in lower case. */
  readonly media?: Readonly<Record<string, Tier>>
  readonly skipped: (reason: string, count: number) => void
  /** The engine's blocks have another size than was known; comes before the events that showed it are returned. */
  readonly onBlockSize: (tokens: number) => void
  /** The first block of a chain, stored in the GPU's memory. */
  readonly onRoot?: (block: RootBlock) => void
}

type Part = 'engine' | StorePart

export type Normalized = Pick<NamedBatch, 'events' | 'others' | 'removedTwice'>

/** Names of places where a block can be, in lower case, as vLLM, SGLang and NVIDIA Dynamo's connectors write them. */
const tierByMedium: ReadonlyMap<string, TierIndex> = new Map([
  ...['gpu', 'device'].map((medium) => [medium, tierIndex.gpu] as const),
  ...['cpu', 'cpu_pinned', 'cpu_tier1', 'host'].map((medium) => [medium, tierIndex.host] as const),
  ...['disk', 'storage', 'nvme', 'cpu_tier2'].map((medium) => [medium, tierIndex.disk] as const),
  ...['external', 'remote', 'shared', 'shared_storage', 'network'].map((medium) => [medium, tierIndex.shared] as const),
])

/** Only these hold a prompt's prefix block by block; sliding windows, mamba states and the like constrain hits at most. */
const prefixKinds: ReadonlySet<string> = new Set(['full_attention', 'mla_attention', 'sink_full_attention'])

/** Scopes are kept for so many pairs of block size and adapter; beyond, they are made anew each time. */
const maxScopes = 1_024
/** Blocks of one tier that are remembered as left out; the removals of further ones count as unknown. */
const maxLeftOut = 65_536
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
  /** Full-attention groups whose blocks were described. */
  readonly #groups = new Set<number>()
  /** The group whose blocks on the GPU have the worker's block size. */
  #sizingGroup: number | null = null
  #blockSize: number | null
  /** By part, in which size it stores. */
  #partSizes: { chunks: number | null; shared: number | null } = { chunks: null, shared: null }
  /** Tiers in which the engine itself, or the store beside it, has stored something. */
  readonly #tiersOf = { engine: new Set<number>(), chunks: new Set<number>() }
  /** Blocks whose stores were left out, by tier: nobody misses them when they are removed. */
  readonly #leftOut = new Map<TierIndex, HashSet>()
  #others: StoreEvent[] = []
  #removedTwice = 0

  constructor(options: NormalizerOptions) {
    this.#options = options
    this.#blockSize = options.blockSize
  }

  /** Tokens in a block of the engine's own; null while that is unknown. */
  get blockSize(): number | null {
    return this.#blockSize
  }

  normalize(events: readonly DecodedEvent[]): Normalized {
    const normalized: KvEvent[] = []
    this.#others = []
    this.#removedTwice = 0
    for (const event of events) {
      const own = event.kind === 'clear' ? this.#clear(event) : this.#blocks(event)
      if (own !== null) normalized.push(own)
    }
    return { events: normalized, others: this.#others, removedTwice: this.#removedTwice }
  }

  /** The engine may be another process from now on. */
  reset(): void {
    this.#otherGroups.clear()
    this.#groups.clear()
    this.#sizingGroup = null
    this.#partSizes = { chunks: null, shared: this.#partSizes.shared }
    this.#tiersOf.engine.clear()
    this.#tiersOf.chunks.clear()
    this.#leftOut.clear()
  }

  /** Learns what it would have learned, had it named the blocks of this batch itself. */
  observe({ blockSize, events, others }: NamedBatch): void {
    if (blockSize !== null && blockSize !== this.#blockSize) {
      this.#blockSize = blockSize
      this.#options.onBlockSize(blockSize)
    }
    for (const event of events) {
      if (event.kind !== 'store' && event.kind !== 'present') continue
      this.#groups.add(event.group)
      if (event.tier === tierIndex.gpu) this.#sizingGroup ??= event.group
      else this.#tiersOf.engine.add(event.tier)
    }
    for (const { part, blockSize: tokens, event } of others) {
      this.#partSizes[part] = Math.max(tokens, this.#partSizes[part] ?? 0)
      if (part === 'chunks' && (event.kind === 'store' || event.kind === 'present'))
        this.#tiersOf.chunks.add(event.tier)
    }
  }

  /** What is known of the engine's ways; the blocks themselves are the map's. */
  get learned(): LearnedOfEngine {
    return {
      blockSize: this.#blockSize,
      groups: [...this.#groups],
      otherGroups: [...this.#otherGroups],
      sizingGroup: this.#sizingGroup,
      chunkTokens: this.#partSizes.chunks,
      sharedTokens: this.#partSizes.shared,
      engineTiers: [...this.#tiersOf.engine],
      chunkTiers: [...this.#tiersOf.chunks],
    }
  }

  /** Takes over what another normalizer had learned of the same engine. */
  recall(learned: LearnedOfEngine): void {
    this.reset()
    if (learned.blockSize !== null && learned.blockSize !== this.#blockSize) {
      this.#blockSize = learned.blockSize
      this.#options.onBlockSize(learned.blockSize)
    }
    for (const group of learned.groups) this.#groups.add(group)
    for (const group of learned.otherGroups) this.#otherGroups.add(group)
    this.#sizingGroup = learned.sizingGroup
    this.#partSizes = { chunks: learned.chunkTokens, shared: learned.sharedTokens }
    for (const tier of learned.engineTiers) this.#tiersOf.engine.add(tier)
    for (const tier of learned.chunkTiers) this.#tiersOf.chunks.add(tier)
  }

  /** An engine that drops its cache leaves the shared store as it is. */
  #clear(event: Extract<DecodedEvent, { kind: 'clear' }>): KvEvent {
    this.#leftOut.clear()
    if (this.#partSizes.chunks !== null) this.#push('chunks', this.#partSizes.chunks, event)
    return event
  }

  #blocks(event: Exclude<DecodedEvent, { kind: 'clear' }>): KvEvent | null {
    const tier = this.#tierOf(event.medium, event.locality)
    if (tier === null) return this.#skip('unknown_medium')
    const group = event.group ?? 0
    if (group < 0 || group > maxGroup) return this.#skip('group_number')
    if (event.hashes.length === 0) return null
    if (event.kind === 'store') return this.#store(event, tier, group)
    if (this.#otherGroups.has(group)) return this.#skip('group_kind')
    const engineHashes = this.#withoutLeftOut(event.hashes, tier)
    if (engineHashes.length === 0) return null
    return this.#remove({ kind: 'remove', tier: event.everywhere === true ? null : tier, group, engineHashes })
  }

  /** A removal says in which tier, not in which size; where both are there, either may hold the block. */
  #remove(event: KvRemove): KvRemove | null {
    const { chunks, shared } = this.#partSizes
    if (event.tier === tierIndex.shared) {
      if (shared === null) return this.#skip('unknown_removal')
      return this.#push('shared', shared, event)
    }
    if (chunks === null || event.tier === null || !this.#tiersOf.chunks.has(event.tier)) return event
    this.#push('chunks', chunks, event)
    if (!this.#tiersOf.engine.has(event.tier)) return null
    this.#removedTwice += event.engineHashes.length / 2
    return event
  }

  #store(event: DecodedStore, tier: TierIndex, group: number): KvEvent | null {
    if (event.specKind !== null && !prefixKinds.has(event.specKind)) {
      this.#otherGroups.add(group)
      return this.#skip('group_kind')
    }
    if (this.#otherGroups.has(group)) return this.#skip('group_kind')
    if (event.tokens.length === 0 && event.locals === undefined) return this.#present(event, tier, group)
    const blocks = event.hashes.length / 2
    // Pairs of neighbouring tokens: blocks end within a token of where a prompt's blocks do.
    if (event.pairs) return this.#leaveOut(event, tier, 'eagle')
    if (event.blockSize === 0 || !describesBlocks(event, blocks)) return this.#leaveOut(event, tier, 'tokens_mismatch')
    // An adapter that is only numbered is unknown outside its process; as the base model's its blocks would be wrong.
    if (event.loraName === null && (event.loraId ?? 0) > 0) return this.#leaveOut(event, tier, 'lora_unnamed')
    if (tier === tierIndex.gpu && !this.#isOfSize(event.blockSize, blocks, group)) return null
    const part = this.#partOf(event, tier)
    if (part === null) return null
    const scope = this.#scope(event.blockSize, event.loraName)
    const parent = this.#parent(event.parent, scope)
    const extras = extrasOf(event, blocks, parent.kind === 'root')
    const locals = event.locals ?? localHashes(event.tokens, scope, extras)
    if (parent.kind === 'root' && tier === tierIndex.gpu && event.locals === undefined)
      this.#tellRoot(event, scope, locals, extras?.[0] ?? [])
    if (part === 'engine' && blocks === 1 && event.blockSize < (this.#blockSize ?? 0))
      return this.#leaveOut(event, tier, 'short_page')
    this.#noLongerLeftOut(event.hashes, tier)
    const store: KvStore = { kind: 'store', tier, group, engineHashes: event.hashes, locals, parent }
    return this.#into(part, event.blockSize, store)
  }

  /** Blocks named by hash alone: the engine's own names, so they are of its size. */
  #present(event: DecodedStore, tier: TierIndex, group: number): KvEvent | null {
    // A group that was never described may be of any kind; its blocks prove nothing.
    if (this.#blockSize === null || !this.#groups.has(group)) return this.#leaveOut(event, tier, 'no_token_ids')
    this.#noLongerLeftOut(event.hashes, tier)
    const present: KvPresent = { kind: 'present', tier, group, engineHashes: event.hashes }
    if (tier !== tierIndex.shared) return this.#into('engine', this.#blockSize, present)
    this.#partSizes.shared ??= this.#blockSize
    if (this.#partSizes.shared !== this.#blockSize) return this.#skip('chunk_size')
    return this.#into('shared', this.#blockSize, present)
  }

  /** Null where the store is left out. */
  #partOf({ blockSize, group }: DecodedStore, tier: TierIndex): Part | null {
    const isShared = tier === tierIndex.shared
    const isChunk = tier !== tierIndex.gpu && this.#blockSize !== null && blockSize > this.#blockSize
    if (!isShared && !isChunk) return 'engine'
    // A coarser group of a hybrid model is a part of a block only; chunks of a store beside the engine have no group.
    if (isChunk && (group ?? 0) !== 0) return this.#skip('group_block_size')
    const part = isShared ? 'shared' : 'chunks'
    // A last chunk may be short (LMCache with save_unfull_chunk) and come first: the largest size is the store's.
    const size = Math.max(blockSize, this.#partSizes[part] ?? 0)
    this.#partSizes[part] = size
    return size === blockSize ? part : this.#skip('chunk_size')
  }

  #into(part: Part, blockSize: number, event: KvStore | KvPresent): KvEvent | null {
    if (part === 'engine') {
      this.#groups.add(event.group)
      if (event.tier !== tierIndex.gpu) this.#tiersOf.engine.add(event.tier)
      return event
    }
    if (part === 'chunks') this.#tiersOf.chunks.add(event.tier)
    return this.#push(part, blockSize, event)
  }

  #push(part: StorePart, blockSize: number, event: KvEvent): null {
    this.#others.push({ part, blockSize, event })
    return null
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
   * Learns the block size from a run on the GPU. A short last page (SGLang) comes alone and with a size of its own, so a
   * smaller size counts only when several blocks have it. A hybrid model has groups with blocks of several sizes, of
   * which the first group's count; false for the others.
   */
  #isOfSize(tokens: number, blocks: number, group: number): boolean {
    if (tokens === this.#blockSize) {
      this.#sizingGroup ??= group
      return true
    }
    if (this.#blockSize !== null && tokens < this.#blockSize && blocks < 2) return true
    if (this.#sizingGroup !== null && this.#sizingGroup !== group) {
      this.#otherGroups.add(group)
      this.#skip('group_block_size')
      return false
    }
    this.#sizingGroup = group
    this.#blockSize = tokens
    this.#options.onBlockSize(tokens)
    return true
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

  /** Null where the medium is not known. What is remote to its publisher is as near to every worker as to that one. */
  #tierOf(medium: string | null, locality: string | null): TierIndex | null {
    const name = medium?.toLowerCase() ?? 'gpu'
    const own = this.#options.media?.[name]
    const tier = own === undefined ? tierByMedium.get(name) : tierIndex[own]
    if (tier === undefined) return null
    return locality?.toUpperCase() === 'REMOTE' ? tierIndex.shared : tier
  }

  #leaveOut({ hashes }: DecodedStore, tier: TierIndex, reason: string): null {
    let leftOut = this.#leftOut.get(tier)
    if (leftOut === undefined) {
      leftOut = new HashSet(maxLeftOut)
      this.#leftOut.set(tier, leftOut)
    }
    for (let i = 0; i < hashes.length; i += 2) leftOut.add(hashes[i] as number, hashes[i + 1] as number)
    return this.#skip(reason)
  }

  #noLongerLeftOut(hashes: Uint32Array, tier: TierIndex): void {
    const leftOut = this.#leftOut.get(tier)
    if (leftOut === undefined || leftOut.size === 0) return
    for (let i = 0; i < hashes.length; i += 2) leftOut.delete(hashes[i] as number, hashes[i + 1] as number)
  }

  #withoutLeftOut(hashes: Uint32Array, tier: TierIndex): Uint32Array {
    const leftOut = this.#leftOut.get(tier)
    if (leftOut === undefined || leftOut.size === 0) return hashes
    return hashes.filter((_, i) => {
      const block = i & ~1
      const [low, high] = [hashes[block] as number, hashes[block + 1] as number]
      // Both words of a pair must be judged alike, so it goes from the set with the second one.
      return i === block ? !leftOut.has(low, high) : !leftOut.delete(low, high)
    })
  }

  #skip(reason: string): null {
    this.#options.skipped(reason, 1)
    return null
  }
}

function describesBlocks({ tokens, locals, blockSize }: DecodedStore, blocks: number): boolean {
  return locals === undefined ? tokens.length === blocks * blockSize : locals.length === 2 * blocks
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
