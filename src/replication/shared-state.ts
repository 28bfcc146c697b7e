import type { SentPrompts, SentPromptsListener, UnderWay } from '../map/sent-prompts.ts'
import type { InFlightCounters } from '../workers/fleet.ts'
import type { ReplicaShares } from '../workers/fleet-load.ts'
import type { Worker } from '../workers/worker.ts'
import type { PolicyHooks } from '../routing/policy.ts'
import { PublishedDispatches } from './published-dispatches.ts'
import { PublishedPrompts } from './published-prompts.ts'
import { ReplicaDispatches, type PolicyListener } from './replica-dispatches.ts'
import { ReplicaPrompts } from './replica-prompts.ts'
import { LoadShares } from './replica-shares.ts'
import { Replicas } from './replicas.ts'
import { SharedOwners } from './shared-owners.ts'
import { SharedPublisher } from './shared-publisher.ts'
import { decodeShared, type SharedMessage, type SharedRecord, type SkipReason } from './shared-record.ts'
import { SharedWorkers } from './shared-workers.ts'

export interface SharedStateOptions {
  /** 16 hexadecimal digits, drawn anew by each process. */
  readonly replica: string
  /** Slots of the fleet. */
  readonly slots: number
  readonly counters: InFlightCounters
  readonly isAnnounced: (slot: UnderWay['prompt']['slot']) => boolean
  /** What prompts of others go through; made after this, and used only when something is received. */
  readonly foreignPrompts: () => SentPrompts
  /** Who decides about the worker, and would hear of a request of our own to it; null where nobody does. */
  readonly policyOf: (worker: Worker) => PolicyListener | null
  /** Equal on all replicas. */
  readonly secret: Uint8Array
  readonly responsesKept: number
  /** Read anew each time. */
  readonly limits: SharedLimits
  /** Takes a message at once. Where it had to drop some, `away` and `up` are to be called, so that all is told anew. */
  readonly append: (message: Buffer) => void
  /** Calls back after so many ms; after none, once what is being done now is done. Absent: by timers that keep nothing alive. */
  readonly later?: (ms: number, run: () => void) => void
  /** Monotonic milliseconds. */
  readonly clock: () => number
  readonly onSkipped: (reason: SkipReason) => void
}

export interface SharedLimits {
  /** Least time between two messages of this replica. */
  readonly shareMs: number
  /** Silence after which another replica and all of its figures are gone. */
  readonly shareTtlMs: number
}

/**
 * What replicas of the router share beside the map, in both directions:
 *
 *     own counters, requests, prompts, responses ──► publisher ──► append … Redis
 *     Redis … receive ──► shares, requests, prompts, owners of others
 *
 * Nothing waits for anything here. What is lost makes a decision worse for a moment, and is mended by the next figures.
 */
export class SharedState {
  readonly #o: SharedStateOptions
  readonly #workers = new SharedWorkers()
  readonly #replicas: Replicas
  readonly #publisher: SharedPublisher
  readonly #published: PublishedPrompts
  readonly #publishedDispatches: PublishedDispatches
  readonly #dispatches: ReplicaDispatches
  readonly #shares: LoadShares
  readonly #owners: SharedOwners
  #prompts: ReplicaPrompts | null = null

