import type { Config } from '../config/schema.ts'
import type { Fleet } from '../workers/fleet.ts'

export interface ReadinessOptions {
  /** Read anew each time: a reload may change it. */
  readonly config: () => Pick<Config, 'readiness'>
  readonly fleet: Fleet
}

/** Whether the router may be sent requests, and why not. */
export class Readiness {
  /** What is waited for; null once the router has started. */
  waitsFor: string | null = 'first health checks'
  draining = false
  readonly #o: ReadinessOptions

  constructor(options: ReadinessOptions) {
    this.#o = options
  }

  get started(): boolean {
    return this.waitsFor === null
  }

  view(): { readonly ready: boolean; readonly reasons: readonly string[] } {
    const reasons = [
      ...(this.draining ? ['shutting down'] : []),
      ...(this.waitsFor === null ? [] : [this.waitsFor]),
      ...(this.#wantsWorker() ? ['no healthy worker'] : []),
    ]
    return { ready: reasons.length === 0, reasons }
  }

  #wantsWorker(): boolean {
    const { config, fleet } = this.#o
    return (
      config().readiness === 'anyWorker' && ![...fleet.workers()].some(({ standing }) => standing.state === 'healthy')
    )
  }
}
