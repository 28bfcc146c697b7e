import type { KvEvent } from '../simulator/kv-event.ts'
import type { Random } from '../simulator/random.ts'
import type { MeasuredLoad } from '../workers/worker.ts'
import type { Agenda } from './agenda.ts'
import type { Choice, Chooser, VirtualRequest } from './chooser.ts'
import type { Routed, Sharing } from './routed.ts'

export interface ReplicasOptions {
  readonly count: number
  /** From what one says until the others have it; null: they say nothing to each other, and each hears the engines itself. */
  readonly delayMs: number | null
  /** Least time between two messages of one of them. */
  readonly shareMs: number
}

export interface ReplicatedOptions extends ReplicasOptions {
  readonly agenda: Agenda
  readonly clock: () => number
  /** Through which replica a request comes. */
  readonly random: Random
  readonly create: (index: number, sharing?: Sharing) => Routed
}

/**
 * Several replicas of the router, each with a map, counters and a policy of its own, joined by the messages that they would
 * send through Redis. A request comes through any of them, whoever sent the turn before it. Of each worker one replica hears
 * the engine, and the others hear it from that one.
 */
export class Replicated implements Chooser {
  readonly #o: ReplicatedOptions
  readonly #replicas: readonly Routed[]
  readonly #taken = new Map<string, Routed>()

  constructor(options: ReplicatedOptions) {
    this.#o = options
    const { count, create } = options
    this.#replicas = Array.from({ length: count }, (_, index) => create(index, this.#sharing(index)))
  }

  choose(request: VirtualRequest, nowMs: number): Choice {
    const replica = this.#replicas[this.#o.random.below(this.#replicas.length)] as Routed
    this.#taken.set(request.id, replica)
    return replica.choose(request, nowMs)
  }

  firstToken(id: string, nowMs: number): void {
    this.#taken.get(id)?.firstToken(id, nowMs)
  }

  generated(id: string, tokens: number): void {
    this.#taken.get(id)?.generated(id, tokens)
  }

  finished(id: string, cachedTokens: number, nowMs: number): void {
    this.#taken.get(id)?.finished(id, cachedTokens, nowMs)
    this.#taken.delete(id)
  }

  aborted(id: string): void {
    this.#taken.get(id)?.aborted(id)
    this.#taken.delete(id)
  }

  /** Each reads the engines' load itself. */
  measured(worker: number, load: MeasuredLoad): void {
    for (const replica of this.#replicas) replica.measured(worker, load)
  }

  applyEvents(worker: number, events: readonly KvEvent[]): void {
    const { delayMs, agenda, clock } = this.#o
    const hearing = worker % this.#replicas.length
    for (const [index, replica] of this.#replicas.entries()) {
      if (index === hearing || delayMs === null) replica.applyEvents(worker, events)
      else agenda.at(clock() + delayMs, () => replica.applyEvents(worker, events))
    }
  }

  /** Each finds out for itself. */
  left(worker: number): void {
    for (const replica of this.#replicas) replica.left(worker)
  }

  joined(worker: number): void {
    for (const replica of this.#replicas) replica.joined(worker)
  }

  forget(worker: number): void {
    for (const replica of this.#replicas) replica.forget(worker)
  }

  beat(): void {
    for (const replica of this.#replicas) replica.beat()
  }

  #sharing(index: number): Sharing | undefined {
    const { delayMs, shareMs, agenda, clock } = this.#o
    if (delayMs === null) return undefined
    return {
      replica: (index + 1).toString(16).padStart(16, '0'),
      shareMs,
      clock,
      later: (ms, run) => agenda.at(clock() + ms, run),
      append: (message) => agenda.at(clock() + delayMs, () => this.#replicas.forEach((each) => each.receive(message))),
    }
  }
}
