import { mix32, seededRandom, type Random } from '../simulator/random.ts'
import type { KvEvent } from '../simulator/kv-event.ts'
import type { Chooser } from './chooser.ts'
import type { ReplayFault } from './faults.ts'

/** From the batch that shows a gap until the missing ones have come. */
const replayDelayMs = 20

/** What the router hears of the engines' caches: batches in order, some of them lost, the last ones kept for who begins anew. */
export class EventFeed {
  readonly #loss: Extract<ReplayFault, { kind: 'lost-events' }> | null
  readonly #keptBatches: number
  readonly #random: Random
  /** By worker, batches that did not arrive and are to be replayed. */
  readonly #missing: (readonly KvEvent[])[][]
  readonly #kept: (readonly KvEvent[])[][]

  constructor(faults: readonly ReplayFault[], workers: number, seed: number) {
    this.#loss = faults.find((fault) => fault.kind === 'lost-events') ?? null
    this.#keptBatches = Math.max(0, ...faults.map((fault) => (fault.kind === 'router-restart' ? fault.keptBatches : 0)))
    this.#random = seededRandom(mix32(seed ^ 0x5be0cd19))
    this.#missing = Array.from({ length: workers }, () => [])
    this.#kept = Array.from({ length: workers }, () => [])
  }

  /** A batch has come, or would have. */
  heard(
    worker: number,
    events: readonly KvEvent[],
    chooser: Chooser,
    later: (ms: number, run: () => void) => void,
  ): void {
    if (this.#keptBatches > 0) this.#keep(worker, events)
    const loss = this.#loss
    if (loss === null) {
      chooser.applyEvents(worker, events)
      return
    }
    const missing = this.#missing[worker] as (readonly KvEvent[])[]
    const isLost = this.#random.next() < loss.share
    if (!isLost && missing.length === 0) chooser.applyEvents(worker, events)
    else if (loss.repair === 'replay') {
      missing.push(events)
      if (!isLost) later(replayDelayMs, () => this.#replay(worker, chooser))
    } else if (isLost) missing.push(events)
    else {
      missing.length = 0
      chooser.forget(worker)
      chooser.applyEvents(worker, events)
    }
  }

  /** The engine died: what it did not tell is gone. */
  forget(worker: number): void {
    const [missing, kept] = [this.#missing[worker], this.#kept[worker]]
    if (missing !== undefined) missing.length = 0
    if (kept !== undefined) kept.length = 0
  }

  /** Tells a router that begins anew what is kept. */
  retell(chooser: Chooser): void {
    for (const [worker, batches] of this.#kept.entries())
      for (const batch of batches) chooser.applyEvents(worker, batch)
  }

  #replay(worker: number, chooser: Chooser): void {
    for (const events of this.#missing[worker]?.splice(0) ?? []) chooser.applyEvents(worker, events)
  }

  #keep(worker: number, events: readonly KvEvent[]): void {
    const kept = this.#kept[worker] as (readonly KvEvent[])[]
    kept.push(events.map(ownCopy))
    if (kept.length > this.#keptBatches) kept.shift()
  }
}

/** Without the whole prompt that a few of its blocks are a view of. */
function ownCopy(event: KvEvent): KvEvent {
  if (event.kind !== 'stored' || event.locals === undefined) return event
  return { ...event, hashes: event.hashes.slice(), locals: event.locals.slice() }
}
