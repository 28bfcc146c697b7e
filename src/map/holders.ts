import type { WorkerSlot } from '../kv/batch.ts'
import { Doubles } from './doubles.ts'
import type { MapMemory } from './layout.ts'
import { maxGroups, tierCount } from './layout.ts'
import type { WorkerMapOptions } from './map.ts'
import { Orphans } from './orphans.ts'
import type { OrphanLimits } from './orphans.ts'

/** What the writer knows of one worker besides its blocks. */
export interface Holder {
  readonly slot: WorkerSlot
  countsStores: boolean
  /** As `WorkerMapOptions.kin`. */
  kin: readonly WorkerSlot[]
  incarnation: number
  epoch: number
  lastSequence: number
  /** Its blocks were assumed, not announced. */
  isAssumed: boolean
  /** The engine's cache group ids in the order of their first store; their places are the map's group numbers. */
  groups: number[]
  /** Blocks held, by tier. */
  blocks: Int32Array
  orphans: Orphans
  readonly doubles: Doubles
}

/**
 * Who holds blocks. A member of a set names an incarnation, not a worker: to clear a worker is to give it a new one and
 * mark the old one dead, whatever number of sets and blocks name it. A dead incarnation is used again only after a
 * sweep has passed every table since its death.
 */
export class Holders {
  readonly #memory: MapMemory
  readonly #orphanLimits: OrphanLimits
  readonly #bySlot: (Holder | undefined)[] = []
  readonly #byIncarnation: (Holder | undefined)[] = []
  readonly #unused: number[] = []
  /** Incarnations that died since the sweep began. */
  #dead: number[] = []

  constructor(memory: MapMemory, orphanLimits: OrphanLimits) {
    this.#memory = memory
    this.#orphanLimits = orphanLimits
    // Incarnation 0 means none.
    for (let incarnation = memory.sizes.maxIncarnations - 1; incarnation > 0; incarnation--)
      this.#unused.push(incarnation)
  }

  *[Symbol.iterator](): IterableIterator<Holder> {
    for (const holder of this.#bySlot) if (holder !== undefined) yield holder
  }

  get(slot: WorkerSlot): Holder | undefined {
    return this.#bySlot[slot]
  }

  /** The living worker of an incarnation. */
  of(incarnation: number): Holder | undefined {
    return this.#byIncarnation[incarnation]
  }

  get deadIncarnations(): number {
    return this.#dead.length
  }

  get unusedIncarnations(): number {
    return this.#unused.length
  }

  add(slot: WorkerSlot, options: WorkerMapOptions): void {
    const holder: Holder = {
      slot,
      countsStores: options.countsStores,
      kin: options.kin ?? [],
      incarnation: 0,
      epoch: 0,
      lastSequence: -1,
      isAssumed: false,
      groups: [],
      blocks: new Int32Array(tierCount),
      orphans: new Orphans(this.#orphanLimits),
      doubles: new Doubles(this.#orphanLimits.budget),
    }
    this.#bySlot[slot] = holder
    this.#memory.workers[2 * slot + 1] = options.blockSize ?? 0
    this.#begin(holder)
  }

  blockSize(slot: WorkerSlot): number {
    return this.#memory.workers[2 * slot + 1] as number
  }

  putBlockSize(slot: WorkerSlot, blockSize: number): void {
    this.#memory.workers[2 * slot + 1] = blockSize
  }

  /** Forgets everything that the worker held; a match that begins after this gives it no credit. */
  renew(holder: Holder): void {
    this.#end(holder)
    holder.isAssumed = false
    holder.groups = []
    holder.blocks = new Int32Array(tierCount)
    const { dropped } = holder.orphans
    holder.orphans.clear()
    holder.orphans = new Orphans(this.#orphanLimits, dropped)
    holder.doubles.clear()
    this.#begin(holder)
  }

  remove(holder: Holder): void {
    this.#end(holder)
    holder.orphans.clear()
    holder.doubles.clear()
    this.#memory.workers[2 * holder.slot] = 0
    this.#memory.workers[2 * holder.slot + 1] = 0
    this.#bySlot[holder.slot] = undefined
  }

  /** The map's number for an engine's group, or -1 where a worker has announced more than the map tells apart. */
  groupNumber(holder: Holder, group: number, announce: boolean): number {
    const known = holder.groups.indexOf(group)
    if (known >= 0 || !announce || holder.groups.length >= maxGroups) return known
    return holder.groups.push(group) - 1
  }

  /** The groups (bits) that must all hold a block before it counts in a tier. */
  announced(incarnation: number, tier: number): number {
    return ((this.#memory.incarnations[2 * incarnation + 1] as number) >>> (8 * tier)) & 0xff
  }

  announce(incarnation: number, tier: number, group: number): void {
    const at = 2 * incarnation + 1
    this.#memory.incarnations[at] = (this.#memory.incarnations[at] as number) | (1 << (8 * tier + group))
  }

  /** Takes the list of incarnations that a sweep beginning now will wash out. */
  takeDead(): number[] {
    const dead = this.#dead
    this.#dead = []
    return dead
  }

  /** After the sweep: these are named nowhere any more. */
  recycle(incarnations: readonly number[]): void {
    for (const incarnation of incarnations) this.#unused.push(incarnation)
  }

  #begin(holder: Holder): void {
    const incarnation = this.#unused.pop()
    if (incarnation === undefined) throw new Error('every incarnation is in use: the sweep must run before a clear')
    const { incarnations, workers } = this.#memory
    holder.incarnation = incarnation
    this.#byIncarnation[incarnation] = holder
    incarnations[2 * incarnation + 1] = 0
    Atomics.store(incarnations, 2 * incarnation, holder.slot + 1)
    Atomics.store(workers, 2 * holder.slot, incarnation)
  }

  #end(holder: Holder): void {
    Atomics.store(this.#memory.incarnations, 2 * holder.incarnation, 0)
    this.#byIncarnation[holder.incarnation] = undefined
    this.#dead.push(holder.incarnation)
  }
}
