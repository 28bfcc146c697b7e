import type { Budget } from './budget.ts'
import type { MapMemory } from './layout.ts'
import { memberIncarnationShift } from './layout.ts'
import { SetRecords } from './set-records.ts'

const memoPlaces = 1024
const removing = 1 << 30
/** Returned where the budget has no room for another set. */
export const noRoom = -1

/**
 * Interned, immutable sets of members. Equal sets have one id, found by the XOR of one 64-bit word a member, so that a
 * step from a set to its neighbour costs no more than the member that changes. Set 0 is the empty one.
 */
export class Sets {
  readonly #records: SetRecords
  readonly #hashLow: Int32Array
  readonly #hashHigh: Int32Array
  readonly #references: Int32Array
  /** The sweep's pass that last found every member alive. */
  readonly #cleanPass: Int32Array
  readonly #memoFrom = new Int32Array(memoPlaces)
  readonly #memoMember = new Int32Array(memoPlaces)
  readonly #memoTo = new Int32Array(memoPlaces)
  #buckets = new Int32Array(64)
  #interned = 0
  #draft = new Int32Array(64)

  constructor(memory: MapMemory, budget: Budget) {
    const { maxSets } = memory.sizes
    this.#records = new SetRecords(memory, budget)
    this.#hashLow = new Int32Array(maxSets + 1)
    this.#hashHigh = new Int32Array(maxSets + 1)
    this.#references = new Int32Array(maxSets + 1)
    this.#cleanPass = new Int32Array(maxSets + 1)
  }

  /** Distinct sets in use. */
  get count(): number {
    return this.#interned
  }

  /** One past the highest id that was ever used. */
  get topId(): number {
    return this.#records.topId
  }

  references(set: number): number {
    return this.#references[set] as number
  }

  /** Members of a set lie in `members` from `start(set)` on, ascending. */
  get members(): Int32Array {
    return this.#records.words
  }

  start(set: number): number {
    return this.#records.start(set)
  }

  length(set: number): number {
    return this.#records.length(set)
  }

  contains(set: number, member: number): boolean {
    return this.#records.contains(set, member)
  }

  /** Which groups (bits) of an incarnation hold in a tier. */
  groups(set: number, incarnation: number, tier: number): number {
    const start = this.start(set)
    const end = start + this.length(set)
    let groups = 0
    for (let at = start; at < end; at++) {
      const member = this.members[at] as number
      if (member >>> memberIncarnationShift !== incarnation || (member & 3) !== tier) continue
      groups |= 1 << ((member >>> 2) & 7)
    }
    return groups
  }

  retain(set: number): void {
    this.#references[set] = (this.#references[set] as number) + 1
  }

