import { createKeyMaker, type KeyScope } from '../kv/keys.ts'
import { createProfile, type ProfileChoice } from '../routing/catalogue.ts'
import type { PolicyPlugin } from '../routing/policy.ts'
import type { Profile } from '../routing/profile.ts'
import { Engine, engineDefaults, type EngineOptions } from '../simulator/engine.ts'
import type { KvEvent } from '../simulator/kv-event.ts'
import { mix32, seededRandom, type Random } from '../simulator/random.ts'
import type { GenerationResult } from '../simulator/sequence.ts'
import { Agenda } from './agenda.ts'
import { Arrivals, thinkMsOf, type LoadOptions, type Visit } from './arrivals.ts'
import type { Choice, Chooser, GivenPrompt } from './chooser.ts'
import { Oracle } from './oracle.ts'
import { SessionPrompts } from './prompts.ts'
import { Replicated, type ReplicasOptions } from './replicated.ts'
import { Routed, type Sharing } from './routed.ts'
import type { Trace, TraceRequest } from './traces/trace.ts'

type Policy = string | ProfileChoice

export interface ReplayOptions {
  readonly trace: Trace
  readonly load?: LoadOptions
  readonly workers: number
  readonly engine: Partial<EngineOptions>
  /** How fast each worker is, beside the engine's figures; 1 where none is given. */
  readonly speeds?: readonly number[]
  /** A routing profile, or the greedy oracle that sees the engines' true caches and queues. */
  readonly policy: Policy
  readonly plugins?: readonly PolicyPlugin[]
  readonly router?: RouterOptions
  /** Without a first token after so long the client gives up: the request is aborted and counts as a miss. */
  readonly timeoutMs?: number
  /** Of who comes when and of the policy's randomness. */
  readonly seed: number
  /** Computes each step of an engine on its own, which gives the same result later: what tests compare with. */
  readonly stepByStep?: boolean
  /** Called now and then; false ends the run with what is done so far. */
  readonly onProgress?: (progress: Progress) => boolean
}

export interface RouterOptions {
  /** From a step's end until the router has applied its KV events. Default 1 ms. */
  readonly eventDelayMs?: number
  /** Between two readings of the engines' load. Default 500 ms. */
  readonly loadIntervalMs?: number
  /** So many workers, the first ones, publish no events; what they hold is concluded from what they are sent. */
  readonly withoutEvents?: number
  /** Several replicas of the router, each request through any of them; absent: one. */
  readonly replicas?: ReplicasOptions
}

export interface Progress {
  readonly nowMs: number
  readonly answered: number
}

/** One request as it went, in virtual time. */
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
  readonly outcome: 'answered' | 'timed out'
}

export interface ReplayRun {
  /** In the order of their ends. */
  readonly rows: readonly ReplayRow[]
  /** False where it was ended before its time. */
  readonly complete: boolean
  /** How long each worker computed. */
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
  /** Whether its first token has come. */
  begun: boolean
  readonly visit: Visit
  readonly prompts: SessionPrompts
  readonly turn: number
  readonly request: TraceRequest
  readonly sentMs: number
  readonly choice: Choice
}

class Run {
  readonly #options: ReplayOptions
  readonly #load: LoadOptions
  readonly #scope: KeyScope
  readonly #agenda = new Agenda()
  readonly #arrivals: Arrivals
  readonly #engines: readonly Engine[]
  readonly #chooser: Chooser
  readonly #running = new Map<string, Running>()
  readonly #rows: ReplayRow[] = []
  #goingOn = 0
  #serial = 0
  #nowMs = 0

