import { eventLosses, shareTtlMs, staleLoadMs } from '../config/defaults.ts'
import { RouterError } from '../errors.ts'
import type { KvEvent as MapEvent, WorkerSlot } from '../kv/batch.ts'
import { Losses } from '../events/losses.ts'
import { tierIndex } from '../kv/tier.ts'
import type { KeyScope } from '../kv/keys.ts'
import { Approximate } from '../map/approximate.ts'
import { Coming } from '../map/coming.ts'
import { FlatMap } from '../map/flat-map.ts'
import { SentPrompts, type UnderWay } from '../map/sent-prompts.ts'
import { Candidates, type MatchBySlot } from '../routing/candidates.ts'
import type { Dispatch, PolicyFacts } from '../routing/policy.ts'
import type { Profile } from '../routing/profile.ts'
import { TierCredit, type TierSettings } from '../routing/tier-credit.ts'
import { RoutedRequest } from '../routing/request.ts'
import { SharedState } from '../replication/shared-state.ts'
import type { KvEvent } from '../simulator/kv-event.ts'
import { Fleet, InFlight } from '../workers/fleet.ts'
import { Standing } from '../workers/standing.ts'
import { newAgreement } from '../workers/agreement.ts'
import { FleetLoad } from '../workers/fleet-load.ts'
import type { MeasuredLoad, Worker } from '../workers/worker.ts'
import type { Choice, Chooser, VirtualRequest } from './chooser.ts'

/** Far more than any workload in virtual time fills. */
const mapBudgetBytes = 256 * 1024 * 1024

interface Live {
  readonly inFlight: InFlight
  readonly dispatch: Dispatch
  readonly underWay: UnderWay
}

export interface RoutedOptions {
  readonly workers: number
  readonly profile: Profile
  readonly scope: KeyScope
  /** Virtual milliseconds. */
  readonly clock: () => number
  /** So many workers, the first ones, tell nothing of their caches; the rest do. */
  readonly withoutEvents: number
  /** Whether prompts count as coming once they were sent. */
  readonly predictsOnRoute: boolean
  readonly capacityBlocks: number
  /** What blocks outside the GPUs are worth; absent: the standard credits. */
  readonly tiers?: TierSettings
  /** Absent where this replica knows of no other one. */
  readonly sharing?: Sharing
}

/** What one replica of several is joined to the others by. */
export interface Sharing {
  /** 16 hexadecimal digits. */
  readonly replica: string
  /** Least time between two messages. */
  readonly shareMs: number
  readonly append: (message: Buffer) => void
  readonly later: (ms: number, run: () => void) => void
  readonly clock: () => number
}

/** More than a run ever has under way. */
const expectedRequests = 4096
const approximateTtlMs = 3_600_000

/** What all requests of a run say of themselves. */
const sameFacts: Omit<PolicyFacts, 'promptTokens' | 'promptTokensEstimate'> = {
  model: 'model',
  adapter: null,
  session: null,
  user: null,
  keyId: 'anonymous',
  priority: 0,
  stream: true,
  maxTokens: null,
  header: () => null,
}

/** The router's own parts, joined as the request path joins them: map from events, counters, profile. */
export class Routed implements Chooser {
  readonly #fleet: Fleet
  readonly #load: FleetLoad
  readonly #workers: readonly Worker[]
  /** Those that may be chosen. */
  #present: readonly Worker[]
  /** By worker, how often it began anew. */
  readonly #epochs: number[]
  readonly #losses: readonly Losses[]
  readonly #map: FlatMap
  readonly #scope: KeyScope
  readonly #profile: Profile
  readonly #candidates: Candidates
  readonly #asked = new RoutedRequest()
  readonly #match: MatchBySlot
  readonly #coming: Coming
  readonly #sent: SentPrompts
  readonly #live = new Map<string, Live>()
  readonly #shared: SharedState | null
  readonly #sequences: number[]

