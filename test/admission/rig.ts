import { Admission, type AdmissionRequest, type AdmissionSettings } from '../../src/admission/admission.ts'
import { anonymous, type Caller } from '../../src/admission/caller.ts'
import type { Pass } from '../../src/admission/pass.ts'
import type { RouterError } from '../../src/errors.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'

export const caller = (keyId: string, options: Partial<Caller> = {}): Caller => ({ ...anonymous, keyId, ...options })

export const limited = (keyId: string, limits: Partial<Caller['limits']>): Caller =>
  caller(keyId, { limits: { ...anonymous.limits, ...limits } })

/** A clock that stands still until it is moved, and the alarms set on it. */
export class Hands {
  nowMs = 1_000_000
  readonly #alarms = new Set<{ atMs: number; run: () => void }>()

  readonly clock = (): number => this.nowMs

  readonly after = (delayMs: number, run: () => void): (() => void) => {
    const alarm = { atMs: this.nowMs + delayMs, run }
    this.#alarms.add(alarm)
    return () => this.#alarms.delete(alarm)
  }

  get alarms(): number {
    return this.#alarms.size
  }

  /** Moves on, ringing each alarm at its own time. */
  pass(ms: number): void {
    const endMs = this.nowMs + ms
    for (;;) {
      const [next] = [...this.#alarms].filter(({ atMs }) => atMs <= endMs).sort((a, b) => a.atMs - b.atMs)
      if (next === undefined) break
      this.nowMs = next.atMs
      this.#alarms.delete(next)
      next.run()
    }
    this.nowMs = endMs
  }
}

export type Outcome = { kind: 'pass'; pass: Pass } | { kind: 'gone' } | { kind: 'refused'; error: RouterError }

/** One request as its pipeline sees it. */
export interface Sent {
  readonly leave: () => void
  outcome: Outcome | null
}

/** An Admission in front of one pool with a number of places; whoever holds a pass that was sent has one of them. */
export class Rig {
  readonly hands = new Hands()
  readonly metrics = createMetrics()
  readonly admission: Admission
  places: number
  running = 0

  constructor(places: number, settings: Partial<AdmissionSettings> & { requests?: number; timeoutMs?: number } = {}) {
    this.places = places
    this.admission = new Admission({
      settings: {
        queue: { requests: settings.requests ?? 100, timeoutMs: settings.timeoutMs ?? 10_000 },
        overloadStatus: settings.overloadStatus ?? 429,
      },
      hasRoom: (_pool, ahead) => this.running + ahead < this.places,
      clock: this.hands.clock,
      after: this.hands.after,
      metrics: this.metrics,
    })
  }

  /** Enters as the pipeline does; the outcome is there after the next `settled`. */
  enter(from: Caller, options: Partial<AdmissionRequest> = {}): Sent {
    let gone: () => void = () => undefined
    const sent: Sent = { outcome: null, leave: () => gone() }
    const request: AdmissionRequest = {
      caller: from,
      pool: 'm',
      promptTokens: 10,
      priority: 0,
      onGone: (run) => (gone = run),
      ...options,
    }
    try {
      const pass = this.admission.tryEnter(request)
      if (pass === null) {
        this.admission.enter(request).then(
          (later) => (sent.outcome = later === null ? { kind: 'gone' } : { kind: 'pass', pass: later }),
          (error: unknown) => (sent.outcome = { kind: 'refused', error: error as RouterError }),
        )
      } else sent.outcome = { kind: 'pass', pass }
    } catch (error) {
      sent.outcome = { kind: 'refused', error: error as RouterError }
    }
    return sent
  }

  /** Sends what a request got its pass for: it has one of the places now. */
  dispatch({ outcome }: Sent): Pass {
    if (outcome?.kind !== 'pass') throw new Error(`not let through: ${outcome?.kind ?? 'waiting'}`)
    this.running++
    outcome.pass.sent()
    return outcome.pass
  }

  /** Ends it: the place is free. */
  end(pass: Pass, generatedTokens = 0): void {
    this.running--
    pass.done(generatedTokens)
  }

  refusals(reason: string): number {
    return this.metrics.admissionRefusals.cell(reason).value
  }

  async queuedGauge(): Promise<number | undefined> {
    const found = (await this.metrics.registry.getMetricsAsJSON()).find(
      ({ name }) => name === 'warmroute_admission_queued_requests',
    )
    return (found as { values: { value: number }[] } | undefined)?.values[0]?.value
  }
}

/** Lets what was promised happen. */
export const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
