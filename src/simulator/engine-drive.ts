import type { Cancel, Clock } from '../zmtp/clock.ts'
import type { EngineOptions } from './engine-options.ts'
import { Engine, type EngineStats } from './engine.ts'
import type { TrueBlocks, TrueMatch } from './tiered-cache.ts'
import type { KvEvent } from './kv-event.ts'
import { takenAs, toldAs, type Misreport } from './misreport.ts'
import type { GenerationRequest, GenerationResult } from './sequence.ts'

/** Where the tokens of one request go. */
export interface GenerationListener {
  onToken(token: number, cachedTokens: number): void
  onFinished(result: GenerationResult): void
}

export interface EngineDriveOptions {
  readonly engine: Partial<EngineOptions>
  readonly clock: Clock
  /** Simulated milliseconds per real one. */
  readonly timeScale: number
  readonly onEvents: (events: readonly KvEvent[]) => void
  /** What the engine does and tells other than it should; left out: nothing. */
  readonly misreport?: readonly Misreport[]
}

/** Runs an engine in real time, with one timer that stands at the end of the step in progress. */
export class EngineDrive {
  readonly #engine: Engine
  readonly #clock: Clock
  readonly #timeScale: number
  readonly #misreport: readonly Misreport[]
  readonly #listeners = new Map<string, GenerationListener>()
  #timer: { readonly atMs: number; readonly cancel: Cancel } | null = null
  #originMs: number
  /** Simulated time at which the engine came to a stop. */
  #stalledAtMs: number | null = null

  constructor({ engine, clock, timeScale, onEvents, misreport = [] }: EngineDriveOptions) {
    this.#misreport = misreport
    this.#clock = clock
    this.#timeScale = timeScale
    this.#originMs = clock.now()
    this.#engine = new Engine({
      ...engine,
      onEvents: (events) => {
        const told = toldAs(events, misreport)
        if (told.length > 0) onEvents(told)
      },
      onToken: (sequence, token) => this.#listeners.get(sequence.id)?.onToken(token, sequence.cachedTokens),
      onFinished: (result) => {
        const listener = this.#listeners.get(result.id)
        this.#listeners.delete(result.id)
        listener?.onFinished(result)
      },
    })
  }

  get stats(): EngineStats {
    return this.#engine.stats
  }

  get options(): EngineOptions {
    return this.#engine.options
  }

  /** Prompt tokens of waiting requests that are not cached. */
  get waitingTokens(): number {
    return this.#engine.waitingTokens()
  }

  /** What the engine's tiers hold now. */
  trueBlocks(): TrueBlocks {
    return this.#engine.trueBlocks()
  }

  /** The leading blocks of a prompt that the engine's tiers hold now. */
  trueMatch(request: Omit<GenerationRequest, 'id' | 'outputTokens'>): TrueMatch {
    return this.#engine.trueMatch({ ...request, id: 'asked', outputTokens: 1 })
  }

  /** Queues a request; PROMPT_TOO_LONG where it can never fit. */
  start(request: GenerationRequest, listener: GenerationListener): void {
    this.#engine.add(takenAs(request, this.#misreport), this.#nowMs())
    this.#listeners.set(request.id, listener)
    this.#schedule()
  }

  abort(id: string): void {
    if (!this.#listeners.delete(id)) return
    this.#engine.abort(id, this.#nowMs())
    this.#schedule()
  }

  resetPrefixCache(): boolean {
    const done = this.#engine.resetPrefixCache(this.#nowMs())
    this.#schedule()
    return done
  }

  /** Requests are taken in and nothing comes out, as from an engine that hangs. */
  stall(): void {
    this.#stalledAtMs ??= this.#nowMs()
    this.#timer?.cancel()
    this.#timer = null
  }

  resume(): void {
    if (this.#stalledAtMs === null) return
    this.#originMs = this.#clock.now() - this.#stalledAtMs / this.#timeScale
    this.#stalledAtMs = null
    this.#schedule()
  }

  /** Ends all requests without a word. */
  stop(): void {
    this.stall()
    this.#listeners.clear()
  }

  /** Never behind the engine: a clock in fractions of a millisecond does not survive the scaling exactly. */
  #nowMs(): number {
    const nowMs = this.#stalledAtMs ?? (this.#clock.now() - this.#originMs) * this.#timeScale
    return Math.max(nowMs, this.#engine.nowMs)
  }

  #schedule(): void {
    const atMs = this.#engine.nextEventMs()
    if (this.#stalledAtMs !== null || atMs === this.#timer?.atMs) return
    this.#timer?.cancel()
    this.#timer = null
    if (atMs === null) return
    const delayMs = Math.max(0, (atMs - this.#nowMs()) / this.#timeScale)
    const cancel = this.#clock.after(Math.ceil(delayMs), () => {
      this.#timer = null
      this.#engine.advanceTo(this.#nowMs())
      this.#schedule()
    })
    this.#timer = { atMs, cancel }
  }
}