  constructor(options: RoutedOptions) {
    const { workers, profile, scope, clock, withoutEvents, predictsOnRoute, capacityBlocks, sharing } = options
    const { blockSize } = scope
    const isAnnounced = (slot: number): boolean => slot >= withoutEvents && this.#losses[slot]?.areFrequent !== true
    this.#fleet = new Fleet(workers)
    this.#shared =
      sharing === undefined
        ? null
        : new SharedState({
            ...sharing,
            slots: workers,
            counters: this.#fleet.counters,
            isAnnounced,
            foreignPrompts: () => new SentPrompts({ coming: this.#coming, approximate }),
            policyOf: () => profile,
            secret: new Uint8Array(0),
            responsesKept: 0,
            limits: { shareMs: sharing.shareMs, shareTtlMs },
            onSkipped: (reason) => {
              throw new Error(`a message that cannot be read: ${reason}`)
            },
          })
    this.#load = new FleetLoad({
      counters: this.#fleet.counters,
      ...(this.#shared === null ? {} : { replicas: this.#shared.shares }),
    })
    this.#map = new FlatMap({ maxWorkers: workers, budgetBytes: mapBudgetBytes })
    this.#scope = scope
    this.#profile = profile
    this.#candidates = new Candidates(workers, new TierCredit(options.tiers))
    const held = (): Uint32Array => new Uint32Array(workers)
    this.#match = { gpu: held(), host: held(), disk: held(), shared: held(), coming: held() }
    this.#coming = new Coming({ requests: predictsOnRoute ? expectedRequests : 0 })
    const approximate = new Approximate({
      map: this.#map,
      limits: { capacityBlocks, ttlMs: approximateTtlMs },
      isAnnounced,
    })
    this.#sent = new SentPrompts({
      coming: this.#coming,
      approximate,
      ...(this.#shared === null ? {} : { listener: this.#shared.prompts }),
    })
    this.#sequences = new Array<number>(workers).fill(0)
    this.#epochs = new Array<number>(workers).fill(0)
    this.#losses = Array.from({ length: workers }, () => new Losses(() => eventLosses, clock))
    this.#workers = Array.from({ length: workers }, () => {
      const worker = this.#fleet.add((slot, serial) => ({
        ...simulatedWorker(slot, serial, blockSize, isAnnounced(slot)),
        capacityBlocks,
      }))
      if (worker === null) throw new RangeError('the fleet is full')
      this.#map.addWorker(worker.slot as WorkerSlot, { countsStores: true, blockSize })
      this.#shared?.addWorker(worker)
      return worker
    })
    this.#present = this.#workers
    this.#shared?.up()
  }

  /** What another replica said. */
  receive(message: Uint8Array): void {
    this.#shared?.receive(message)
  }

  /** To be called every 100 ms where there are several replicas. */
  beat(): void {
    this.#shared?.beat()
  }

  choose({ id, prompt, session }: VirtualRequest, nowMs: number): Choice {
    const { counters } = this.#fleet
    const candidates = this.#candidates
    const { blockSize } = this.#scope
    const { promptTokens, keys } = prompt
    const queries = [{ blockSize, keys }]
    this.#map.match(queries, this.#match)
    this.#coming.match(queries, this.#match, nowMs, this.#match.coming)
    candidates.gather(this.#present, this.#load, this.#match, { nowMs, staleLoadMs, promptTokens })
    const facts = { ...sameFacts, promptTokens, promptTokensEstimate: promptTokens, session }
    const chosen = this.#profile.choose(this.#asked.is(facts, queries), candidates, candidates)
    if (chosen < 0)
      throw new RouterError(
        'NO_SUITABLE_WORKER',
        `"${this.#profile.refusedBy ?? ''}" leaves no worker to a request; simulated workers have no labels`,
      )
    const { slot, serial } = candidates.workers[chosen] as Worker
    const predictedCachedTokens = candidates.cachedTokens[chosen] as number
    const comingTokens = candidates.comingTokens[chosen] as number
    const uncachedTokens = promptTokens - predictedCachedTokens - comingTokens
    const dispatch: Dispatch = {
      serial,
      promptTokens,
      uncachedTokens,
      prefillTokensAhead: candidates.prefillTokens[chosen] as number,
      requestsAhead: candidates.requests[chosen] as number,
      stream: true,
      atMs: nowMs,
      keys,
      held: candidates.held(chosen),
      adapter: null,
      session: facts.session,
      maxTokens: null,
    }
    const inFlight = new InFlight(counters, slot, { promptTokens, uncachedTokens, blockSize, sequences: 1 })
    const underWay = this.#sent.sent(
      {
        slot: slot as WorkerSlot,
        blockSize,
        keys,
        believedBlocks: predictedCachedTokens / blockSize,
        capacityBlocks: null,
      },
      this.#profile.predictedMs(chosen) ?? 0,
      nowMs,
    )
    this.#live.set(id, { inFlight, dispatch, underWay })
    this.#profile.dispatched(dispatch)
    this.#shared?.dispatches.onDispatched(dispatch)
    return { worker: slot, predictedCachedTokens, comingTokens }
  }

  firstToken(id: string, nowMs: number): void {
    const live = this.#live.get(id)
    if (live === undefined) return
    live.inFlight.prefilledTo(0)
    this.#sent.computed(live.underWay, nowMs)
    this.#profile.firstByte(live.dispatch, nowMs - live.dispatch.atMs)
    this.#shared?.dispatches.onFirstByte(live.dispatch, nowMs - live.dispatch.atMs)
  }

  generated(id: string, tokens: number): void {
    this.#live.get(id)?.inFlight.generated(tokens)
  }

  finished(id: string, cachedTokens: number, nowMs: number): void {
    const live = this.#live.get(id)
    if (live === undefined) return
    this.#live.delete(id)
    live.inFlight.release()
    this.#sent.answered(live.underWay, cachedTokens, nowMs)
    this.#sent.ended(live.underWay)
    this.#profile.finished(live.dispatch)
    this.#shared?.dispatches.onFinished(live.dispatch)
  }

  aborted(id: string): void {
    const live = this.#live.get(id)
    if (live === undefined) return
    this.#live.delete(id)
    live.inFlight.release()
    this.#sent.ended(live.underWay)
    this.#profile.finished(live.dispatch)
    this.#shared?.dispatches.onFinished(live.dispatch)
  }

  measured(index: number, load: MeasuredLoad): void {
    const worker = this.#workers[index]
    if (worker === undefined) return
    worker.load = load
    this.#load.read(worker)
  }

  applyEvents(worker: number, events: readonly KvEvent[]): void {
    if (this.#workers[worker]?.exact !== true || this.#losses[worker]?.areFrequent === true) return
    const sequence = this.#sequences[worker] as number
    this.#sequences[worker] = sequence + 1
    const mapEvents = events.map((event) => mapEvent(event, this.#scope))
    this.#map.apply({
      worker: worker as WorkerSlot,
      epoch: this.#epochs[worker] as number,
      sequence,
      events: mapEvents,
    })
  }

  left(worker: number): void {
    this.#present = this.#present.filter(({ slot }) => slot !== worker)
    this.#sent.forget(worker as WorkerSlot)
    this.#losses[worker]?.clear()
    this.#clear(worker)
  }

  joined(worker: number): void {
    this.#present = this.#workers.filter((one) => one.slot === worker || this.#present.includes(one))
  }

  forget(worker: number): void {
    const losses = this.#losses[worker] as Losses
    const isHeard = !losses.areFrequent
    losses.gap()
    if (isHeard) this.#clear(worker)
  }

  #clear(worker: number): void {
    const epoch = (this.#epochs[worker] as number) + 1
    this.#epochs[worker] = epoch
    this.#map.clear(worker as WorkerSlot, epoch)
  }
}

