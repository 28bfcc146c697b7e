import assert from 'node:assert/strict'
import type { KvBatch, KvRemove, KvStore, WorkerSlot } from '../kv/batch.ts'
import { chainKeys } from '../kv/keys.ts'
import { Aliases, aliasPlace, firstWord, maxStoreCount } from './aliases.ts'
import { Blocks } from './blocks.ts'
import { Budget } from './budget.ts'
import { Clock } from './clock.ts'
import { Holders } from './holders.ts'
import type { Holder } from './holders.ts'
import {
  defaultBudgetBytes,
  defaultMaxWorkers,
  defaultOrphansPerWorker,
  fixedBytes,
  mapSizes,
  memberIncarnationShift,
  reserveMap,
  tierCount,
  viewMap,
} from './layout.ts'
import type { MapHandle } from './layout.ts'
import type { ApplyOutcome, CacheMap, MapStats, MatchQuery, PrefixMatch, WorkerMapOptions } from './map.ts'
import type { Orphan } from './orphans.ts'
import { FlatReader } from './reader.ts'
import { Sweep } from './sweep.ts'
import { Tombstones } from './tombstones.ts'

export interface FlatMapOptions {
  /** The most that tables, sets, aliases and orphans take together. */
  readonly budgetBytes?: number
  /** Worker slots are below this. */
  readonly maxWorkers?: number
  /** Blocks of one worker that may wait for their parent. */
  readonly orphansPerWorker?: number
}

/** The share of entries (one in so many) that is kept free once the budget is reached, so that storing seldom waits. */
const reserveShare = 10
/** Orphans take at most one part in so many of the budget. */
const orphanShare = 8
/** `resolve` found that the block was given up for the budget. */
const evicted = -1

/**
 * The global KV-cache map over flat tables in shared memory (layout.ts draws them). One thread writes through this
 * class; others read through `createMapReader(map.shared())`.
 */
