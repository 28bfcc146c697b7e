import { createKeyMaker } from '../kv/keys.ts'
import { createProfile, type ProfileChoice } from '../routing/catalogue.ts'
import type { Profile } from '../routing/profile.ts'
import { Engine, engineDefaults, type EngineOptions } from '../simulator/engine.ts'
import type { KvEvent } from '../simulator/kv-event.ts'
import { mix32, seededRandom, type Random } from '../simulator/random.ts'
import type { GenerationResult } from '../simulator/sequence.ts'
import type { Conversation } from '../simulator/workload.ts'
import { Agenda } from './agenda.ts'
import type { Choice, Chooser } from './chooser.ts'
import { Oracle } from './oracle.ts'
import { Replicated, type ReplicasOptions } from './replicated.ts'
import { Routed, type Sharing } from './routed.ts'

export interface VirtualOptions {
  /** Each waits for its answers: a turn is sent `thinkMs` after the answer to the turn before it. */
  readonly conversations: readonly Conversation<Uint32Array>[]
  readonly workers: number
  readonly engine: Partial<Omit<EngineOptions, 'onToken' | 'onFinished' | 'onEvents'>>
  /** A routing profile, or the greedy oracle that sees the engines' true caches and queues. */
  readonly policy: string | ProfileChoice
  /** From a step's end until the router has applied its KV events. */
  readonly eventDelayMs?: number
  /** So many workers, the first ones, publish no events; what they hold is concluded from what they are sent. */
  readonly withoutEvents?: number
  /** Whether a prompt counts as coming on its worker once it was sent. */
  readonly predictsOnRoute?: boolean
  /** Conversations that go straight to one worker, past the router, and are not among the results. */
  readonly others?: { readonly worker: number; readonly conversations: readonly Conversation<Uint32Array>[] }
  /** Several replicas of the router, each request through any of them; absent: one. */
  readonly replicas?: ReplicasOptions
  /** Between two readings of the engines' load. */
  readonly loadIntervalMs?: number
  /** Of the answers and of the policy's randomness. */
  readonly seed: number
}

/** One request as it went, in virtual time. */
export interface VirtualRow {
  readonly id: string
  readonly worker: number
  readonly sentMs: number
  readonly ttftMs: number
  readonly promptTokens: number
  readonly predictedCachedTokens: number
  /** Further tokens that were on their way when it was sent. */
  readonly comingTokens: number
  readonly cachedTokens: number
}

export interface VirtualResult {
  readonly policy: string
  /** In the order of their ends. */
  readonly rows: readonly VirtualRow[]
  /** Times to first token, least first. */
  readonly ttftMs: Float64Array
  readonly meanTtftMs: number
  /** Cached prompt tokens over all prompt tokens. */
  readonly hitRatio: number
  readonly requestsPerWorker: readonly number[]
  /** Prompt tokens that each worker had to compute. */
  readonly computedPerWorker: readonly number[]
  /** 1 − Σ|predicted − actual| / Σ max(predicted, actual) cached tokens (decision 12), coming ones where they came. */
  readonly agreement: number
}

export const oraclePolicy = 'oracle'

const defaultEventDelayMs = 1
const defaultLoadIntervalMs = 500
/** Between two calls of what replicas do by the clock. */
const beatMs = 100

/**
 * Runs a workload against simulated engines in virtual time, with the real map, keys, accounting and policies between
 * them. Equal options give equal results, down to the last bit. Throws RouterError CONFIG_INVALID for an unknown policy.
 */
export async function runVirtual(options: VirtualOptions): Promise<VirtualResult> {
  const run = new VirtualRun(options)
  await run.open()
  run.toTheEnd()
  return summary(options, run.rows)
}

interface Running {
  readonly conversation: Conversation<Uint32Array>
  readonly turn: number
  readonly tokens: Uint32Array
  readonly sentMs: number
  /** Null where it went past the router. */
  readonly choice: Choice | null
}

