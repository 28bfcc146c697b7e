import assert from 'node:assert/strict'
import type { KvHold, KvPresent, KvRemove, KvStore } from '../kv/batch.ts'
import { chainKeys } from '../kv/keys.ts'
import { tiers } from '../kv/tier.ts'
import { aliasPlace } from './aliases.ts'
import type { Aliases } from './aliases.ts'
import { evicted } from './announcements.ts'
import type { Announcements } from './announcements.ts'
import type { Blocks } from './blocks.ts'
import type { Holder } from './holders.ts'
import type { ApplyOutcome } from './map.ts'
import type { Orphan } from './orphans.ts'

/** Enters store and removal events: gives blocks their keys, keeps orphans until their parents come (decision 7). */
export class Ledger {
  readonly #announcements: Announcements
  readonly #aliases: Aliases
  readonly #blocks: Blocks
  readonly #outcome: ApplyOutcome
  #keys = new Uint32Array(64)
  readonly #oneLocal = new Uint32Array(2)
  /** Keeps the reads that warm the cache from being optimized away. */
  #warm = 0

  /** What happens to blocks is counted in `outcome`. */
  constructor(announcements: Announcements, aliases: Aliases, blocks: Blocks, outcome: ApplyOutcome) {
    this.#announcements = announcements
    this.#aliases = aliases
    this.#blocks = blocks
    this.#outcome = outcome
  }