export class FlatMap implements CacheMap {
  readonly #handle: MapHandle
  readonly #blocks: Blocks
  readonly #holders: Holders
  readonly #aliases: Aliases
  readonly #tombstones: Tombstones
  readonly #clock: Clock
  readonly #sweep: Sweep
  readonly #reader: FlatReader
  readonly #outcome: ApplyOutcome = {
    storedBlocks: 0,
    removedBlocks: 0,
    unknownRemovals: 0,
    orphaned: 0,
    parentEvicted: 0,
    ignored: false,
  }
  #keys = new Uint32Array(64)
  readonly #oneLocal = new Uint32Array(2)
  /** Sweep steps owed, in fractions: storing pays for sweeping. */
  #sweepDebt = 0
  #isTight = false
  /** Keeps the reads that warm the cache from being optimized away. */
  #warm = 0

  constructor(options: FlatMapOptions = {}) {
    const budgetBytes = options.budgetBytes ?? defaultBudgetBytes
    const sizes = mapSizes(budgetBytes, options.maxWorkers ?? defaultMaxWorkers)
    this.#handle = reserveMap(sizes)
    const memory = viewMap(this.#handle)
    const budget = new Budget(budgetBytes)
    this.#tombstones = new Tombstones(budgetBytes)
    assert.ok(budget.take(fixedBytes(sizes) + this.#tombstones.bytes), 'the budget does not hold the fixed tables')
    this.#holders = new Holders(memory, {
      perWorker: options.orphansPerWorker ?? defaultOrphansPerWorker,
      pool: new Budget(Math.floor(budgetBytes / orphanShare)),
      budget,
    })
    this.#blocks = new Blocks(memory, budget, this.#holders)
    this.#aliases = new Aliases(sizes, budget)
    this.#clock = new Clock(this.#blocks)
    this.#sweep = new Sweep(memory, this.#blocks, this.#aliases, this.#tombstones)
    this.#reader = new FlatReader(memory)
  }

  /** What a reader on another thread is made of; may be posted to it. */
  shared(): MapHandle {
    return this.#handle
  }

  match(queries: readonly MatchQuery[], out: PrefixMatch): void {
    this.#reader.match(queries, out)
  }

  /**
   * Adds a worker, or changes the options of one that is there. A worker whose known block size changes loses its
   * entries, since their keys name blocks of the old size.
   */
  addWorker(slot: WorkerSlot, options: WorkerMapOptions): void {
    assert.ok(slot >= 0 && slot < this.#handle.sizes.maxWorkers, `worker slot ${slot} is out of range`)
    this.#reserveIncarnation()
    const holder = this.#holders.get(slot)
    if (holder === undefined) {
      this.#holders.add(slot, options)
      return
    }
    const before = this.#holders.blockSize(slot)
    if (before !== 0 && before !== (options.blockSize ?? 0)) this.#holders.renew(holder)
    this.#holders.putBlockSize(slot, options.blockSize ?? 0)
    holder.countsStores = options.countsStores
  }

  removeWorker(slot: WorkerSlot): void {
    const holder = this.#holders.get(slot)
    if (holder !== undefined) this.#holders.remove(holder)
  }

  clear(slot: WorkerSlot, epoch: number): void {
    const holder = this.#holders.get(slot)
    if (holder === undefined) return
    this.#reserveIncarnation()
    this.#holders.renew(holder)
    if (epoch <= holder.epoch) return
    holder.epoch = epoch
    holder.lastSequence = -1
  }

  apply(batch: KvBatch): ApplyOutcome {
    const outcome = this.#outcome
    outcome.storedBlocks =
      outcome.removedBlocks =
      outcome.unknownRemovals =
      outcome.orphaned =
      outcome.parentEvicted =
        0
    outcome.ignored = false
    const holder = this.#holders.get(batch.worker)
    if (holder !== undefined && batch.epoch > holder.epoch) this.clear(batch.worker, batch.epoch)
    if (holder === undefined || batch.epoch < holder.epoch || batch.sequence <= holder.lastSequence) {
      outcome.ignored = true
      return outcome
    }
    holder.lastSequence = batch.sequence
    for (const event of batch.events) {
      if (event.kind === 'store') this.#store(holder, event)
      else if (event.kind === 'remove') this.#remove(holder, event)
      else {
        this.#reserveIncarnation()
        this.#holders.renew(holder)
      }
    }
    this.#tidy(outcome.storedBlocks + outcome.removedBlocks + 1)
    return outcome
  }

  workerBlocks(slot: WorkerSlot): { gpu: number; host: number; disk: number } {
    const [gpu = 0, host = 0, disk = 0] = this.#holders.get(slot)?.blocks ?? []
    return { gpu, host, disk }
  }

  /** `entries` counts (block, worker, tier); `keys` and `aliases` include what a sweep has not reached yet. */
  stats(): MapStats {
    const blocksByTier: [number, number, number, number] = [0, 0, 0, 0]
    let orphans = 0
    let orphansDropped = 0
    for (const holder of this.#holders) {
      orphans += holder.orphans.count
      orphansDropped += holder.orphans.dropped
      for (let tier = 0; tier < tierCount; tier++) blocksByTier[tier as 0] += holder.blocks[tier] ?? 0
    }
    return {
      entries: blocksByTier[0] + blocksByTier[1] + blocksByTier[2] + blocksByTier[3],
      keys: this.#blocks.keys,
      sets: this.#blocks.sets.count,
      aliases: this.#aliases.count,
      orphans,
      orphansDropped,
      bytes: this.#blocks.budget.usedBytes,
      budgetBytes: this.#blocks.budget.limitBytes,
      evictions: this.#blocks.evictions,
      blocksByTier,
    }
  }

  /** The part of `stats().bytes` that aliases take. */
  get aliasBytes(): number {
    return this.#aliases.bytes
  }

  /**
   * Washes out some of what cleared workers and evictions left behind, for when the thread is idle; storing does it as
   * well. True: there is more.
   */
  sweep(steps: number): boolean {
    for (let left = steps; left > 0; left--) if (!this.#sweep.step()) return false
    return this.#sweep.isNeeded
  }

  #store(holder: Holder, event: KvStore): void {
    const { engineHashes, locals, parent } = event
    const blocks = engineHashes.length >>> 1
    assert.equal(locals.length, engineHashes.length, 'a store has one local hash for each engine hash')
    const group = this.#announce(holder, event.tier, event.group)
    if (group < 0) return
    const place = aliasPlace(event.tier, group)
    let above = parent.kind === 'root' ? 0 : this.#resolve(holder, parent.hashLow, parent.hashHigh)
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
        const own = this.#resolve(holder, hashLow, hashHigh)
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
        this.#refuse(holder, hashLow, hashHigh)
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

  #remove(holder: Holder, event: KvRemove): void {
    const { engineHashes } = event
    const group = this.#holders.groupNumber(holder, event.group, false)
    const place = aliasPlace(event.tier, Math.max(group, 0))
    for (let at = 0; at + 1 < engineHashes.length; at += 2) {
      const hashLow = (engineHashes[at] as number) | 0
      const hashHigh = (engineHashes[at + 1] as number) | 0
      const wasHeld = group >= 0 && this.#release(holder, hashLow, hashHigh, place)
      if (wasHeld || holder.orphans.remove(hashLow, hashHigh, event.tier, event.group, holder.countsStores)) {
        this.#outcome.removedBlocks++
      } else {
        this.#outcome.unknownRemovals++
      }
    }
  }

  /** The entry that a hash names for a worker; 0: unknown, `evicted`: given up for the budget. */
  #resolve(holder: Holder, hashLow: number, hashHigh: number): number {
    const aliases = this.#aliases
    const low = hashLow | 0
    const high = hashHigh | 0
    aliases.probe(holder.incarnation, low, high, -1)
    for (const at of aliases.others) if (this.#isLive(at)) return aliases.entry(at)
    if (aliases.others.length > 0) return evicted
    return this.#tombstones.has(firstWord(holder.incarnation, low, high), high) ? evicted : 0
  }

  #isLive(at: number): boolean {
    const aliases = this.#aliases
    return this.#blocks.isHeld(
      aliases.entry(at),
      (aliases.incarnation(at) << memberIncarnationShift) | aliases.place(at),
    )
  }

  /** Stores one block: its alias, its entry and its member. The entry's id, or 0 where there is no room. */
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
    const aliases = this.#aliases
    const blocks = this.#blocks
    const { incarnation } = holder
    for (;;) {
      let keyLow = low
      let keyHigh = high
      let hung = parent
      aliases.probe(incarnation, hashLow, hashHigh, place)
      if (aliases.exact >= 0 && this.#isLive(aliases.exact)) return this.#holdAgain(holder, storeCount)
      for (const at of aliases.others) {
        if (!this.#isLive(at)) continue
        keyLow = blocks.entries.keyLow(aliases.entry(at))
        keyHigh = blocks.entries.keyHigh(aliases.entry(at))
        hung = 0
      }
      if (aliases.exact >= 0) this.#dropAlias(aliases.exact)
      if (aliases.reserve() && blocks.reserve(keyLow)) {
        const known = blocks.index.find(keyLow, keyHigh)
        const isDouble = known !== 0 && blocks.isHeld(known, (incarnation << memberIncarnationShift) | place)
        const id = blocks.hold(known, keyLow, keyHigh, hung, holder, place)
        if (id !== 0) {
          aliases.insert(incarnation, place, id, Math.min(storeCount, maxStoreCount))
          blocks.entries.addAlias(id)
          if (isDouble) holder.doubles.set(id * 32 + place, (holder.doubles.get(id * 32 + place) ?? 0) + 1)
          this.#outcome.storedBlocks++
          return id
        }
      }
      this.#clock.pinned = parent
      if (!this.#makeRoom()) return 0
    }
  }

  /** A block that its alias already names: one more store of it. */
  #holdAgain(holder: Holder, storeCount: number): number {
    const aliases = this.#aliases
    const at = aliases.exact
    if (holder.countsStores) aliases.putStoreCount(at, Math.min(aliases.storeCount(at) + storeCount, maxStoreCount))
    const id = aliases.entry(at)
    this.#blocks.entries.putTouched(id, 1)
    this.#outcome.storedBlocks++
    return id
  }

  /** Takes back one store of a block; false: the worker holds no such block. */
  #release(holder: Holder, hashLow: number, hashHigh: number, place: number): boolean {
    const aliases = this.#aliases
    aliases.probe(holder.incarnation, hashLow, hashHigh, place)
    const at = aliases.exact
    if (at < 0) {
      this.#tombstones.delete(firstWord(holder.incarnation, hashLow, hashHigh), hashHigh)
      return false
    }
    const isLive = this.#isLive(at)
    const storeCount = aliases.storeCount(at)
    if (isLive && holder.countsStores && storeCount > 1) {
      aliases.putStoreCount(at, storeCount - 1)
      return true
    }
    const id = aliases.entry(at)
    if (isLive && !this.#releaseDouble(holder, id * 32 + place)) this.#blocks.drop(id, holder, place)
    this.#dropAlias(at)
    return isLive
  }

  #releaseDouble(holder: Holder, name: number): boolean {
    const doubles = holder.doubles.size === 0 ? undefined : holder.doubles.get(name)
    if (doubles === undefined) return false
    if (doubles === 1) holder.doubles.delete(name)
    else holder.doubles.set(name, doubles - 1)
    return true
  }

  #dropAlias(at: number): void {
    const id = this.#aliases.entry(at)
    this.#aliases.delete(at)
    this.#blocks.dropAlias(id)
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
      const hashLow = engineHashes[at] as number
      const hashHigh = engineHashes[at + 1] as number
      if (this.#resolve(holder, hashLow, hashHigh) > 0) ready.push(...holder.orphans.take(hashLow, hashHigh))
    }
    for (let orphan = ready.shift(); orphan !== undefined; orphan = ready.shift()) {
      const { hashLow, hashHigh } = orphan
      this.#storeOrphan(holder, orphan)
      if (this.#resolve(holder, hashLow, hashHigh) > 0) ready.push(...holder.orphans.take(hashLow, hashHigh))
    }
  }

  #storeOrphan(holder: Holder, orphan: Orphan): void {
    const hashLow = orphan.hashLow | 0
    const hashHigh = orphan.hashHigh | 0
    const place = aliasPlace(orphan.tier, this.#holders.groupNumber(holder, orphan.group, false))
    let parent = this.#resolve(holder, orphan.parentLow, orphan.parentHigh)
    this.#oneLocal[0] = orphan.localLow
    this.#oneLocal[1] = orphan.localHigh
    if (parent > 0) this.#chainUnder(parent, this.#oneLocal, 0)
    else if (this.#resolve(holder, hashLow, hashHigh) > 0) parent = 0
    else {
      this.#refuse(holder, hashLow, hashHigh)
      return
    }
    const low = (this.#keys[0] as number) | 0
    const high = (this.#keys[1] as number) | 0
    const storeCount = holder.countsStores ? orphan.storeCount : 1
    if (this.#hold(holder, hashLow, hashHigh, place, low, high, parent, storeCount) === 0) {
      this.#refuse(holder, hashLow, hashHigh)
    }
  }

  /** Remembers that a block was given up, so that its children are given up too. */
  #refuse(holder: Holder, hashLow: number, hashHigh: number): void {
    this.#outcome.parentEvicted++
    this.#tombstones.add(firstWord(holder.incarnation, hashLow, hashHigh), hashHigh)
  }

  #announce(holder: Holder, tier: number, engineGroup: number): number {
    const group = this.#holders.groupNumber(holder, engineGroup, true)
    if (group < 0) return group
    const announced = this.#holders.announced(holder.incarnation, tier)
    if ((announced & (1 << group)) !== 0) return group
    this.#holders.announce(holder.incarnation, tier, group)
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

  /** Once the budget was reached, keeps a reserve of free entries, and sweeps in step with what was stored. */
  #tidy(blocks: number): void {
    const { entries } = this.#blocks
    this.#clock.pinned = 0
    const reserve = Math.floor(entries.top / reserveShare)
    const room = Math.min(entries.freeEntries, this.#aliases.freeRecords) + this.#blocks.unsweptEvictions
    if (this.#isTight && room < reserve) this.#clock.evict(Math.min(2 * blocks, reserve - room))
    if (!this.#sweep.isNeeded) return
    this.#sweepDebt += (blocks * this.#sweep.passSteps) / Math.max(1, reserve / 2)
    for (; this.#sweepDebt >= 1; this.#sweepDebt--) if (!this.#sweep.step()) this.#sweepDebt = 0
  }

  /** The last resort of a store that finds no room: evicts a batch and sweeps it out at once. False: nothing to evict. */
  #makeRoom(): boolean {
    this.#isTight = true
    const wasNeeded = this.#sweep.isNeeded
    const evictions = wasNeeded ? 0 : this.#clock.evict(Math.max(32, this.#blocks.entries.top >>> 6))
    this.#sweep.finish()
    return wasNeeded || evictions > 0
  }

  #reserveIncarnation(): void {
    if (this.#holders.unusedIncarnations === 0) this.#sweep.finish()
  }
}