class VirtualRun {
  readonly rows: VirtualRow[] = []
  readonly #options: VirtualOptions
  readonly #agenda = new Agenda()
  readonly #engines: readonly Engine[]
  readonly #running = new Map<string, Running>()
  #chooser: Chooser
  /** Conversations that are not at their end. */
  #goingOn: number
  #nowMs = 0

  constructor(options: VirtualOptions) {
    this.#options = options
    this.#engines = Array.from({ length: options.workers }, (_, worker) => this.#createEngine(worker))
    this.#chooser = new Oracle(this.#engines)
    const conversations = [...options.conversations, ...(options.others?.conversations ?? [])]
    this.#goingOn = conversations.length
    for (const conversation of conversations) {
      this.#agenda.at(conversation.startMs, () => this.#send(conversation, 0, conversation.system))
    }
    if (options.policy !== oraclePolicy) this.#agenda.at(0, () => this.#readLoads())
  }

  /** Puts the router's parts in place of the oracle, unless that was asked for. */
  async open(): Promise<void> {
    const { policy, seed, workers, engine, withoutEvents = 0, predictsOnRoute = true } = this.#options
    if (policy === oraclePolicy) return
    const keys = await createKeyMaker(new Uint8Array(32).fill(seed & 255))
    const blockSize = engine.blockSize ?? engineDefaults.blockSize
    const scope = keys.scope({ model: 'model', blockSize, adapter: null })
    const routed = (random: Random, sharing?: Sharing): Routed =>
      new Routed({
        workers,
        clock: () => this.#nowMs,
        profile: this.#profile(policy, random),
        scope,
        withoutEvents,
        predictsOnRoute,
        capacityBlocks: engine.capacityBlocks ?? engineDefaults.capacityBlocks,
        ...(sharing === undefined ? {} : { sharing }),
      })
    const { replicas } = this.#options
    if (replicas === undefined) {
      this.#chooser = routed(seededRandom(seed))
      return
    }
    const replicated = new Replicated({
      ...replicas,
      ...{ agenda: this.#agenda, clock: () => this.#nowMs, random: seededRandom(seed) },
      create: (index, sharing) => routed(seededRandom(mix32(seed + index)), sharing),
    })
    this.#chooser = replicated
    this.#agenda.at(0, () => this.#beat(replicated))
  }

  #profile(policy: string | ProfileChoice, random: Random): Profile {
    return createProfile(policy, {
      context: { clock: () => this.#nowMs, random: () => random.next() },
      workers: this.#options.workers,
      fault: (plugin, cause) => {
        throw new Error(`The policy plugin "${plugin}" failed`, { cause })
      },
    })
  }

  /** Tells replicas the time while any conversation goes on. */
  #beat(replicated: Replicated): void {
    replicated.beat()
    if (this.#goingOn > 0) this.#agenda.at(this.#nowMs + beatMs, () => this.#beat(replicated))
  }

  /** From event to event: an engine's step ends, or something on the agenda is due. */
  toTheEnd(): void {
    for (;;) {
      const stepMs = Math.min(...this.#engines.map((engine) => engine.nextEventMs() ?? Infinity))
      const nextMs = Math.min(stepMs, this.#agenda.nextMs)
      if (nextMs === Infinity) return
      this.#nowMs = nextMs
      for (const engine of this.#engines) engine.advanceTo(nextMs)
      this.#agenda.run(nextMs)
    }
  }

  #createEngine(worker: number): Engine {
    const { engine, seed, policy, eventDelayMs = defaultEventDelayMs } = this.#options
    const onEvents = (events: readonly KvEvent[], atMs: number): void =>
      this.#agenda.at(atMs + eventDelayMs, () => this.#chooser.applyEvents(worker, events))
    return new Engine({
      seed,
      ...engine,
      onToken: ({ id, generatedTokens }, _token, atMs) => {
        if (generatedTokens === 1) this.#chooser.firstToken(id, atMs)
      },
      onFinished: (result) => this.#finished(result),
      ...(policy === oraclePolicy ? {} : { onEvents }),
    })
  }

  /** Goes on while there is anything else to come. */
  #readLoads(): void {
    for (const [worker, { stats }] of this.#engines.entries()) {
      const { running, waiting, kvUsage } = stats
      this.#chooser.measured(worker, { running, waiting, kvUsage, source: 'poll', atMs: this.#nowMs })
    }
    if (this.#goingOn === 0) return
    const { loadIntervalMs = defaultLoadIntervalMs } = this.#options
    if (loadIntervalMs < Infinity) this.#agenda.at(this.#nowMs + loadIntervalMs, () => this.#readLoads())
  }

  #send(conversation: Conversation<Uint32Array>, turn: number, history: Uint32Array): void {
    const asked = conversation.turns[turn]
    if (asked === undefined) {
      this.#goingOn--
      return
    }
    const id = `${conversation.id}/${turn}`
    const tokens = joined(history, asked.user)
    const { others } = this.#options
    const isOthers = others?.conversations.includes(conversation) === true
    const choice = isOthers ? null : this.#chooser.choose({ id, tokens, promptTokens: tokens.length }, this.#nowMs)
    this.#running.set(id, { conversation, turn, tokens, sentMs: this.#nowMs, choice })
    const worker = choice === null ? others?.worker : choice.worker
    this.#engines[worker ?? 0]?.add({ id, tokens, outputTokens: asked.outputTokens }, this.#nowMs)
  }

  #finished({ id, ttftMs, promptTokens, cachedTokens, generated, finishedMs }: GenerationResult): void {
    const running = this.#running.get(id)
    if (running === undefined) throw new Error(`"${id}" ended and was not under way`)
    this.#running.delete(id)
    const { sentMs, choice } = running
    if (choice !== null) {
      this.#chooser.finished(id, cachedTokens, finishedMs)
      this.rows.push({ id, ...choice, sentMs, ttftMs, promptTokens, cachedTokens })
    }
    const { conversation, tokens } = running
    const turn = running.turn + 1
    const thinkMs = conversation.turns[turn]?.thinkMs
    if (thinkMs === undefined) this.#goingOn--
    else this.#agenda.at(finishedMs + thinkMs, () => this.#send(conversation, turn, joined(tokens, generated)))
  }
}

function summary({ policy, workers }: VirtualOptions, rows: readonly VirtualRow[]): VirtualResult {
  const sum = (of: (row: VirtualRow) => number): number => rows.reduce((total, row) => total + of(row), 0)
  const requestsPerWorker = new Array<number>(workers).fill(0)
  for (const { worker } of rows) requestsPerWorker[worker] = (requestsPerWorker[worker] ?? 0) + 1
  const computedPerWorker = new Array<number>(workers).fill(0)
  for (const { worker, promptTokens, cachedTokens } of rows)
    computedPerWorker[worker] = (computedPerWorker[worker] ?? 0) + promptTokens - cachedTokens
  const off = sum((row) => Math.abs(predictedOf(row) - row.cachedTokens))
  const most = sum((row) => Math.max(predictedOf(row), row.cachedTokens))
  return {
    policy: typeof policy === 'string' ? policy : (policy.name ?? 'custom'),
    rows,
    ttftMs: Float64Array.from(rows, (row) => row.ttftMs).sort(),
    meanTtftMs: sum((row) => row.ttftMs) / rows.length,
    hitRatio: sum((row) => row.cachedTokens) / sum((row) => row.promptTokens),
    requestsPerWorker,
    computedPerWorker,
    agreement: most === 0 ? 1 : 1 - off / most,
  }
}

function predictedOf({ predictedCachedTokens, comingTokens, cachedTokens }: VirtualRow): number {
  return Math.max(predictedCachedTokens, Math.min(cachedTokens, predictedCachedTokens + comingTokens))
}

function joined(first: Uint32Array, second: Uint32Array): Uint32Array {
  const both = new Uint32Array(first.length + second.length)
  both.set(first)
  both.set(second, first.length)
  return both
}