  store(holder: Holder, event: KvStore): void {
    const { engineHashes, locals, parent } = event
    const blocks = engineHashes.length >>> 1
    assert.equal(locals.length, engineHashes.length, 'a store has one local hash for each engine hash')
    const group = this.#announce(holder, event.tier, event.group)
    if (group < 0) return
    const place = aliasPlace(event.tier, group)
    let above = parent.kind === 'root' ? 0 : this.#known(holder, parent.hashLow, parent.hashHigh)
    let chained = 0
    if (parent.kind === 'root') chained = this.#chain(parent.keyLow, parent.keyHigh, locals, 0)
    else if (above > 0) chained = this.#chainUnder(above, locals, 0)
    if (chained === 1)
      this.#warm ^= this.#blocks.index.warm(this.#keys, blocks) ^ this.#aliases.warm(holder.incarnation, engineHashes)
    for (let block = 0; block < blocks; block++) {
      const hashLow = (engineHashes[2 * block] as number) | 0
      const hashHigh = (engineHashes[2 * block + 1] as number) | 0
      if (chained === 0) {
        // The parent is unknown, but the block may be known from another tier or group, and names its children then.
        const own = this.#announcements.resolve(holder, hashLow, hashHigh)
        if (own <= 0) {
          if (above === evicted) this.#refuse(holder, hashLow, hashHigh)
          else this.#adopt(holder, event, block)
          continue
        }
      }
      const low = (this.#keys[2 * block] as number) | 0
      const high = (this.#keys[2 * block + 1] as number) | 0
      const id = this.#hold(holder, hashLow, hashHigh, place, low, high, above > 0 ? above : 0, 1)
      if (id === 0) {
        above = evicted
        chained = 0
        continue
      }
      // An engine hash that is known keeps its key, and its children hang from that one.
      const { entries } = this.#blocks
      if (chained === 0 || entries.keyLow(id) !== low || entries.keyHigh(id) !== high) {
        chained = this.#chainUnder(id, locals, block + 1)
      }
      above = id
    }
    if (holder.orphans.count > 0) this.#adoptOrphans(holder, engineHashes)
  }

  /** Enters blocks under their own keys. Without the block before them nobody could find them, and they are refused. */
  hold(holder: Holder, { tier, keys, parent }: KvHold): void {
    const group = this.#announce(holder, tier, 0)
    if (group < 0) return
    const place = aliasPlace(tier, group)
    let above = parent === null ? 0 : this.#announcements.resolve(holder, parent[0], parent[1])
    if (parent !== null && above <= 0) {
      this.#outcome.parentEvicted += keys.length >>> 1
      return
    }
    for (let at = 0; at + 1 < keys.length; at += 2) {
      const low = (keys[at] as number) | 0
      const high = (keys[at + 1] as number) | 0
      above = this.#announcements.hold(holder, low, high, place, low, high, above, 0)
      if (above === 0) {
        this.#outcome.parentEvicted += (keys.length - at) >>> 1
        return
      }
      this.#outcome.storedBlocks++
    }
  }

  /** Blocks whose tokens the engine does not tell: they count where their key is known from elsewhere. */
  present(holder: Holder, event: KvPresent): void {
    const { engineHashes, tier } = event
    const { entries } = this.#blocks
    for (let at = 0; at + 1 < engineHashes.length; at += 2) {
      const hashLow = (engineHashes[at] as number) | 0
      const hashHigh = (engineHashes[at + 1] as number) | 0
      const known = this.#known(holder, hashLow, hashHigh)
      // A group counts from its first block that can be credited: one that never can must not hide the others' blocks.
      const group = known > 0 ? this.#announce(holder, tier, event.group) : -1
      if (group >= 0) {
        const place = aliasPlace(tier, group)
        this.#hold(holder, hashLow, hashHigh, place, entries.keyLow(known), entries.keyHigh(known), 0, 1)
      } else if (known === evicted) this.#refuse(holder, hashLow, hashHigh)
      else this.#outcome.unknownHashes++
    }
    if (holder.orphans.count > 0) this.#adoptOrphans(holder, engineHashes)
  }

  remove(holder: Holder, event: KvRemove): void {
    const { engineHashes } = event
    const group = this.#blocks.holders.groupNumber(holder, event.group, false)
    const first = event.tier ?? 0
    const last = event.tier ?? tiers.length - 1
    for (let at = 0; at + 1 < engineHashes.length; at += 2) {
      const hashLow = (engineHashes[at] as number) | 0
      const hashHigh = (engineHashes[at + 1] as number) | 0
      let wasHeld = false
      for (let tier = first; tier <= last; tier++) {
        wasHeld =
          (group >= 0 && this.#announcements.release(holder, hashLow, hashHigh, aliasPlace(tier, group))) ||
          holder.orphans.remove(hashLow, hashHigh, tier, event.group, holder.countsStores) ||
          wasHeld
      }
      if (wasHeld) this.#outcome.removedBlocks++
      else this.#outcome.unknownRemovals++
    }
  }

  /** Stores the orphans whose parents the worker's kin has announced since. */
  adopt(holder: Holder): void {
    const ready = holder.orphans.takeChildrenOf((hashLow, hashHigh) => this.#known(holder, hashLow, hashHigh) > 0)
    this.#storeOrphans(holder, ready)
  }

  /** As `resolve`, also among the blocks of the worker's kin. */
  #known(holder: Holder, hashLow: number, hashHigh: number): number {
    const own = this.#announcements.resolve(holder, hashLow, hashHigh)
    if (own !== 0 || holder.kin.length === 0) return own
    const { holders } = this.#blocks
    for (const slot of holder.kin) {
      const kin = holders.get(slot)
      if (kin === undefined || holders.blockSize(slot) !== holders.blockSize(holder.slot)) continue
      const known = this.#announcements.resolve(kin, hashLow, hashHigh)
      if (known > 0) return known
    }
    return 0
  }

  /** Keeps a block until its parent arrives. */
  #adopt(holder: Holder, event: KvStore, block: number): void {
    const { engineHashes, locals, parent } = event
    if (parent.kind === 'root') assert.fail('a block under the root has a key at once')
    const isFirst = block === 0
    holder.orphans.add(
      {
        hashLow: (engineHashes[2 * block] as number) | 0,
        hashHigh: (engineHashes[2 * block + 1] as number) | 0,
        parentLow: isFirst ? parent.hashLow : (engineHashes[2 * block - 2] as number),
        parentHigh: isFirst ? parent.hashHigh : (engineHashes[2 * block - 1] as number),
        localLow: locals[2 * block] as number,
        localHigh: locals[2 * block + 1] as number,
        tier: event.tier,
        group: event.group,
        storeCount: 1,
      },
      holder.countsStores,
    )
    this.#outcome.orphaned++
  }

  /** Stores the orphans that waited for these hashes, then those that waited for them, and so on. */
  #adoptOrphans(holder: Holder, engineHashes: Uint32Array): void {
    const ready: Orphan[] = []
    for (let at = 0; at + 1 < engineHashes.length; at += 2) {
      this.#takeOrphans(holder, engineHashes[at] as number, engineHashes[at + 1] as number, ready)
    }
    this.#storeOrphans(holder, ready)
  }

  #storeOrphans(holder: Holder, ready: Orphan[]): void {
    // The list grows while it is gone through.
    for (const orphan of ready) {
      this.#storeOrphan(holder, orphan)
      this.#takeOrphans(holder, orphan.hashLow, orphan.hashHigh, ready)
    }
  }

