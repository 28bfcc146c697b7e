import assert from 'node:assert/strict'
import type { KvBatch, KvEvent, WorkerSlot } from '../kv/batch.ts'
import { Aliases } from './aliases.ts'
import { Announcements } from './announcements.ts'
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
  reserveMap,
  tierCount,
  viewMap,
} from './layout.ts'
import type { MapHandle } from './layout.ts'
import { Ledger } from './ledger.ts'
import type { ApplyOutcome, CacheMap, MapStats, MatchQuery, PrefixMatch, WorkerMapOptions } from './map.ts'
import type { MapParts } from './map-parts.ts'
import { Reclaim } from './reclaim.ts'
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

/** Orphans take at most one part in so many of the budget. */
const orphanShare = 8

/**
 * The global KV-cache map over flat tables in shared memory (layout.ts draws them). One thread writes through this
 * class; others read through `createMapReader(map.shared())`.
 */
export class FlatMap implements CacheMap {
  readonly #handle: MapHandle
  readonly #blocks: Blocks
  readonly #holders: Holders
  readonly #aliases: Aliases
  readonly #ledger: Ledger
  readonly #reclaim: Reclaim
  readonly #sweep: Sweep
  readonly #reader: FlatReader
  /** For what goes through all tables: snapshots. */
  readonly parts: MapParts
  #changes = 0
  readonly #outcome: ApplyOutcome = {
    storedBlocks: 0,
    removedBlocks: 0,
    unknownRemovals: 0,
    orphaned: 0,
    unknownHashes: 0,
    parentEvicted: 0,
    ignored: false,
  }

  constructor(options: FlatMapOptions = {}) {
    const budgetBytes = options.budgetBytes ?? defaultBudgetBytes
    const sizes = mapSizes(budgetBytes, options.maxWorkers ?? defaultMaxWorkers)
    this.#handle = reserveMap(sizes)
    const memory = viewMap(this.#handle)
    const budget = new Budget(budgetBytes)
    const tombstones = new Tombstones(budgetBytes)
    assert.ok(budget.take(fixedBytes(sizes) + tombstones.bytes), 'the budget does not hold the fixed tables')
    this.#holders = new Holders(memory, {
      perWorker: options.orphansPerWorker ?? defaultOrphansPerWorker,
      pool: new Budget(Math.floor(budgetBytes / orphanShare)),
      budget,
    })
    this.#blocks = new Blocks(memory, budget, this.#holders)
    this.#aliases = new Aliases(memory, this.#blocks.entries, tombstones, budget)
    this.#sweep = new Sweep(memory, this.#blocks, this.#aliases)
    this.#reclaim = new Reclaim(this.#blocks, new Clock(this.#blocks, this.#aliases), this.#sweep)
    const announcements = new Announcements(this.#aliases, this.#blocks, tombstones, this.#reclaim)
    this.#ledger = new Ledger(announcements, this.#aliases, this.#blocks, this.#outcome)
    this.#reader = new FlatReader(memory)
    this.parts = {
      memory,
      blocks: this.#blocks,
      holders: this.#holders,
      aliases: this.#aliases,
      announcements,
      reclaim: this.#reclaim,
      reserveIncarnation: () => this.#reserveIncarnation(),
    }
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
    if (before !== 0 && before !== (options.blockSize ?? 0)) this.#forget(holder)
    this.#holders.putBlockSize(slot, options.blockSize ?? 0)
    holder.countsStores = options.countsStores
    holder.kin = options.kin ?? []
  }

  removeWorker(slot: WorkerSlot): void {
    const holder = this.#holders.get(slot)
    if (holder === undefined) return
    this.#changes++
    this.#aliases.addDead(heldBlocks(holder))
    this.#holders.remove(holder)
  }

  clear(slot: WorkerSlot, epoch: number): void {
    const holder = this.#holders.get(slot)
    if (holder === undefined) return
    this.#reserveIncarnation()
    this.#forget(holder)
    if (epoch <= holder.epoch) return
    holder.epoch = epoch
    holder.lastSequence = -1
  }

  apply(batch: KvBatch): ApplyOutcome {
    const outcome = this.#newOutcome()
    const holder = this.#holders.get(batch.worker)
    if (holder !== undefined && batch.epoch > holder.epoch) this.clear(batch.worker, batch.epoch)
    if (holder === undefined || batch.epoch < holder.epoch || batch.sequence <= holder.lastSequence) {
      outcome.ignored = true
      return outcome
    }
    if (holder.isAssumed) this.retract(batch.worker)
    holder.lastSequence = batch.sequence
    this.#enter(holder, batch.events)
    return outcome
  }

  assume(slot: WorkerSlot, events: readonly KvEvent[]): ApplyOutcome {
    const outcome = this.#newOutcome()
    const holder = this.#holders.get(slot)
    if (holder === undefined) {
      outcome.ignored = true
      return outcome
    }
    if (!holder.isAssumed) {
      this.#reserveIncarnation()
      this.#forget(holder)
      holder.isAssumed = true
    }
    this.#enter(holder, events)
    return outcome
  }

  retract(slot: WorkerSlot): void {
    const holder = this.#holders.get(slot)
    if (holder?.isAssumed !== true) return
    this.#reserveIncarnation()
    this.#forget(holder)
  }

  adopt(slot: WorkerSlot): void {
    const holder = this.#holders.get(slot)
    if (holder === undefined || holder.orphans.count === 0) return
    this.#newOutcome()
    this.#ledger.adopt(holder)
    this.#reclaim.settle(this.#outcome.storedBlocks + 1)
  }

  /** Credits a worker with what was restored of it concealed; a worker that is not concealed stays as it is. */
  reveal(slot: WorkerSlot): void {
    const holder = this.#holders.get(slot)
    if (holder?.isConcealed === true) this.#holders.reveal(holder)
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

  /** Another number once what workers hold has changed. */
  get changes(): number {
    return this.#changes
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

  #enter(holder: Holder, events: readonly KvEvent[]): void {
    this.#changes++
    for (const event of events) {
      switch (event.kind) {
        case 'store':
          this.#ledger.store(holder, event)
          break
        case 'hold':
          this.#ledger.hold(holder, event)
          break
        case 'present':
          this.#ledger.present(holder, event)
          break
        case 'remove':
          this.#ledger.remove(holder, event)
          break
        case 'clear':
          this.#reserveIncarnation()
          this.#forget(holder)
          break
        default:
          event satisfies never
      }
    }
    this.#reclaim.settle(this.#outcome.storedBlocks + this.#outcome.removedBlocks + 1)
  }

  #newOutcome(): ApplyOutcome {
    const outcome = this.#outcome
    outcome.storedBlocks = 0
    outcome.removedBlocks = 0
    outcome.unknownRemovals = 0
    outcome.orphaned = 0
    outcome.unknownHashes = 0
    outcome.parentEvicted = 0
    outcome.ignored = false
    return outcome
  }

  #forget(holder: Holder): void {
    this.#changes++
    this.#aliases.addDead(heldBlocks(holder))
    this.#holders.renew(holder)
  }

  #reserveIncarnation(): void {
    if (this.#holders.unusedIncarnations === 0) this.#sweep.finish()
  }
}

function heldBlocks({ blocks }: Holder): number {
  return blocks.reduce((sum, ofTier) => sum + ofTier, 0)
}
