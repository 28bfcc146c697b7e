import { Approximate } from '../../src/map/approximate.ts'
import { Coming } from '../../src/map/coming.ts'
import { FlatMap } from '../../src/map/flat-map.ts'
import { SentPrompts } from '../../src/map/sent-prompts.ts'
import { ResponseOwners } from '../../src/pipeline/response-owners.ts'
import type { PolicyListener } from '../../src/replication/replica-dispatches.ts'
import { SharedState } from '../../src/replication/shared-state.ts'
import type { Dispatch } from '../../src/routing/policy.ts'
import { Agenda } from '../../src/replay/agenda.ts'
import { Fleet, InFlight } from '../../src/workers/fleet.ts'
import { FleetLoad } from '../../src/workers/fleet-load.ts'
import type { Worker } from '../../src/workers/worker.ts'
import { emptyMatch, slotOf } from './kv-tree.ts'
import { aWorker } from './routing.ts'

export const slots = 8
export const shareTtlMs = 2000
const beatMs = 100

/** What carries messages between replicas, and the clock that they live by. */
export interface Carrier {
  readonly nowMs: number
  readonly agenda: Pick<Agenda, 'at'>
  readonly replicas: Replica[]
  append(from: Replica, message: Buffer): void
}

/** The parts of one replica that share, over a log that the test holds in its hand. */
export class Replica {
  readonly fleet = new Fleet(slots)
  readonly coming = new Coming({ requests: 1024 })
  readonly map = new FlatMap({ budgetBytes: 1024 * 1024, maxWorkers: slots })
  readonly state: SharedState
  readonly load: FleetLoad
  readonly sent: SentPrompts
  readonly owners: ResponseOwners
  readonly skipped: string[] = []
  readonly #log: Carrier
  /** Requests that the policy has been told of, and not that they are over. */
  readonly told = new Set<Dispatch>()
  readonly firstBytesMs: number[] = []
  readonly policy: PolicyListener = {
    dispatched: (dispatch) => this.told.add(dispatch),
    firstByte: (_dispatch, ttftMs) => this.firstBytesMs.push(ttftMs),
    finished: (dispatch) => this.told.delete(dispatch),
  }
  isAlive = true

  constructor(id: string, log: Carrier, silent: readonly number[] = []) {
    this.#log = log
    const isAnnounced = (slot: number): boolean => !silent.includes(slot)
    const approximate = new Approximate({
      map: this.map,
      limits: { capacityBlocks: 1000, ttlMs: 1e9 },
      isAnnounced,
    })
    const { coming } = this
    this.state = new SharedState({
      replica: id,
      slots,
      counters: this.fleet.counters,
      isAnnounced,
      foreignPrompts: () => new SentPrompts({ coming, approximate }),
      policyOf: () => this.policy,
      secret: Buffer.from('secret'),
      responsesKept: 3,
      limits: { shareMs: 5, shareTtlMs },
      append: (message) => {
        if (this.isAlive) log.append(this, message)
      },
      later: (ms, run) => log.agenda.at(log.nowMs + ms, run),
      clock: () => log.nowMs,
      onSkipped: (reason) => this.skipped.push(reason),
    })
    this.load = new FleetLoad({ counters: this.fleet.counters, replicas: this.state.shares })
    this.sent = new SentPrompts({ coming, approximate, listener: this.state.prompts })
    this.owners = new ResponseOwners(this.fleet, 10, this.state.owners)
    log.replicas.push(this)
    this.#beat()
  }

  add(index: number, given: Partial<Worker> = {}): Worker {
    const worker = this.fleet.add((slot, serial) => aWorker(index, { slot, serial, ...given }))
    if (worker === null) throw new Error('the fleet is full')
    this.map.addWorker(slotOf(worker.slot), { countsStores: true, blockSize: 16 })
    this.state.addWorker(worker)
    return worker
  }

  remove(worker: Worker): void {
    this.fleet.remove(worker)
    this.map.removeWorker(slotOf(worker.slot))
    this.state.removeWorker(worker)
  }

  send(slot: number, uncachedTokens = 60): InFlight {
    return new InFlight(this.fleet.counters, slot, { promptTokens: 100, uncachedTokens, blockSize: 16, sequences: 1 })
  }

  /** Tells our own policy and the others of a request. */
  dispatch({ serial }: Worker): Dispatch {
    const tokens = { promptTokens: 100, uncachedTokens: 60, loadTokens: 0.5, prefillTokensAhead: 7, requestsAhead: 2 }
    const names = { keys: null, adapter: null, session: '0123456789abcdef', maxTokens: null }
    const dispatch = { serial, ...tokens, ...names, stream: true, atMs: this.#log.nowMs }
    this.policy.dispatched(dispatch)
    this.state.dispatches.onDispatched(dispatch)
    return dispatch
  }

  finish(dispatch: Dispatch): void {
    this.policy.finished(dispatch)
    this.state.dispatches.onFinished(dispatch)
  }

  /** In flight on a worker, as decisions see it. */
  figures(slot: number): readonly number[] {
    return [this.load.requests(slot), this.load.prefillTokens(slot), this.load.decodeBlocks(slot)]
  }

  /** Blocks of a prompt that a worker holds, and those that are coming, and sent beforehand `believedBlocks` of them held. */
  known(keys: Uint32Array, slot: number): readonly number[] {
    const match = emptyMatch(slots)
    const out = new Uint32Array(slots)
    const queries = [{ blockSize: 16, keys }]
    this.map.match(queries, match)
    this.coming.match(queries, match, this.#log.nowMs, out)
    return [match.gpu[slot] ?? 0, out[slot] ?? 0]
  }

  /** As a process that was killed: it says nothing and hears nothing any more. */
  kill(): void {
    this.isAlive = false
  }

  #beat(): void {
    this.#log.agenda.at(this.#log.nowMs + beatMs, () => {
      if (!this.isAlive) return
      this.state.beat()
      this.#beat()
    })
  }
}

/** Stands in for the stream in Redis: what one appends all read, `delayMs` later, unless `fate` says otherwise. */
export class Log implements Carrier {
  nowMs = 0
  delayMs = 1
  readonly agenda = new Agenda()
  readonly replicas: Replica[] = []
  readonly messages: Buffer[] = []
  /** How many times, and how much later, a message reaches a replica. */
  fate: (to: Replica) => readonly number[] = () => [0]

  append(_from: Replica, message: Buffer): void {
    this.messages.push(message)
    for (const replica of this.replicas) {
      for (const furtherMs of this.fate(replica)) {
        this.agenda.at(this.nowMs + this.delayMs + furtherMs, () => {
          if (replica.isAlive) replica.state.receive(message)
        })
      }
    }
  }

  pass(ms: number): void {
    const untilMs = this.nowMs + ms
    while (this.agenda.nextMs <= untilMs) {
      this.nowMs = this.agenda.nextMs
      this.agenda.run(this.nowMs)
    }
    this.nowMs = untilMs
  }
}
