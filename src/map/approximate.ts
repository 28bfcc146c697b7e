import { tierIndex } from '../kv/tier.ts'
import type { KvEvent, WorkerSlot } from '../kv/batch.ts'
import type { CacheMap } from './map.ts'
import { RecencyTree } from './recency-tree.ts'

export interface ApproximateOptions {
  readonly map: Pick<CacheMap, 'assume' | 'retract'>
  /** Read anew for each use. */
  readonly limits: ApproximateLimits
  /** Whether the worker's own events tell what it holds: nothing is assumed of it then. */
  readonly isAnnounced: (slot: WorkerSlot) => boolean
}

export interface ApproximateLimits {
  /** Blocks that a worker holds where neither its engine nor the config says. */
  readonly capacityBlocks: number
  /** For how long a block is believed to be held after its last use. */
  readonly ttlMs: number
}

/** One prompt that a worker has computed. */
export interface Computed {
  readonly slot: WorkerSlot
  /** Two words a block. */
  readonly keys: Uint32Array
  /** Leading blocks that the map credited the worker with when it was chosen. */
  readonly believedBlocks: number
  /** The worker's own capacity; null where it is not known. */
  readonly capacityBlocks: number | null
}

interface Assumed {
  readonly tree: RecencyTree
  /** How much of the capacity is relied on, from `leastShare` to `mostShare`. */
  share: number
}

/** By how much a block that was not found lowers the share, and every prompt whose blocks all were raises it again. */
const lostFactor = 0.95
const foundFactor = 1.005
const leastShare = 1 / 64
/** By how much a prompt of which more was found than the capacity let us believe raises the share, beyond the whole. */
const moreFactor = 1.05
const mostShare = 8
/** Of the capacity: with less in it, what was not known was not driven out. */
const fullShare = 0.9

/**
 * What workers without events hold, concluded from what was sent to them: the blocks of every prompt that they computed,
 * the last used ones first, as many as fit. Entered into the map beside what others announce, so that one match serves
 * both. Generated tokens count once they come back within a next prompt.
 *
 * Where a worker reports fewer cached tokens than it was believed to have, what was believed beyond is forgotten; one that
 * keeps doing so is relied on for a smaller part of its capacity, one that reports more for a larger one.
 */
export class Approximate {
  readonly #o: ApproximateOptions
  readonly #assumed = new Map<WorkerSlot, Assumed>()

  constructor(options: ApproximateOptions) {
    this.#o = options
  }

  /**
   * A worker has computed a prompt, or is done with it: its blocks are there, and the last ones used. False where its own
   * events tell.
   */
  computed(prompt: Computed, nowMs: number): boolean {
    const { slot, keys, believedBlocks } = prompt
    const assumed = this.#of(slot)
    if (assumed === null) return false
    const held = assumed.tree.use(keys, nowMs)
    const events: KvEvent[] = []
    // The map may have given up for its budget what is still in the tree.
    hold(keys, Math.min(held, believedBlocks), events)
    assumed.tree.shrink(this.#capacityBlocks(prompt, assumed), (gone) => events.push(removal(gone)))
    if (events.length > 0) this.#o.map.assume(slot, events)
    return true
  }

  /** The engine has reported how many leading blocks of the prompt it found in its cache. */
  found(prompt: Computed, foundBlocks: number): void {
    const { slot, keys, believedBlocks } = prompt
    const assumed = this.#of(slot)
    if (assumed === null) return
    if (foundBlocks >= believedBlocks) {
      const isFull = assumed.tree.blocks >= fullShare * this.#capacityBlocks(prompt, assumed)
      if (foundBlocks > believedBlocks && isFull) assumed.share = Math.min(mostShare, assumed.share * moreFactor)
      else if (believedBlocks > 0 && assumed.share < 1) assumed.share = Math.min(1, assumed.share * foundFactor)
      return
    }
    assumed.share = Math.max(leastShare, assumed.share * lostFactor)
    // What hangs below a block that was gone is gone too. The prompt's own blocks come back when it is done.
    const events: KvEvent[] = []
    assumed.tree.cut(keys, foundBlocks, (gone) => events.push(removal(gone)))
    if (events.length > 0) this.#o.map.assume(slot, events)
  }

  /** The worker went down, was started anew or left. */
  forget(slot: WorkerSlot): void {
    this.#assumed.delete(slot)
    this.#o.map.retract(slot)
  }

  /** Forgets what was not used for the time to live, and all of workers that announce by now. */
  expire(nowMs: number): void {
    for (const [slot, { tree }] of this.#assumed) {
      if (this.#of(slot) === null) continue
      const events: KvEvent[] = []
      tree.expire(nowMs - this.#o.limits.ttlMs, (gone) => events.push(removal(gone)))
      if (events.length > 0) this.#o.map.assume(slot, events)
    }
  }

  /** Blocks that a worker is relied on for at most; null for one of which nothing is assumed. */
  capacityOf(slot: WorkerSlot, capacityBlocks: number | null): number | null {
    const assumed = this.#assumed.get(slot)
    return assumed === undefined ? null : this.#capacityBlocks({ capacityBlocks }, assumed)
  }

  #capacityBlocks({ capacityBlocks }: Pick<Computed, 'capacityBlocks'>, { share }: Assumed): number {
    return Math.max(1, Math.floor((capacityBlocks ?? this.#o.limits.capacityBlocks) * share))
  }

  #of(slot: WorkerSlot): Assumed | null {
    if (this.#o.isAnnounced(slot)) {
      if (this.#assumed.has(slot)) this.forget(slot)
      return null
    }
    let assumed = this.#assumed.get(slot)
    if (assumed === undefined) {
      assumed = { tree: new RecencyTree(), share: 1 }
      this.#assumed.set(slot, assumed)
    }
    return assumed
  }
}

function hold(keys: Uint32Array, fromBlock: number, events: KvEvent[]): void {
  const at = 2 * fromBlock
  if (at >= keys.length) return
  const parent = at === 0 ? null : ([keys[at - 2] as number, keys[at - 1] as number] as const)
  events.push({ kind: 'hold', tier: tierIndex.gpu, keys: keys.subarray(at), parent })
}

function removal(keys: Uint32Array): KvEvent {
  return { kind: 'remove', tier: tierIndex.gpu, group: 0, engineHashes: keys }
}