  release(set: number): void {
    if (set === 0) return
    const references = (this.#references[set] as number) - 1
    this.#references[set] = references
    if (references > 0) return
    this.#bucketDelete(set)
    this.#interned--
    this.#records.free(set)
  }

  /** The set with one more member; not retained yet. */
  add(set: number, member: number): number {
    const place = (Math.imul(set, 0x9e3779b1) ^ Math.imul(member, 0x85ebca6b)) >>> 22
    const to = this.#memoTo[place] as number
    if (this.#memoFrom[place] === set && this.#memoMember[place] === member && this.#isStep(set, member, to, 1))
      return to
    if (set !== 0 && this.contains(set, member)) return set
    const length = this.length(set)
    const draft = this.#prepare(length + 1)
    const start = this.start(set)
    let out = 0
    for (let i = 0; i < length; i++) {
      const other = this.members[start + i] as number
      if (out === i && other > member) draft[out++] = member
      draft[out++] = other
    }
    if (out === length) draft[out] = member
    const result = this.#intern(length + 1, this.#low(set) ^ memberLow(member), this.#high(set) ^ memberHigh(member))
    if (result > 0) this.#remember(place, set, member, result)
    return result
  }

  /** The set with one member less; not retained yet. */
  remove(set: number, member: number): number {
    const place = (Math.imul(set, 0x9e3779b1) ^ Math.imul(member, 0x85ebca6b) ^ 0x2545f491) >>> 22
    const to = this.#memoTo[place] as number
    const marked = member | removing
    if (this.#memoFrom[place] === set && this.#memoMember[place] === marked && this.#isStep(set, member, to, -1))
      return to
    if (!this.contains(set, member)) return set
    const length = this.length(set)
    if (length === 1) return 0
    const draft = this.#prepare(length)
    const start = this.start(set)
    let out = 0
    for (let i = 0; i < length; i++) {
      const other = this.members[start + i] as number
      if (other !== member) draft[out++] = other
    }
    const result = this.#intern(out, this.#low(set) ^ memberLow(member), this.#high(set) ^ memberHigh(member))
    if (result > 0) this.#remember(place, set, marked, result)
    return result
  }

  /** The set without its dead incarnations; `pass` names the sweep, within which a set found clean is not read again. */
  withoutDead(set: number, pass: number, incarnations: Int32Array): number {
    if (set === 0 || this.#cleanPass[set] === pass) return set
    const length = this.length(set)
    const start = this.start(set)
    const draft = this.#prepare(length)
    let out = 0
    let low = 0
    let high = 0
    for (let i = 0; i < length; i++) {
      const member = this.members[start + i] as number
      if (incarnations[2 * (member >>> memberIncarnationShift)] === 0) continue
      draft[out++] = member
      low ^= memberLow(member)
      high ^= memberHigh(member)
    }
    if (out === 0) return 0
    const result = out === length ? set : this.#intern(out, low, high)
    if (result > 0) this.#cleanPass[result] = pass
    return result
  }

  #low(set: number): number {
    return set === 0 ? 0 : (this.#hashLow[set] as number)
  }

  #high(set: number): number {
    return set === 0 ? 0 : (this.#hashHigh[set] as number)
  }

  /** Whether `to` is alive and still differs from `set` by exactly this member: ids are reused, so a memo may be old. */
  #isStep(set: number, member: number, to: number, lengthStep: number): boolean {
    return (
      (this.#references[to] as number) > 0 &&
      this.length(to) === this.length(set) + lengthStep &&
      (this.#low(set) ^ (this.#hashLow[to] as number)) === memberLow(member) &&
      (this.#high(set) ^ (this.#hashHigh[to] as number)) === memberHigh(member)
    )
  }

  #remember(place: number, set: number, member: number, to: number): void {
    this.#memoFrom[place] = set
    this.#memoMember[place] = member
    this.#memoTo[place] = to
  }

  #prepare(length: number): Int32Array {
    if (length > this.#draft.length) this.#draft = new Int32Array(2 * length)
    return this.#draft
  }

  /** The id of the set whose members are in the draft. */
  #intern(length: number, low: number, high: number): number {
    const mask = this.#buckets.length - 1
    let bucket = low & mask
    for (;;) {
      const set = this.#buckets[bucket] as number
      if (set === 0) break
      if (this.#hashLow[set] === low && this.#hashHigh[set] === high && this.#records.equals(set, this.#draft, length))
        return set
      bucket = (bucket + 1) & mask
    }
    const places = this.#buckets.length
    const { topId } = this.#records
    const isFull = topId * 2 >= places
    const set = this.#records.create(this.#draft, length, isFull ? 4 * places : 0)
    if (set === 0) return noRoom
    // An id that serves again asks for no larger table.
    if (isFull && this.#records.topId > topId) this.#rehash(2 * places)
    this.#hashLow[set] = low
    this.#hashHigh[set] = high
    this.#cleanPass[set] = 0
    this.#interned++
    this.#bucketInsert(set)
    return set
  }

  #rehash(places: number): void {
    const old = this.#buckets
    this.#buckets = new Int32Array(places)
    for (const set of old) if (set !== 0) this.#bucketInsert(set)
  }

  #bucketInsert(set: number): void {
    const mask = this.#buckets.length - 1
    let bucket = (this.#hashLow[set] as number) & mask
    while (this.#buckets[bucket] !== 0) bucket = (bucket + 1) & mask
    this.#buckets[bucket] = set
  }

  #bucketDelete(set: number): void {
    const mask = this.#buckets.length - 1
    let gap = (this.#hashLow[set] as number) & mask
    while (this.#buckets[gap] !== set) gap = (gap + 1) & mask
    for (let bucket = gap; ;) {
      bucket = (bucket + 1) & mask
      const other = this.#buckets[bucket] as number
      if (other === 0) break
      const home = (this.#hashLow[other] as number) & mask
      if (((bucket - home) & mask) >= ((bucket - gap) & mask)) {
        this.#buckets[gap] = other
        gap = bucket
      }
    }
    this.#buckets[gap] = 0
  }
}

/** A member's 64-bit word, half by half; a good mix of its bits stands in for a table of random ones. */
function memberLow(member: number): number {
  let h = Math.imul(member ^ 0x5bd1e995, 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return h ^ (h >>> 16)
}

function memberHigh(member: number): number {
  let h = Math.imul(member ^ 0x2545f491, 0x27d4eb2f)
  h = Math.imul(h ^ (h >>> 15), 0x9e3779b1)
  return h ^ (h >>> 14)
}
