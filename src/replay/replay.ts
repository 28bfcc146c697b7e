import { createKeyMaker, type KeyScope } from '../kv/keys.ts'
import type { ProfileChoice } from '../routing/catalogue.ts'
import type { PolicyPlugin } from '../routing/policy.ts'
import { engineDefaults, type EngineOptions } from '../simulator/engine-options.ts'
import type { KvEvent } from '../simulator/kv-event.ts'
import type { GenerationResult } from '../simulator/sequence.ts'
import { Agenda } from './agenda.ts'
import { Arrivals, thinkMsOf, type LoadOptions, type Visit } from './arrivals.ts'
import type { Choice, Chooser, GivenPrompt } from './chooser.ts'
import { EngineFleet } from './engine-fleet.ts'
import { EventFeed } from './event-feed.ts'
import { mostWorkers, schedule, type FaultPort, type ReplayFault } from './faults.ts'
import { Oracle } from './oracle.ts'
import { SessionPrompts, strangePrompt } from './prompts.ts'
import { Replicated } from './replicated.ts'
import { createRouter, type RouterOptions } from './router.ts'
import type { Tiers } from './tiers.ts'
import type { Trace, TraceRequest } from './traces/trace.ts'

export interface ReplayOptions {
  readonly trace: Trace
  readonly load?: LoadOptions
  readonly workers: number
  readonly engine: Partial<EngineOptions>
  /** How fast each worker is, beside the engine's figures; 1 where none is given. */
  readonly speeds?: readonly number[]
  /** A routing profile, or the greedy oracle that sees the engines' true caches and queues. */
  readonly policy: string | ProfileChoice
  readonly plugins?: readonly PolicyPlugin[]
  readonly router?: RouterOptions
  /** Caches beside the GPU's. */
  readonly tiers?: Tiers
  readonly faults?: readonly ReplayFault[]
  /** Without a first token after so long the client gives up: the request is aborted and counts as a miss. */
  readonly timeoutMs?: number
  /** Of who comes when and of the policy's randomness. */
  readonly seed: number
  /** Computes each step of an engine on its own, which gives the same result later: what tests compare with. */
  readonly stepByStep?: boolean
  /** Called now and then; false ends the run with what is done so far. */
  readonly onProgress?: (progress: Progress) => boolean
}

export interface Progress {
  readonly nowMs: number
  readonly answered: number
}

/** One request as it went, in the trace's time. */
export interface ReplayRow {
  readonly visit: Visit
  readonly turn: number
  readonly worker: number
  readonly sentMs: number
  readonly ttftMs: number
  /** Mean time between tokens; 0 for an answer of one. */
  readonly itlMs: number
  readonly endedMs: number
  readonly promptTokens: number
  readonly outputTokens: number
  readonly predictedCachedTokens: number
  readonly comingTokens: number
  readonly cachedTokens: number
  /** Over HTTP a request may also be refused for want of room, or fail in another way. */
  readonly outcome: 'answered' | 'timed out' | 'refused' | 'failed'
}

export interface ReplayRun {
  /** In the order of their ends. */
  readonly rows: readonly ReplayRow[]
  /** False where it was ended before its time. */
  readonly complete: boolean
  /** How long each worker computed; empty where that cannot be known. */
  readonly busyMs: readonly number[]
  readonly endedMs: number
}

export const oraclePolicy = 'oracle'

/** Between two calls of what replicas do by the clock. */
const beatMs = 100
const progressEvery = 256

/**
 * Plays a trace against simulated engines in virtual time, with the real map, keys, accounting and policies between them. Equal
 * options give equal results, down to the last bit. Throws RouterError CONFIG_INVALID for an unknown policy.
 */
export async function replay(options: ReplayOptions): Promise<ReplayRun> {
  const blockSize = options.engine.blockSize ?? engineDefaults.blockSize
  const keys = await createKeyMaker(new Uint8Array(32).fill(options.seed & 255))
  const run = new Run(options, keys.scope({ model: 'model', blockSize, adapter: null }))
  return run.toTheEnd()
}

interface Running {
  readonly id: string
  readonly visit: Visit
  readonly prompts: SessionPrompts
  readonly prompt: GivenPrompt
  readonly turn: number
  readonly request: TraceRequest
  /** First sent, also where an engine died and it was sent again. */
  readonly sentMs: number
  choice: Choice
  /** NaN until its first token has come. */
  firstTokenMs: number
  /** Tokens that the router was told of. */
  toldTokens: number
}

class Run implements FaultPort {
  readonly workers: number
  readonly #options: ReplayOptions
  readonly #load: LoadOptions
  readonly #agenda = new Agenda()
  readonly #arrivals: Arrivals
  readonly #fleet: EngineFleet
  readonly #feed: EventFeed
  readonly #scope: KeyScope
  readonly #running = new Map<string, Running>()
  readonly #rows: ReplayRow[] = []
  #chooser: Chooser
  /** By worker, how often its engine died; what an engine told before is not heard after. */
  readonly #deaths: number[]
  readonly #away = new Set<number>()
  #goingOn = 0
  #serial = 0
  #nowMs = 0

