/**
 * The map as plainly as its rules can be written: the oracle of the flat one. No budget, no threads, no sharing of
 * sets; every question is answered from one Map of aliases a worker.
 */
import type { KvBatch, KvEvent, KvHold, WorkerSlot } from '../../src/kv/batch.ts'
import { chainKeys } from '../../src/kv/keys.ts'
import type { ApplyOutcome, CacheMap, MapStats, MatchQuery, PrefixMatch, WorkerMapOptions } from '../../src/map/map.ts'

interface Alias {
  readonly key: string
  /** Store counts by `tier:group`. */
  readonly counts: Map<string, number>
}

interface NaiveOrphan {
  readonly hash: string
  readonly parent: string
  readonly local: readonly [number, number]
  readonly tier: number
  readonly group: number
  storeCount: number
}

interface NaiveWorker {
  options: WorkerMapOptions
  epoch: number
  lastSequence: number
  aliases: Map<string, Alias>
  orphans: NaiveOrphan[]
  orphansDropped: number
  /** Groups announced, by tier. */
  announced: Set<number>[]
  assumed: boolean
}

const word = (value: number): number => value >>> 0
const pair = (low: number, high: number): string => `${word(low)}:${word(high)}`
const words = (name: string): [number, number] => name.split(':').map(Number) as [number, number]
const pairs = (array: Uint32Array): string[] =>
  Array.from({ length: array.length >>> 1 }, (_, i) => pair(array[2 * i]!, array[2 * i + 1]!))

function child(key: string, local: readonly [number, number]): string {
  const out = new Uint32Array(2)
  chainKeys(...words(key), Uint32Array.from(local), out)
  return pair(out[0]!, out[1]!)
}

export class NaiveMap implements CacheMap {
  readonly #workers = new Map<WorkerSlot, NaiveWorker>()
  readonly #orphansPerWorker: number

  constructor(options: { orphansPerWorker?: number } = {}) {
    this.#orphansPerWorker = options.orphansPerWorker ?? 4096
  }

  addWorker(slot: WorkerSlot, options: WorkerMapOptions): void {
    const known = this.#workers.get(slot)
    if (known === undefined) {
      this.#workers.set(slot, { options, epoch: 0, lastSequence: -1, orphansDropped: 0, ...nothing() })
      return
    }
    const before = known.options.blockSize
    if (before !== null && before !== options.blockSize) Object.assign(known, nothing())
    known.options = options
  }

  removeWorker(slot: WorkerSlot): void {
    this.#workers.delete(slot)
  }

  clear(slot: WorkerSlot, epoch: number): void {
    const worker = this.#workers.get(slot)
    if (worker === undefined) return
    Object.assign(worker, nothing())
    if (epoch > worker.epoch) Object.assign(worker, { epoch, lastSequence: -1 })
  }

  apply(batch: KvBatch): ApplyOutcome {
    const outcome = noOutcome()
    const worker = this.#workers.get(batch.worker)
    if (worker !== undefined && batch.epoch > worker.epoch) this.clear(batch.worker, batch.epoch)
    if (worker === undefined || batch.epoch < worker.epoch || batch.sequence <= worker.lastSequence) {
      return { ...outcome, ignored: true }
    }
    if (worker.assumed) Object.assign(worker, nothing())
    worker.lastSequence = batch.sequence
    for (const event of batch.events) this.#applyEvent(worker, event, outcome)
    return outcome
  }

  assume(slot: WorkerSlot, events: readonly KvEvent[]): ApplyOutcome {
    const worker = this.#workers.get(slot)
    const outcome = noOutcome()
    if (worker === undefined) return { ...outcome, ignored: true }
    if (!worker.assumed) Object.assign(worker, nothing(), { assumed: true })
    for (const event of events) this.#applyEvent(worker, event, outcome)
    return outcome
  }

  retract(slot: WorkerSlot): void {
    const worker = this.#workers.get(slot)
    if (worker?.assumed === true) Object.assign(worker, nothing())
  }