function mapEvent(event: KvEvent, scope: KeyScope): MapEvent {
  switch (event.kind) {
    case 'cleared':
      return { kind: 'clear' }
    case 'removed':
      return {
        kind: 'remove',
        tier: tierIndex[event.tier],
        group: 0,
        engineHashes: Uint32Array.of(event.low, event.high),
      }
    case 'stored':
      if (event.locals === undefined) throw new TypeError('blocks of a trace are told without their tokens')
      return {
        kind: 'store',
        tier: tierIndex[event.tier],
        group: 0,
        engineHashes: event.hashes,
        locals: event.locals,
        parent:
          event.parent === null
            ? { kind: 'root', keyLow: scope.rootLow, keyHigh: scope.rootHigh }
            : { kind: 'block', hashLow: event.parent[0], hashHigh: event.parent[1] },
      }
    default:
      return event satisfies never
  }
}

function simulatedWorker(slot: number, serial: number, blockSize: number, exact: boolean): Worker {
  const id = `http://simulated:${slot}`
  return {
    id,
    origin: id,
    basePath: '',
    rank: null,
    slot,
    serial,
    pool: 'model',
    engine: 'vllm',
    headers: {},
    labels: {},
    standing: new Standing(true),
    blockSize,
    capacityBlocks: null,
    load: null,
    degraded: null,
    chunks: null,
    lookedUp: null,
    exact,
    agreement: newAgreement(),
  }
}