  constructor(options: SharedStateOptions) {
    this.#o = options
    const {
      replica,
      slots,
      counters,
      limits,
      isAnnounced,
      secret,
      responsesKept,
      append,
      later = byTimers,
      clock,
    } = options
    const workers = this.#workers
    const ttlMs = (): number => limits.shareTtlMs
    this.#replicas = new Replicas({ own: replica, ttlMs, onGone: (gone) => this.#gone(gone) })
    this.#publisher = new SharedPublisher({
      ...{ replica, workers, counters, append, later, clock },
      gatherMs: () => limits.shareMs,
    })
    const tell = (record: SharedRecord): boolean => this.#publisher.tell(record)
    this.#published = new PublishedPrompts({ workers, isAnnounced, tell })
    this.#publishedDispatches = new PublishedDispatches({ workers, tell })
    this.#dispatches = new ReplicaDispatches({ workers, policyOf: options.policyOf })
    this.#shares = new LoadShares({ workers, slots, ttlMs })
    this.#owners = new SharedOwners({ workers, secret, kept: responsesKept, tell })
    counters.onChange = (slot) => this.#publisher.changed(slot)
  }

  /** What others have in flight, for `FleetLoad`. */
  get shares(): ReplicaShares {
    return this.#shares
  }

  /** Requests that others have in flight. */
  get requestsElsewhere(): number {
    return this.#shares.allRequests
  }

  /** What `SentPrompts` tells of our own prompts. */
  get prompts(): SentPromptsListener {
    return this.#published
  }

  /** What is told of our own requests, as policies are told of them. */
  get dispatches(): Required<PolicyHooks> {
    return this.#publishedDispatches
  }

  /** What `ResponseOwners` asks when it does not know a response. */
  get owners(): SharedOwners {
    return this.#owners
  }

  /** Age of the oldest figures of others that count; null where there are none. */
  get oldestShareMs(): number | null {
    return this.#shares.oldestMs(this.#o.clock())
  }

  /** Other replicas that were heard of late. */
  replicas(): string[] {
    return this.#replicas.list()
  }

  /** Prompts and requests of other replicas that are followed. */
  get followed(): { readonly prompts: number; readonly requests: number } {
    return { prompts: this.#prompts?.count ?? 0, requests: this.#dispatches.count }
  }

  addWorker(worker: Worker): void {
    this.#shares.added(worker)
    this.#workers.add(worker)
  }

  removeWorker(worker: Worker): void {
    this.#workers.remove(worker)
    this.#shares.removed(worker)
  }

  /** @param ageMs how long the bytes have lain there, as far as that is known */
  receive(bytes: Uint8Array, ageMs = 0): void {
    // Whoever said this may be gone by now; those who are there say it anew.
    if (ageMs > this.#o.limits.shareTtlMs) {
      this.missed()
      return
    }
    const nowMs = this.#o.clock()
    for (const message of decodeShared(bytes, this.#o.onSkipped)) {
      const saidAtMs = nowMs - Math.max(0, ageMs)
      if (this.#replicas.accept(message, saidAtMs)) this.#apply(message, saidAtMs)
    }
  }

  /** To be called about every 100 ms: tells that we are there, and lets go what is too old. */
  beat(): void {
    const nowMs = this.#o.clock()
    this.#publisher.beat()
    this.#shares.expire(nowMs)
    this.#replicas.expire(nowMs)
    this.#prompts?.expire(nowMs)
    this.#dispatches.expire(nowMs)
  }

  /** Messages were lost before they were read: whoever is there says all that counts within half a second. */
  missed(): void {
    for (const replica of this.replicas()) this.#replicas.bye(replica)
  }

  /** Redis takes what we say. */
  up(): void {
    this.#publisher.up()
  }

  away(): void {
    this.#publisher.away()
    this.#published.forget()
    this.#publishedDispatches.forget()
  }

  stop(): void {
    this.#publisher.stop()
    this.away()
    this.#o.counters.onChange = null
  }

  #apply({ replica, records }: SharedMessage, saidAtMs: number): void {
    for (const record of records) {
      switch (record.kind) {
        case 'load':
          this.#shares.apply(replica, record, saidAtMs)
          break
        case 'prompt':
          this.#followed().sent(replica, record, saidAtMs)
          break
        case 'computed':
          this.#followed().computed(replica, record, saidAtMs)
          break
        case 'answered':
          this.#followed().answered(replica, record, saidAtMs)
          break
        case 'ended':
          this.#followed().ended(replica, record)
          break
        case 'dispatched':
          this.#dispatches.dispatched(replica, record, saidAtMs)
          break
        case 'firstByte':
          this.#dispatches.firstByte(replica, record)
          break
        case 'finished':
          this.#dispatches.finished(replica, record)
          break
        case 'anew':
          this.#forgetUnderWay(replica)
          break
        case 'owner':
          this.#owners.apply(record)
          break
        case 'bye':
          this.#replicas.bye(replica)
          return
        default:
          record satisfies never
      }
    }
  }

  #followed(): ReplicaPrompts {
    this.#prompts ??= new ReplicaPrompts({ workers: this.#workers, sentPrompts: this.#o.foreignPrompts() })
    return this.#prompts
  }

  #gone(replica: string): void {
    this.#shares.forget(replica)
    this.#forgetUnderWay(replica)
  }

  #forgetUnderWay(replica: string): void {
    this.#prompts?.forget(replica)
    this.#dispatches.forget(replica)
  }
}

function byTimers(ms: number, run: () => void): void {
  if (ms > 0) setTimeout(run, ms).unref()
  else setImmediate(run).unref()
}
