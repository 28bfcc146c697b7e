import type { Budget } from './budget.ts'
import { Entries } from './entries.ts'
import type { Holder, Holders } from './holders.ts'
import type { MapMemory } from './layout.ts'
import { memberIncarnationShift, tierCount } from './layout.ts'
import { noRoom, Sets } from './sets.ts'
import { WritableKeyIndex } from './writable-key-index.ts'

/** Who holds which block: entries, their index and their sets kept in step, with every worker's count by tier. */
export class Blocks {
  readonly budget: Budget
  readonly entries: Entries
  readonly index: WritableKeyIndex
  readonly sets: Sets
  readonly holders: Holders
  /** Entries that some worker holds, dead ones among them until they are swept. */
  keys = 0
  evictions = 0

  constructor(memory: MapMemory, budget: Budget, holders: Holders) {
    this.budget = budget
    this.entries = new Entries(memory, this.budget)
    this.index = new WritableKeyIndex(memory, this.budget)
    this.sets = new Sets(memory, this.budget)
    this.holders = holders
  }

  isHeld(id: number, member: number): boolean {
    return this.sets.contains(this.entries.set(id), member)
  }

  /** Makes sure that one more block of this key fits beside those that are there. */
  reserve(low: number): boolean {
    return this.entries.reserve() && this.index.reserve(low)
  }

  /**
   * The entry of a key, made if it is not there, and hung under `parent` where it hangs nowhere; 0 where it does not
   * fit. Where nobody comes to hold it, it must be given to `freeIfUnused`.
   */
  enter(low: number, high: number, parent: number): number {
    let id = this.index.find(low, high)
    if (id === 0) {
      if (!this.reserve(low)) return 0
      id = this.entries.create(low, high)
      this.index.insert(low, high, id)
    }
    if (parent !== 0 && parent !== id && this.entries.parent(id) === 0) this.entries.attach(id, parent)
    return id
  }

  /**
   * Adds a member to the block of a key, whose entry is `known` (0: it is new), hung under `parent` (0: the root) where it hangs nowhere. The entry's id, or 0 where a
   * set has no room. After `reserve`.
   */
  hold(known: number, low: number, high: number, parent: number, holder: Holder, place: number): number {
    const before = known === 0 ? 0 : this.entries.set(known)
    const member = (holder.incarnation << memberIncarnationShift) | place
    const after = this.sets.add(before, member)
    if (after === noRoom) return 0
    const id = known === 0 ? this.entries.create(low, high) : known
    if (known !== 0) this.entries.putTouched(id, 1)
    if (known === 0) this.index.insert(low, high, id)
    if (after === before) return id
    if (parent !== 0 && this.entries.parent(id) === 0) this.entries.attach(id, parent)
    if (before === 0) this.keys++
    this.#replace(id, before, after)
    const tier = place & 3
    if (this.#counts(after, holder.incarnation, tier, 1 << (place >>> 2))) count(holder, tier, 1)
    return id
  }

  /** Takes a member from a block. Where the smaller set has no room the block is evicted: no credit is better than a false one. */
  drop(id: number, holder: Holder, place: number): void {
    const before = this.entries.set(id)
    const member = (holder.incarnation << memberIncarnationShift) | place
    const after = this.sets.remove(before, member)
    if (after === noRoom) {
      this.evict(id)
      return
    }
    if (after === before) return
    const tier = place & 3
    if (this.#counts(before, holder.incarnation, tier, 1 << (place >>> 2))) count(holder, tier, -1)
    this.#replace(id, before, after)
    if (after === 0) this.#emptied(id)
  }

  /** Gives a block up for every worker; its aliases are dead from then on. How many holders it had. */
  evict(id: number): number {
    const { sets, holders, entries } = this
    const set = entries.set(id)
    const start = sets.start(set)
    const members = sets.length(set)
    let last = 0
    for (let at = start; at < start + members; at++) {
      const incarnation = (sets.members[at] as number) >>> memberIncarnationShift
      const holder = incarnation === last ? undefined : holders.of(incarnation)
      last = incarnation
      if (holder === undefined) continue
      for (let tier = 0; tier < tierCount; tier++) {
        if (this.#counts(set, incarnation, tier, 0)) count(holder, tier, -1)
      }
      holder.doubles.forget(id)
    }
    this.evictions++
    entries.age(id)
    this.#replace(id, set, 0)
    this.#emptied(id)
    return members
  }

  /** Takes dead incarnations from a block's set. */
  wash(id: number, pass: number, incarnations: Int32Array): void {
    const before = this.entries.set(id)
    const after = this.sets.withoutDead(before, pass, incarnations)
    if (after === before) return
    if (after === noRoom) {
      this.evict(id)
      return
    }
    this.#replace(id, before, after)
    if (after === 0) this.#emptied(id)
  }

  /** A worker's blocks in a tier, counted anew: what they must be held by has changed. */
  recount(holder: Holder, tier: number): void {
    let blocks = 0
    for (let set = 1; set < this.sets.topId; set++) {
      const references = this.sets.references(set)
      if (references > 0 && this.#counts(set, holder.incarnation, tier, 0)) blocks += references
    }
    holder.blocks[tier] = blocks
  }

  /** Frees an entry that nobody holds and that has no child, and then its parent where that was waiting for it. */
  freeIfUnused(id: number): void {
    const { entries } = this
    for (let at = id; at !== 0 && entries.set(at) === 0 && entries.children(at) === 0;) {
      const parent = entries.detach(at)
      this.index.delete(at)
      entries.free(at)
      at = parent
    }
  }

  /** Whether every announced group holds in a tier; where `only` is the one announced group, its membership is given. */
  #counts(set: number, incarnation: number, tier: number, only: number): boolean {
    const announced = this.holders.announced(incarnation, tier)
    if (announced === 0) return false
    return announced === only || (this.sets.groups(set, incarnation, tier) & announced) === announced
  }

  #replace(id: number, before: number, after: number): void {
    if (after !== 0) this.sets.retain(after)
    this.entries.putSet(id, after)
    this.sets.release(before)
  }

  #emptied(id: number): void {
    this.keys--
    this.freeIfUnused(id)
  }
}

function count(holder: Holder, tier: number, by: 1 | -1): void {
  holder.blocks[tier] = (holder.blocks[tier] as number) + by
}
