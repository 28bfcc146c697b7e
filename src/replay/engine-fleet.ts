import { engineDefaults, type EngineOptions } from '../simulator/engine-options.ts'
import { Engine } from '../simulator/engine.ts'
import type { KvEvent } from '../simulator/kv-event.ts'
import type { GenerationResult } from '../simulator/sequence.ts'
import type { Tiers } from './tiers.ts'

export interface EngineFleetOptions {
  readonly workers: number
  readonly engine: Partial<EngineOptions>
  readonly speeds: readonly number[]
  readonly seed: number
  /** What an engine has beside its GPU; null: nothing. */
  readonly tiers: Tiers | null
  /** Whether every step is computed on its own. */
  readonly stepByStep: boolean
  readonly onFirstToken: (id: string, atMs: number) => void
  readonly onFinished: (result: GenerationResult) => void
  /** Absent where nobody listens. */
  readonly onEvents?: (worker: number, events: readonly KvEvent[], atMs: number) => void
}

/** The engines of a run, in the order of their workers. One that dies is followed by another, with an empty cache. */
export class EngineFleet {
  readonly engines: Engine[]
  readonly #options: EngineFleetOptions
  /** What those that are gone computed. */
  readonly #pastMs: number[]

  constructor(options: EngineFleetOptions) {
    this.#options = options
    this.engines = Array.from({ length: options.workers }, (_, worker) => this.#create(worker))
    this.#pastMs = this.engines.map(() => 0)
  }

  /** When one of them has something to tell; Infinity where all are idle. */
  get nextMs(): number {
    let nextMs = Infinity
    for (const engine of this.engines) {
      const ownMs = engine.nextEventMs()
      if (ownMs !== null && ownMs < nextMs) nextMs = ownMs
    }
    return nextMs
  }

  get busyMs(): number[] {
    return this.engines.map((engine, worker) => engine.stats.busyMs + (this.#pastMs[worker] as number))
  }

  advanceTo(nowMs: number): void {
    for (const engine of this.engines) engine.advanceTo(nowMs)
  }

  replace(worker: number, nowMs: number): void {
    const gone = this.engines[worker] as Engine
    this.#pastMs[worker] = (this.#pastMs[worker] as number) + gone.stats.busyMs
    const engine = this.#create(worker)
    engine.advanceTo(nowMs)
    this.engines[worker] = engine
  }

  #create(worker: number): Engine {
    const { engine, speeds, seed, tiers, stepByStep, onFirstToken, onFinished, onEvents } = this.#options
    const figures = { ...engineDefaults, ...engine }
    const speed = speeds[worker] ?? 1
    const created: Engine = new Engine({
      seed,
      ...engine,
      ...tiers?.engineOptions(worker),
      prefillTokensPerSecond: figures.prefillTokensPerSecond * speed,
      stepBaseMs: figures.stepBaseMs / speed,
      decodeMsPerRequest: figures.decodeMsPerRequest / speed,
      ...{ onFirstToken, onFinished },
      ...(stepByStep ? { onToken: () => undefined } : {}),
      ...(onEvents === undefined ? {} : { onEvents: (events, atMs) => onEvents(worker, events, atMs) }),
    })
    return created
  }
}