  /** As a snapshot does, which leaves them out. */
  dropOrphans(): void {
    for (const worker of this.#workers.values()) worker.orphans = []
  }

  adopt(slot: WorkerSlot): void {
    const worker = this.#workers.get(slot)
    if (worker === undefined) return
    const isReady = ({ parent }: NaiveOrphan): boolean => this.#knownKey(worker, parent) !== undefined
    for (let ready = worker.orphans.find(isReady); ready !== undefined; ready = worker.orphans.find(isReady)) {
      this.#storeOrphan(worker, ready, this.#knownKey(worker, ready.parent))
    }
  }

  match(queries: readonly MatchQuery[], out: PrefixMatch): void {
    for (const counts of [out.gpu, out.host, out.disk, out.shared]) counts.fill(0)
    const shared = new Set<string>()
    for (const worker of this.#workers.values()) {
      for (const [key, tiers] of this.#held(worker)) if (tiers.has(3)) shared.add(key)
    }
    for (const [slot, worker] of this.#workers) {
      const query = queries.find(({ blockSize }) => blockSize === worker.options.blockSize)
      if (query === undefined) continue
      const held = this.#held(worker)
      const keys = pairs(query.keys)
      let at = 0
      for (; at < keys.length; at++) {
        const tiers = held.get(keys[at]!)
        if (tiers?.has(0) === true) out.gpu[slot]!++
        else if (tiers?.has(1) === true) out.host[slot]!++
        else if (tiers?.has(2) === true) out.disk[slot]!++
        else break
      }
      for (; at < keys.length && shared.has(keys[at]!); at++) out.shared[slot]!++
    }
  }

  workerBlocks(slot: WorkerSlot): { gpu: number; host: number; disk: number } {
    const worker = this.#workers.get(slot)
    const [gpu, host, disk] = worker === undefined ? [0, 0, 0] : this.#countByTier(worker)
    return { gpu: gpu!, host: host!, disk: disk! }
  }

  stats(): MapStats {
    const blocksByTier: [number, number, number, number] = [0, 0, 0, 0]
    const keys = new Set<string>()
    const sets = new Set<string>()
    let aliases = 0
    let orphans = 0
    let orphansDropped = 0
    for (const worker of this.#workers.values()) {
      this.#countByTier(worker).forEach((blocks, tier) => (blocksByTier[tier as 0] += blocks))
      for (const alias of worker.aliases.values()) {
        keys.add(alias.key)
        aliases += alias.counts.size
      }
      orphans += worker.orphans.length
      orphansDropped += worker.orphansDropped
    }
    return {
      entries: blocksByTier.reduce((sum, blocks) => sum + blocks, 0),
      keys: keys.size,
      sets: sets.size,
      aliases,
      orphans,
      orphansDropped,
      bytes: 0,
      budgetBytes: 0,
      evictions: 0,
      blocksByTier,
    }
  }

  #applyEvent(worker: NaiveWorker, event: KvEvent, outcome: ApplyOutcome): void {
    if (event.kind === 'clear') {
      Object.assign(worker, nothing())
      return
    }
    if (event.kind === 'hold') {
      this.#hold(worker, event, outcome)
      return
    }
    const hashes = pairs(event.engineHashes)
    if (event.kind === 'remove') {
      for (const hash of hashes) {
        const from = event.tier === null ? [0, 1, 2, 3] : [event.tier]
        const removed = from.filter((tier) => this.#removeBlock(worker, hash, tier, event.group))
        if (removed.length > 0) outcome.removedBlocks++
        else outcome.unknownRemovals++
      }
      return
    }
    if (event.kind === 'present') {
      for (const hash of hashes) {
        const key = this.#knownKey(worker, hash)
        if (key === undefined) {
          outcome.unknownHashes++
          continue
        }
        worker.announced[event.tier]!.add(event.group)
        this.#storeBlock(worker, hash, key, event.tier, event.group, 1)
        outcome.storedBlocks++
      }
      this.#adoptOrphans(worker, outcome)
      return
    }
    worker.announced[event.tier]!.add(event.group)
    const locals = pairs(event.locals)
    const { parent } = event
    hashes.forEach((hash, i) => {
      const isFirst = i === 0
      const parentHash = isFirst
        ? parent.kind === 'root'
          ? null
          : pair(parent.hashLow, parent.hashHigh)
        : hashes[i - 1]!
      const root = isFirst && parent.kind === 'root' ? pair(parent.keyLow, parent.keyHigh) : null
      const parentKey = root ?? (isFirst ? this.#knownKey(worker, parentHash!) : worker.aliases.get(parentHash!)?.key)
      const local = words(locals[i]!)
      if (parentKey === undefined && !worker.aliases.has(hash)) {
        const orphan = { hash, parent: parentHash!, local, tier: event.tier, group: event.group, storeCount: 1 }
        this.#addOrphan(worker, orphan)
        outcome.orphaned++
        return
      }
      this.#storeBlock(worker, hash, parentKey && child(parentKey, local), event.tier, event.group, 1)
      outcome.storedBlocks++
    })
    this.#adoptOrphans(worker, outcome)
  }

  #adoptOrphans(worker: NaiveWorker, outcome: ApplyOutcome): void {
    for (let ready = this.#readyOrphan(worker); ready !== undefined; ready = this.#readyOrphan(worker)) {
      this.#storeOrphan(worker, ready, worker.aliases.get(ready.parent)?.key)
      outcome.storedBlocks++
    }
  }

  #knownKey(worker: NaiveWorker, hash: string): string | undefined {
    const kin = (worker.options.kin ?? []).map((slot) => this.#workers.get(slot))
    const sameSize = kin.filter((other) => other?.options.blockSize === worker.options.blockSize)
    return [worker, ...sameSize].map((other) => other?.aliases.get(hash)?.key).find((key) => key !== undefined)
  }

  #hold(worker: NaiveWorker, { keys, tier, parent }: KvHold, outcome: ApplyOutcome): void {
    worker.announced[tier]!.add(0)
    if (parent !== null && !worker.aliases.has(pair(...parent))) {
      outcome.parentEvicted += keys.length >>> 1
      return
    }
    for (const key of pairs(keys)) {
      const alias = worker.aliases.get(key) ?? { key, counts: new Map<string, number>() }
      worker.aliases.set(key, alias)
      alias.counts.set(`${tier}:0`, alias.counts.get(`${tier}:0`) ?? 1)
      outcome.storedBlocks++
    }
  }

  #storeOrphan(worker: NaiveWorker, orphan: NaiveOrphan, parentKey: string | undefined): void {
    worker.orphans = worker.orphans.filter((other) => other !== orphan)
    const key = parentKey && child(parentKey, orphan.local)
    this.#storeBlock(worker, orphan.hash, key, orphan.tier, orphan.group, orphan.storeCount)
  }

