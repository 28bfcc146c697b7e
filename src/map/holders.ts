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
  /** Readers give it no credit: what it holds is not proved yet. */
  isConcealed: boolean
  /** It is beside the worker's own, and may come to stand in its place. */
  isStaged: boolean
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
  /** Holders that may come to stand in the place of a worker's own. */
  readonly #staged = new Set<Holder>()
  /** When each incarnation was last given out, by which two lives of one number are told apart. */
  readonly births: Float64Array
  /** Incarnations given out so far: births are counted. */
  lastBirth = 0

  constructor(memory: MapMemory, orphanLimits: OrphanLimits) {
    this.#memory = memory
    this.#orphanLimits = orphanLimits
    this.births = new Float64Array(memory.sizes.maxIncarnations)
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
    const holder = this.#create(slot, options)
    this.#bySlot[slot] = holder
    this.#memory.workers[2 * slot + 1] = options.blockSize ?? 0
    this.#begin(holder)
    this.#show(holder)
  }

  /**
   * A second holder for the worker, with an incarnation of its own that readers pass over. It is filled beside the
   * worker's own one and then takes its place, or is dropped.
   */
  stage(worker: Holder, groups: readonly number[], announced: number): Holder {
    const staged = this.#create(worker.slot, worker)
    staged.isConcealed = true
    staged.isStaged = true
    staged.groups = [...groups]
    this.#staged.add(staged)
    this.#begin(staged)
    this.#memory.incarnations[2 * staged.incarnation + 1] = announced
    return staged
  }

  /** Puts a staged holder in the place of the worker's own, which is forgotten. */
  promote(staged: Holder, worker: Holder): void {
    this.#staged.delete(staged)
    staged.isStaged = false
    this.#end(worker)
    worker.orphans.clear()
    worker.doubles.clear()
    staged.countsStores = worker.countsStores
    staged.kin = worker.kin
    this.#bySlot[worker.slot] = staged
    this.#show(staged)
  }

  /** Drops a staged holder with all that it holds. */
  unstage(staged: Holder): void {
    if (!this.#staged.delete(staged)) return
    staged.isStaged = false
    this.#end(staged)
    staged.doubles.clear()
  }

  /** From now on readers credit the worker with what it holds. */
  reveal(holder: Holder): void {
    holder.isConcealed = false
    this.#show(holder)
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
    holder.isConcealed = false
    holder.groups = []
    holder.blocks = new Int32Array(tierCount)
    const { dropped } = holder.orphans
    holder.orphans.clear()
    holder.orphans = new Orphans(this.#orphanLimits, dropped)
    holder.doubles.clear()
    this.#begin(holder)
    this.#show(holder)
  }

  /** A holder that is staged for the worker goes with it. */
  remove(holder: Holder): void {
    for (const staged of this.#staged) if (staged.slot === holder.slot) this.unstage(staged)
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

  #create(slot: WorkerSlot, { countsStores, kin }: Pick<WorkerMapOptions, 'countsStores' | 'kin'>): Holder {
    return {
      slot,
      countsStores,
      kin: kin ?? [],
      incarnation: 0,
      epoch: 0,
      lastSequence: -1,
      isAssumed: false,
      isConcealed: false,
      isStaged: false,
      groups: [],
      blocks: new Int32Array(tierCount),
      orphans: new Orphans(this.#orphanLimits),
      doubles: new Doubles(this.#orphanLimits.budget),
    }
  }

  #begin(holder: Holder): void {
    const incarnation = this.#unused.pop()
    if (incarnation === undefined) throw new Error('every incarnation is in use: the sweep must run before a clear')
    const { incarnations } = this.#memory
    holder.incarnation = incarnation
    this.#byIncarnation[incarnation] = holder
    this.births[incarnation] = ++this.lastBirth
    incarnations[2 * incarnation + 1] = 0
    Atomics.store(incarnations, 2 * incarnation, -(holder.slot + 1))
  }

  /** Tells readers whose incarnation this is; below zero it is alive to the writer and unknown to them. */
  #show(holder: Holder): void {
    const { incarnations, workers } = this.#memory
    const owner = holder.slot + 1
    Atomics.store(incarnations, 2 * holder.incarnation, holder.isConcealed ? -owner : owner)
    Atomics.store(workers, 2 * holder.slot, holder.incarnation)
  }

  #end(holder: Holder): void {
    Atomics.store(this.#memory.incarnations, 2 * holder.incarnation, 0)
    this.#byIncarnation[holder.incarnation] = undefined
    this.#dead.push(holder.incarnation)
  }
}