  #takeOrphans(holder: Holder, hashLow: number, hashHigh: number, ready: Orphan[]): void {
    if (!holder.orphans.mayAwait(hashLow) || this.#announcements.resolve(holder, hashLow, hashHigh) <= 0) return
    for (const orphan of holder.orphans.take(hashLow, hashHigh)) ready.push(orphan)
  }

  #storeOrphan(holder: Holder, orphan: Orphan): void {
    const hashLow = orphan.hashLow | 0
    const hashHigh = orphan.hashHigh | 0
    const place = aliasPlace(orphan.tier, this.#blocks.holders.groupNumber(holder, orphan.group, false))
    let parent = this.#known(holder, orphan.parentLow, orphan.parentHigh)
    this.#oneLocal[0] = orphan.localLow
    this.#oneLocal[1] = orphan.localHigh
    if (parent > 0) this.#chainUnder(parent, this.#oneLocal, 0)
    else if (this.#announcements.resolve(holder, hashLow, hashHigh) > 0) parent = 0
    else {
      this.#refuse(holder, hashLow, hashHigh)
      return
    }
    const low = (this.#keys[0] as number) | 0
    const high = (this.#keys[1] as number) | 0
    const storeCount = holder.countsStores ? orphan.storeCount : 1
    this.#hold(holder, hashLow, hashHigh, place, low, high, parent, storeCount)
  }

  /** The entry's id, or 0 where the block was refused because there is no room. */
  #hold(
    holder: Holder,
    hashLow: number,
    hashHigh: number,
    place: number,
    low: number,
    high: number,
    parent: number,
    storeCount: number,
  ): number {
    const id = this.#announcements.hold(holder, hashLow, hashHigh, place, low, high, parent, storeCount)
    if (id === 0) this.#refuse(holder, hashLow, hashHigh)
    else this.#outcome.storedBlocks++
    return id
  }

  #refuse(holder: Holder, hashLow: number, hashHigh: number): void {
    this.#outcome.parentEvicted++
    this.#announcements.refuse(holder, hashLow, hashHigh)
  }

  #announce(holder: Holder, tier: number, engineGroup: number): number {
    const group = this.#blocks.holders.groupNumber(holder, engineGroup, true)
    if (group < 0) return group
    const announced = this.#blocks.holders.announced(holder.incarnation, tier)
    if ((announced & (1 << group)) !== 0) return group
    this.#blocks.holders.announce(holder.incarnation, tier, group)
    if (announced !== 0) this.#blocks.recount(holder, tier)
    return group
  }

  #chainUnder(id: number, locals: Uint32Array, from: number): number {
    const { entries } = this.#blocks
    return this.#chain(entries.keyLow(id), entries.keyHigh(id), locals, from)
  }

  /** Writes the keys of the blocks from `from` on; answers 1, as "the keys are known". */
  #chain(low: number, high: number, locals: Uint32Array, from: number): 1 {
    if (this.#keys.length < locals.length) this.#keys = new Uint32Array(2 * locals.length)
    chainKeys(low, high, locals.subarray(2 * from), this.#keys.subarray(2 * from))
    return 1
  }
}