  constructor(options: ReplayOptions, scope: KeyScope) {
    const { faults = [], seed, workers, engine, speeds = [], policy, stepByStep = false } = options
    this.workers = workers
    this.#options = options
    this.#load = options.load ?? {}
    this.#scope = scope
    const most = mostWorkers(workers, faults)
    this.#deaths = new Array<number>(most).fill(0)
    this.#arrivals = new Arrivals(options.trace, this.#load, seed)
    this.#feed = new EventFeed(faults, most, seed)
    this.#fleet = new EngineFleet({
      ...{ workers: most, engine, speeds, seed, stepByStep, tiers: options.tiers ?? null },
      onFirstToken: (id, atMs) => this.#begun(id, atMs),
      onFinished: (result) => this.#finished(result),
      ...(policy === oraclePolicy ? {} : { onEvents: (...told) => this.#told(...told) }),
    })
    this.#chooser = this.#newChooser()
    schedule(faults, this, seed)
    for (const visit of this.#arrivals.first) this.#begin(visit)
    if (policy === oraclePolicy) return
    this.#agenda.at(0, () => this.#readLoads())
    this.#agenda.at(0, () => this.#beat())
  }

  /** From event to event: an engine has something to tell, or something on the agenda is due. */
  toTheEnd(): ReplayRun {
    const { onProgress } = this.#options
    let told = 0
    let complete = true
    for (;;) {
      const nextMs = Math.min(this.#agenda.nextMs, this.#fleet.nextMs)
      if (nextMs === Infinity) break
      this.#nowMs = nextMs
      this.#fleet.advanceTo(nextMs)
      this.#agenda.run(nextMs)
      if (onProgress === undefined || this.#rows.length < told + progressEvery) continue
      told = this.#rows.length
      complete = onProgress({ nowMs: this.#nowMs, answered: told })
      if (!complete) break
    }
    // Clients’ patience is on the agenda, too, and runs out for long after they have got their answers.
    const endedMs = complete ? (this.#rows.at(-1)?.endedMs ?? 0) : this.#nowMs
    return { rows: this.#rows, complete, busyMs: this.#fleet.busyMs, endedMs }
  }

  at(ms: number, run: () => void): void {
    this.#agenda.at(ms, run)
  }

  /** What the engine had under way is sent elsewhere: to its clients nothing had come yet, or they ask again. */
  stop(worker: number): void {
    this.#deaths[worker] = (this.#deaths[worker] as number) + 1
    this.#fleet.replace(worker, this.#nowMs)
    this.#feed.forget(worker)
    this.#away.add(worker)
    this.#chooser.left(worker)
    for (const running of this.#running.values()) {
      if (running.choice.worker !== worker) continue
      this.#chooser.aborted(running.id)
      running.firstTokenMs = NaN
      running.toldTokens = 0
      this.#dispatch(running)
    }
  }

  start(worker: number): void {
    this.#away.delete(worker)
    this.#chooser.joined(worker)
  }

  slowDown(worker: number, factor: number): void {
    this.#fleet.engines[worker]?.slowDown(factor, this.#nowMs)
  }

  restartRouter(): void {
    if (this.#options.policy === oraclePolicy) return
    this.#chooser = this.#newChooser()
    for (const worker of this.#away) this.#chooser.left(worker)
    this.#feed.retell(this.#chooser)
  }

  sendForeign(worker: number, promptTokens: number, outputTokens: number): void {
    if (this.#away.has(worker)) return
    const own = this.#serial++
    const given = strangePrompt(promptTokens, outputTokens, own, this.#scope)
    this.#fleet.engines[worker]?.add({ id: `foreign-${own}`, tokens: noTokens, outputTokens, given }, this.#nowMs)
  }

  #newChooser(): Chooser {
    const { engine, router = {}, policy, plugins, seed, tiers } = this.#options
    if (policy === oraclePolicy) return new Oracle(this.#fleet.engines, tiers ?? null)
    return createRouter({
      ...{ options: router, policy, workers: this.#deaths.length, scope: this.#scope, agenda: this.#agenda, seed },
      ...(plugins === undefined ? {} : { plugins }),
      ...(tiers === undefined ? {} : { tiers: tiers.settings }),
      clock: () => this.#nowMs,
      capacityBlocks: engine.capacityBlocks ?? engineDefaults.capacityBlocks,
    })
  }

  #told(worker: number, events: readonly KvEvent[], atMs: number): void {
    const { router: { eventDelayMs = 1 } = {} } = this.#options
    const deaths = this.#deaths[worker]
    const later = (ms: number, run: () => void): void =>
      this.#agenda.at(this.#nowMs + ms, () => {
        if (this.#deaths[worker] === deaths) run()
      })
    this.#agenda.at(atMs + eventDelayMs, () => {
      if (this.#deaths[worker] === deaths) this.#feed.heard(worker, events, this.#chooser, later)
    })
  }

  /** Tells replicas the time while anything goes on. */
  #beat(): void {
    if (!(this.#chooser instanceof Replicated)) return
    this.#chooser.beat()
    if (this.#goingOn > 0) this.#agenda.at(this.#nowMs + beatMs, () => this.#beat())
  }

  #readLoads(): void {
    for (const [worker, { stats }] of this.#fleet.engines.entries()) {
      const { running, waiting, kvUsage } = stats
      this.#chooser.measured(worker, { running, waiting, kvUsage, source: 'poll', atMs: this.#nowMs })
    }
    this.#tellGenerated()
    const { router: { loadIntervalMs = 500 } = {} } = this.#options
    if (this.#goingOn > 0 && loadIntervalMs < Infinity)
      this.#agenda.at(this.#nowMs + loadIntervalMs, () => this.#readLoads())
  }

  #tellGenerated(): void {
    for (const running of this.#running.values()) {
      if (Number.isNaN(running.firstTokenMs)) continue
      const tokens = this.#fleet.engines[running.choice.worker]?.generatedTokens(running.id) ?? 0
      this.#chooser.generated(running.id, tokens - running.toldTokens)
      running.toldTokens = tokens
    }
  }

  #begin(visit: Visit): void {
    this.#goingOn++
    const scope = { blockTokens: this.#options.trace.blockTokens, keys: this.#scope }
    const prompts = new SessionPrompts(visit.session, visit.copy, scope)
    this.#agenda.at(visit.startMs, () => this.#send(visit, prompts, visit.turn))
  }

  #send(visit: Visit, prompts: SessionPrompts, turn: number): void {
    const request = visit.session.requests[turn]
    const { durationMs = Infinity } = this.#load
    if (request === undefined || this.#nowMs >= durationMs) {
      this.#leave(visit)
      return
    }
    const serial = this.#serial++
    const id = String(serial)
    const running: Running = {
      ...{ id, visit, prompts, prompt: prompts.of(turn, serial), turn, request },
      ...{ sentMs: this.#nowMs, choice: nowhere, firstTokenMs: NaN, toldTokens: 0 },
    }
    this.#running.set(id, running)
    this.#dispatch(running)
    const { timeoutMs } = this.#options
    if (timeoutMs !== undefined) this.#agenda.at(this.#nowMs + timeoutMs, () => this.#giveUp(id, timeoutMs))
  }

  #dispatch(running: Running): void {
    const { id, visit, prompt, request } = running
    const session = visit.session.startMs === null ? `${visit.session.id}/${visit.copy}` : null
    running.choice = this.#chooser.choose({ id, prompt, session }, this.#nowMs)
    const engine = this.#fleet.engines[running.choice.worker]
    engine?.add({ id, tokens: noTokens, outputTokens: request.outputTokens, given: prompt }, this.#nowMs)
  }

  #begun(id: string, atMs: number): void {
    const running = this.#running.get(id)
    if (running === undefined) return
    running.firstTokenMs = atMs
    this.#chooser.firstToken(id, atMs)
  }

  /** The client of a request that has no first token yet has waited long enough; its session goes on. */
  #giveUp(id: string, timeoutMs: number): void {
    const running = this.#running.get(id)
    if (running === undefined || !Number.isNaN(running.firstTokenMs)) return
    this.#running.delete(id)
    this.#fleet.engines[running.choice.worker]?.abort(id, this.#nowMs)
    this.#chooser.aborted(id)
    this.#rows.push({ ...rowOf(running), ttftMs: timeoutMs, endedMs: this.#nowMs, outcome: 'timed out' })
    this.#goOn(running, this.#nowMs)
  }

  #finished({ id, cachedTokens, finishedMs }: GenerationResult): void {
    const running = this.#running.get(id)
    // Requests of others are nobody's here.
    if (running === undefined) return
    this.#running.delete(id)
    this.#chooser.finished(id, cachedTokens, finishedMs)
    const { sentMs, firstTokenMs, request } = running
    const { outputTokens } = request
    this.#rows.push({
      ...rowOf(running),
      ttftMs: firstTokenMs - sentMs,
      itlMs: outputTokens === 1 ? 0 : (finishedMs - firstTokenMs) / (outputTokens - 1),
      ...{ cachedTokens, endedMs: finishedMs, outcome: 'answered' },
    })
    this.#goOn(running, finishedMs)
  }

  #goOn({ visit, prompts, turn }: Running, nowMs: number): void {
    const next = visit.session.requests[turn + 1]
    if (next === undefined) this.#leave(visit, nowMs)
    else this.#agenda.at(nowMs + thinkMsOf(next, this.#load), () => this.#send(visit, prompts, turn + 1))
  }

  #leave(visit: Visit, nowMs = this.#nowMs): void {
    this.#goingOn--
    const next = visit.session.startMs === null ? this.#arrivals.after(nowMs) : null
    if (next !== null) this.#begin(next)
  }
}

const noTokens = new Uint32Array(0)
const nowhere: Choice = { worker: -1, predictedCachedTokens: 0, comingTokens: 0 }

function rowOf({ visit, turn, sentMs, request, choice }: Running): Omit<ReplayRow, 'ttftMs' | 'endedMs' | 'outcome'> {
  const { promptTokens, outputTokens } = request
  return { visit, turn, sentMs, promptTokens, outputTokens, ...choice, cachedTokens: 0, itlMs: 0 }
}