  #readyOrphan(worker: NaiveWorker): NaiveOrphan | undefined {
    return worker.orphans.find(({ hash, parent }) => worker.aliases.has(parent) || worker.aliases.has(hash))
  }

  #addOrphan(worker: NaiveWorker, orphan: NaiveOrphan): void {
    const known = this.#findOrphan(worker, orphan.hash, orphan.tier, orphan.group)
    if (known !== undefined) {
      if (worker.options.countsStores) known.storeCount++
      return
    }
    if (worker.orphans.length >= this.#orphansPerWorker) {
      worker.orphans.shift()
      worker.orphansDropped++
    }
    worker.orphans.push(orphan)
  }

  #findOrphan(worker: NaiveWorker, hash: string, tier: number, group: number): NaiveOrphan | undefined {
    return worker.orphans.find((orphan) => orphan.hash === hash && orphan.tier === tier && orphan.group === group)
  }

  #storeBlock(
    worker: NaiveWorker,
    hash: string,
    key: string | undefined,
    tier: number,
    group: number,
    storeCount: number,
  ): void {
    const alias = worker.aliases.get(hash) ?? { key: key!, counts: new Map<string, number>() }
    worker.aliases.set(hash, alias)
    const place = `${tier}:${group}`
    const before = alias.counts.get(place) ?? 0
    alias.counts.set(place, worker.options.countsStores ? before + storeCount : 1)
  }

  #removeBlock(worker: NaiveWorker, hash: string, tier: number, group: number): boolean {
    const place = `${tier}:${group}`
    const alias = worker.aliases.get(hash)
    const storeCount = alias?.counts.get(place)
    if (alias === undefined || storeCount === undefined) {
      const orphan = this.#findOrphan(worker, hash, tier, group)
      if (orphan === undefined) return false
      orphan.storeCount--
      if (!worker.options.countsStores || orphan.storeCount === 0) {
        worker.orphans = worker.orphans.filter((other) => other !== orphan)
      }
      return true
    }
    if (worker.options.countsStores && storeCount > 1) alias.counts.set(place, storeCount - 1)
    else alias.counts.delete(place)
    if (alias.counts.size === 0) worker.aliases.delete(hash)
    return true
  }

  /** The tiers of each block whose announced groups all hold it there. */
  #held(worker: NaiveWorker): Map<string, Set<number>> {
    const places = new Map<string, Set<string>>()
    for (const { key, counts } of worker.aliases.values()) {
      const known = places.get(key) ?? new Set()
      for (const place of counts.keys()) known.add(place)
      places.set(key, known)
    }
    const held = new Map<string, Set<number>>()
    for (const [key, known] of places) {
      const tiers = [0, 1, 2, 3].filter((tier) => {
        const groups = [...worker.announced[tier]!]
        return groups.length > 0 && groups.every((group) => known.has(`${tier}:${group}`))
      })
      held.set(key, new Set(tiers))
    }
    return held
  }

  #countByTier(worker: NaiveWorker): number[] {
    const counts = [0, 0, 0, 0]
    for (const tiers of this.#held(worker).values()) for (const tier of tiers) counts[tier]!++
    return counts
  }
}

function nothing(): Pick<NaiveWorker, 'aliases' | 'orphans' | 'announced' | 'assumed'> {
  return { aliases: new Map(), orphans: [], announced: [new Set(), new Set(), new Set(), new Set()], assumed: false }
}

function noOutcome(): ApplyOutcome {
  return {
    storedBlocks: 0,
    removedBlocks: 0,
    unknownRemovals: 0,
    orphaned: 0,
    unknownHashes: 0,
    parentEvicted: 0,
    ignored: false,
  }
}