  constructor(options: ReplayOptions, scope: KeyScope) {
    this.#options = options
    this.#load = options.load ?? {}
    this.#scope = scope
    this.#arrivals = new Arrivals(options.trace, this.#load, options.seed)
    this.#engines = Array.from({ length: options.workers }, (_, worker) => this.#createEngine(worker))
    this.#chooser = options.policy === oraclePolicy ? new Oracle(this.#engines) : this.#router(options.policy)
    for (const visit of this.#arrivals.first) this.#begin(visit)
    if (options.policy !== oraclePolicy) this.#agenda.at(0, () => this.#readLoads())
  }

  /** From event to event: an engine has something to tell, or something on the agenda is due. */
  toTheEnd(): ReplayRun {
    const { onProgress } = this.#options
    let told = 0
    let complete = true
    for (;;) {
      let nextMs = this.#agenda.nextMs
      for (const engine of this.#engines) nextMs = Math.min(nextMs, engine.nextEventMs() ?? Infinity)
      if (nextMs === Infinity) break
      this.#nowMs = nextMs
      for (const engine of this.#engines) engine.advanceTo(nextMs)
      this.#agenda.run(nextMs)
      if (onProgress === undefined || this.#rows.length < told + progressEvery) continue
      told = this.#rows.length
      complete = onProgress({ nowMs: this.#nowMs, answered: told })
      if (!complete) break
    }
    const busyMs = this.#engines.map((engine) => engine.stats.busyMs)
    return { rows: this.#rows, complete, busyMs, endedMs: this.#nowMs }
  }

  #createEngine(worker: number): Engine {
    const { engine, speeds, seed, policy, stepByStep = false, router: { eventDelayMs = 1 } = {} } = this.#options
    const figures = { ...engineDefaults, ...engine }
    const speed = speeds?.[worker] ?? 1
    const onEvents = (events: readonly KvEvent[], atMs: number): void =>
      this.#agenda.at(atMs + eventDelayMs, () => this.#chooser.applyEvents(worker, events))
    return new Engine({
      seed,
      ...engine,
      prefillTokensPerSecond: figures.prefillTokensPerSecond * speed,
      stepBaseMs: figures.stepBaseMs / speed,
      decodeMsPerRequest: figures.decodeMsPerRequest / speed,
      ...(stepByStep ? { onToken: () => undefined } : {}),
      onFirstToken: (id, atMs) => this.#begun(id, atMs),
      onFinished: (result) => this.#finished(result),
      ...(policy === oraclePolicy ? {} : { onEvents }),
    })
  }

  #router(policy: Policy): Chooser {
    const { workers, engine, seed, router: { withoutEvents = 0, replicas } = {} } = this.#options
    const routed = (random: Random, sharing?: Sharing): Routed =>
      new Routed({
        ...{ workers, withoutEvents, scope: this.#scope, profile: this.#profile(policy, random) },
        predictsOnRoute: true,
        capacityBlocks: engine.capacityBlocks ?? engineDefaults.capacityBlocks,
        ...(sharing === undefined ? {} : { sharing }),
      })
    if (replicas === undefined) return routed(seededRandom(seed))
    const replicated = new Replicated({
      ...replicas,
      ...{ agenda: this.#agenda, clock: () => this.#nowMs, random: seededRandom(seed) },
      create: (index, sharing) => routed(seededRandom(mix32(seed + index)), sharing),
    })
    this.#agenda.at(0, () => this.#beat(replicated))
    return replicated
  }

  #profile(policy: Policy, random: Random): Profile {
    const { workers, plugins } = this.#options
    return createProfile(policy, {
      context: { clock: () => this.#nowMs, random: () => random.next() },
      workers,
      ...(plugins === undefined ? {} : { more: plugins }),
      fault: (plugin, cause) => {
        throw new Error(`The policy plugin "${plugin}" failed`, { cause })
      },
    })
  }

  /** Tells replicas the time while anything goes on. */
  #beat(replicated: Replicated): void {
    replicated.beat()
    if (this.#goingOn > 0) this.#agenda.at(this.#nowMs + beatMs, () => this.#beat(replicated))
  }

  #readLoads(): void {
    for (const [worker, { stats }] of this.#engines.entries()) {
      const { running, waiting, kvUsage } = stats
      this.#chooser.measured(worker, { running, waiting, kvUsage, source: 'poll', atMs: this.#nowMs })
    }
    const { router: { loadIntervalMs = 500 } = {} } = this.#options
    if (this.#goingOn > 0 && loadIntervalMs < Infinity)
      this.#agenda.at(this.#nowMs + loadIntervalMs, () => this.#readLoads())
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
    const prompt: GivenPrompt = prompts.of(turn, serial)
    const { promptTokens, outputTokens } = request
    const session = visit.session.startMs === null ? `${visit.session.id}/${visit.copy}` : null
    const choice = this.#chooser.choose({ id, promptTokens, tokens: noTokens, prompt, session }, this.#nowMs)
    this.#running.set(id, { begun: false, visit, prompts, turn, request, sentMs: this.#nowMs, choice })
    this.#engines[choice.worker]?.add({ id, tokens: noTokens, outputTokens, given: prompt }, this.#nowMs)
    const { timeoutMs } = this.#options
    if (timeoutMs !== undefined) this.#agenda.at(this.#nowMs + timeoutMs, () => this.#giveUp(id, timeoutMs))
  }

  #begun(id: string, atMs: number): void {
    const running = this.#running.get(id)
    if (running !== undefined) running.begun = true
    this.#chooser.firstToken(id, atMs)
  }

  /** The client of a request that has no first token yet has waited long enough; its session goes on. */
  #giveUp(id: string, timeoutMs: number): void {
    const running = this.#running.get(id)
    if (running === undefined || running.begun) return
    this.#running.delete(id)
    const { visit, turn, sentMs, request, choice } = running
    this.#engines[choice.worker]?.abort(id, this.#nowMs)
    this.#chooser.aborted(id)
    const { promptTokens, outputTokens } = request
    this.#rows.push({
      ...{ visit, turn, sentMs, ttftMs: timeoutMs, itlMs: 0, promptTokens, outputTokens, cachedTokens: 0 },
      ...choice,
      endedMs: this.#nowMs,
      outcome: 'timed out',
    })
    this.#goOn(running, this.#nowMs)
  }

  #finished({ id, ttftMs, cachedTokens, finishedMs }: GenerationResult): void {
    const running = this.#running.get(id)
    if (running === undefined) throw new Error(`"${id}" ended and was not under way`)
    this.#running.delete(id)
    this.#chooser.finished(id, cachedTokens, finishedMs)
    const { visit, turn, sentMs, request, choice } = running
    const { promptTokens, outputTokens } = request
    const itlMs = outputTokens === 1 ? 0 : (finishedMs - sentMs - ttftMs) / (outputTokens - 1)
    this.#rows.push({
      ...{ visit, turn, sentMs, ttftMs, itlMs, promptTokens, outputTokens, cachedTokens, endedMs: finishedMs },
      ...choice,
      outcome: 'answered',
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
