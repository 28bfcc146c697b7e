/** What a plugin may do before it is left out for a while. */
export interface PluginLimits {
  /** A call that took longer is a stall. */
  readonly stallMs: number
  /** So many faults and stalls without a sound call between them leave the plugin out. */
  readonly faults: number
  /** For so long. */
  readonly pauseMs: number
}

export interface GuardPorts {
  readonly limits: PluginLimits
  /** Monotonic milliseconds, with a fraction. */
  readonly clock: () => number
  /** How long a call took. */
  readonly observe: (plugin: string, ms: number) => void
  /** Counts what a plugin did wrong; the request goes on without it. */
  readonly fault: PluginFault
}

/** `paused`: the plugin is left out from now on, for `limits.pauseMs`. */
export type PluginFault = (plugin: string, error: unknown, paused: boolean) => void

/**
 * Calls one plugin so that no request is hurt by it: what it throws is counted and its part skipped; a plugin that keeps
 * throwing, or takes too long, is left out for a while. A call that never returns nothing in one thread can end, which is
 * why plugins from outside are tried on another thread before they are taken.
 */
export class PluginGuard {
  readonly type: string
  readonly #o: GuardPorts
  #inRow = 0
  #pausedUntilMs = -Infinity

  constructor(type: string, ports: GuardPorts) {
    this.type = type
    this.#o = ports
  }

  /** When the call begins; NaN where it must not. */
  enter(): number {
    const nowMs = this.#o.clock()
    return nowMs < this.#pausedUntilMs ? NaN : nowMs
  }

  /** @param startMs what `enter` answered */
  done(startMs: number): void {
    const tookMs = this.#o.clock() - startMs
    this.#o.observe(this.type, tookMs)
    if (tookMs > this.#o.limits.stallMs) this.failed(new Error(`took ${tookMs.toFixed(1)} ms`))
    else this.#inRow = 0
  }

  failed(error: unknown): void {
    const { limits, clock, fault } = this.#o
    const isPaused = ++this.#inRow >= limits.faults
    if (isPaused) {
      this.#inRow = 0
      this.#pausedUntilMs = clock() + limits.pauseMs
    }
    fault(this.type, error, isPaused)
  }
}
