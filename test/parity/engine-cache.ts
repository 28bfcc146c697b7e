import type { Tier } from '../../src/kv/tier.ts'
import type { KvEvent } from '../../src/simulator/kv-event.ts'

/** One block of the random prompts; every engine names it alike. */
export interface Block {
  readonly parent: Block | null
  readonly hash: readonly [low: number, high: number]
  readonly tokens: Uint32Array
}

type OwnTier = Exclude<Tier, 'shared'>

/** Blocks by tier. */
export type Held = Readonly<Record<OwnTier, number>>

const tiers = ['gpu', 'host', 'disk'] as const

/** The tier below, where what is evicted goes. */
const below: Readonly<Record<OwnTier, OwnTier | null>> = { gpu: 'host', host: 'disk', disk: null }

/**
 * The caches of an imaginary engine and what it tells of them: prompts are stored on the GPU, the least recently used
 * block without followers there moves to the tier below when there is no room.
 */
export class EngineCache {
  readonly #room: Held
  /** Least recently used first. */
  readonly #blocks: Readonly<Record<OwnTier, Set<Block>>> = { gpu: new Set(), host: new Set(), disk: new Set() }
  #events: KvEvent[] = []

  constructor(room: Held) {
    this.#room = room
  }

  /** A prompt was computed. */
  store(blocks: readonly Block[]): void {
    const { gpu } = this.#blocks
    const fresh = blocks.filter((block) => !gpu.has(block))
    for (const block of blocks) touch(gpu, block)
    this.#told('gpu', fresh)
    this.#makeRoom('gpu')
  }

  /** Leading blocks of a prompt that it holds, each in the best tier that has it. */
  held(blocks: readonly Block[]): Held {
    const held = { gpu: 0, host: 0, disk: 0 }
    for (const block of blocks) {
      const tier = tiers.find((each) => this.#blocks[each].has(block))
      if (tier === undefined) break
      held[tier]++
    }
    return held
  }

  /** The same as Dynamo counts them: each tier goes on where the one above ends, and none is returned to. */
  heldInTurn(blocks: readonly Block[]): Held {
    const held = { gpu: 0, host: 0, disk: 0 }
    let at = 0
    for (const tier of tiers)
      for (let block = blocks[at]; block !== undefined && this.#blocks[tier].has(block); block = blocks[++at])
        held[tier]++
    return held
  }

  /** Drops some blocks wherever they are, as other users of the engine make it drop them. */
  drop(isDropped: (block: Block) => boolean): void {
    for (const tier of tiers)
      for (const block of [...this.#blocks[tier]]) if (isDropped(block)) this.#remove(tier, block)
  }

  /** As after a restart. */
  clear(): void {
    for (const tier of tiers) this.#blocks[tier].clear()
    this.#events.push({ kind: 'cleared' })
  }

  /** One block in each tier that has nothing to do with any prompt, or no longer. */
  mark(chain: readonly Block[], isThere: boolean): void {
    chain.forEach((block, i) => {
      const tier = tiers[i] as OwnTier
      if (isThere) this.#events.push(storeEvent(tier, [block]))
      else this.#events.push({ kind: 'removed', tier, low: block.hash[0], high: block.hash[1] })
    })
  }

  /** What has happened since the last call. */
  takeEvents(): KvEvent[] {
    const events = this.#events
    this.#events = []
    return events
  }

  #makeRoom(tier: OwnTier): void {
    const held = this.#blocks[tier]
    while (held.size > this.#room[tier]) {
      const parents = new Set([...held].map(({ parent }) => parent))
      for (const block of [...held]) {
        if (held.size <= this.#room[tier]) break
        if (parents.has(block)) continue
        this.#evict(tier, block)
      }
    }
  }

  #evict(tier: OwnTier, block: Block): void {
    const next = below[tier]
    if (next !== null && this.#room[next] > 0) {
      const held = this.#blocks[next]
      if (!held.has(block)) this.#told(next, [block])
      touch(held, block)
    }
    this.#remove(tier, block)
    if (next !== null) this.#makeRoom(next)
  }

  #remove(tier: OwnTier, block: Block): void {
    this.#blocks[tier].delete(block)
    this.#events.push({ kind: 'removed', tier, low: block.hash[0], high: block.hash[1] })
  }

  /** Stores in chain order, one event for each unbroken row. */
  #told(tier: OwnTier, blocks: readonly Block[]): void {
    let row: Block[] = []
    for (const block of blocks) {
      if (row.length > 0 && block.parent !== row.at(-1)) {
        this.#events.push(storeEvent(tier, row))
        row = []
      }
      row.push(block)
    }
    if (row.length > 0) this.#events.push(storeEvent(tier, row))
  }
}

function touch(held: Set<Block>, block: Block): void {
  held.delete(block)
  held.add(block)
}

function storeEvent(tier: OwnTier, row: readonly Block[]): KvEvent {
  const [first] = row as readonly [Block]
  const tokens = new Uint32Array(row.length * first.tokens.length)
  row.forEach((block, i) => tokens.set(block.tokens, i * first.tokens.length))
  return {
    kind: 'stored',
    tier,
    blockSize: first.tokens.length,
    hashes: Uint32Array.from(row.flatMap(({ hash }) => [...hash])),
    parent: first.parent?.hash ?? null,
    tokens,
    fromStart: first.parent === null,
    cacheSalt: null,
    loraName: null,
    loraId: null,
    sessionId: null,
  }
}
