import type { Standing } from './standing.ts'
import type { Worker } from './worker.ts'

export interface OutlierLimits {
  /** Failures in a row that eject a worker. */
  readonly failures: number
  /** Time out of rotation at the first ejection; doubles with each further one. */
  readonly baseEjectionMs: number
  readonly maxEjectionMs: number
  /** Most workers of a pool that may be ejected, as a share; yet at least one. */
  readonly maxEjectedShare: number
  /** With a smaller share of the pool's workers left, ejections are ignored. */
  readonly panicShare: number
  readonly slowStart: { readonly windowMs: number; readonly floorShare: number }
  /** Longest time for which a worker's own `retry-after` is believed. */
  readonly maxPressureMs: number
}

export interface OutlierParts {
  readonly limits: OutlierLimits
  /** Monotonic milliseconds. */
  readonly clock: () => number
  /** Uniform in [0, 1). */
  readonly random: () => number
  readonly onEjected: (worker: Worker, forMs: number) => void
  readonly onReturned: (worker: Worker) => void
  /** Ejections are ignored because too few workers are left. */
  readonly onPanic: () => void
}

/** An ejection lasts up to this share longer, so that workers ejected together do not return together. */
const ejectionJitter = 0.25

/**
 * Passive health of the workers, from the requests themselves: which of them may be chosen now.
 *
 *     healthy ── failures in a row ──► ejected ── time is over ──► probed ── success ──► slow start ──► healthy
 *                                         ▲                           │
 *                                         └──── failure: twice as long
 *
 * Failures are refused or broken connections, 5xx other than 501, 503 and 529, and first tokens that came too late. A 4xx is a
 * success; 429, 503 and 529 are back-pressure. Whatever the records say, a worker that is up is used before a request is
 * refused: ejected ones when nothing else is left.
 */
export class Outliers {
  limits: OutlierLimits
  readonly #o: OutlierParts
  readonly #eligible: Worker[] = []
  readonly #ejected: Worker[] = []
  readonly #slow: Worker[] = []
  readonly #pressed: Worker[] = []

  constructor(parts: OutlierParts) {
    this.limits = parts.limits
    this.#o = parts
  }

  /**
   * The workers of a pool that may be chosen now; empty if none is up that the request has not been tried on. The list is reused
   * by the next call.
   */
  eligible(workers: readonly Worker[], tried: ReadonlySet<number>): readonly Worker[] {
    const nowMs = this.#o.clock()
    const eligible = this.#eligible
    const ejected = this.#ejected
    const slow = this.#slow
    const pressed = this.#pressed
    eligible.length = ejected.length = slow.length = pressed.length = 0
    let known = 0
    let available = 0
    for (const worker of workers) {
      const { standing } = worker
      if (standing.draining) continue
      known++
      if (!standing.up) continue
      const { record } = standing
      if (record.fresh) this.#begin(standing, workers, nowMs)
      if (record.ejectedUntilMs === null) available++
      if (tried.has(worker.serial)) continue
      if (record.ejectedUntilMs !== null) {
        // One request at a time finds out whether it works again.
        if (nowMs >= record.ejectedUntilMs && !record.probing) eligible.push(worker)
        else ejected.push(worker)
      } else if (record.pressedUntilMs > nowMs) pressed.push(worker)
      else if (this.#isSlow(record, nowMs)) slow.push(worker)
      else eligible.push(worker)
    }
    if (ejected.length + slow.length + pressed.length === 0) return eligible
    if (ejected.length > 0 && available < known * this.limits.panicShare) {
      this.#o.onPanic()
      eligible.push(...ejected)
      ejected.length = 0
    }
    this.#admitSlow(slow, known, nowMs)
    for (const rest of [slow, pressed, ejected]) {
      if (eligible.length > 0) break
      eligible.push(...rest)
    }
    return eligible
  }

  /** Whether any worker is left for a request that was tried on these. */
  hasOther(workers: readonly Worker[], tried: ReadonlySet<number>): boolean {
    return workers.some(({ standing, serial }) => standing.up && !standing.draining && !tried.has(serial))
  }

  /** A request goes to the worker: if it is ejected, this is the probe. */
  dispatched({ standing: { record } }: Worker): void {
    if (record.ejectedUntilMs !== null && this.#o.clock() >= record.ejectedUntilMs) record.probing = true
  }

  succeeded(worker: Worker): void {
    const { record } = worker.standing
    record.failures = 0
    record.probing = false
    if (record.ejectedUntilMs === null) return
    const nowMs = this.#o.clock()
    // What was sent before the ejection proves nothing about the worker now.
    if (nowMs < record.ejectedUntilMs) return
    record.ejectedUntilMs = null
    record.returnedAtMs = nowMs
    record.slowFromMs = nowMs
    this.#o.onReturned(worker)
  }

  failed(worker: Worker, pool: readonly Worker[]): void {
    const { record } = worker.standing
    const nowMs = this.#o.clock()
    const wasProbe = record.probing
    record.probing = false
    record.failures++
    if (record.ejectedUntilMs !== null) {
      if (wasProbe) this.#eject(worker, nowMs)
      return
    }
    if (record.failures < this.limits.failures) return
    const ejected = pool.filter(({ standing }) => standing.ejected).length
    if (ejected + 1 <= Math.max(1, Math.floor(pool.length * this.limits.maxEjectedShare))) this.#eject(worker, nowMs)
    // It cannot be taken out; at least it gets as little as may be until it works again.
    else record.slowFromMs = nowMs
  }

  /** The worker says that it is too busy. */
  pressed({ standing: { record } }: Worker, retryAfterMs: number): void {
    record.probing = false
    record.pressedUntilMs = this.#o.clock() + Math.min(retryAfterMs, this.limits.maxPressureMs)
  }

  /** A request ended without telling anything about the worker, e.g. because its client left. */
  undecided({ standing: { record } }: Worker): void {
    record.probing = false
  }

  #eject(worker: Worker, nowMs: number): void {
    const { record } = worker.standing
    const { baseEjectionMs, maxEjectionMs } = this.limits
    if (record.returnedAtMs !== null && nowMs - record.returnedAtMs > maxEjectionMs) record.ejections = 0
    const forMs =
      Math.min(maxEjectionMs, baseEjectionMs * 2 ** Math.min(30, record.ejections)) *
      (1 + ejectionJitter * this.#o.random())
    record.ejections++
    record.ejectedUntilMs = nowMs + forMs
    this.#o.onEjected(worker, forMs)
  }

  /** A worker that came up is another process than before; it starts slowly unless all of them are new. */
  #begin({ record }: Standing, workers: readonly Worker[], nowMs: number): void {
    const settled = workers.some(
      ({ standing }) => standing.up && nowMs - standing.record.seenAtMs >= this.limits.slowStart.windowMs,
    )
    Object.assign(record, { failures: 0, ejections: 0, ejectedUntilMs: null, probing: false, pressedUntilMs: 0 })
    record.fresh = false
    record.seenAtMs = nowMs
    record.slowFromMs = settled ? nowMs : null
  }

  #isSlow(record: Standing['record'], nowMs: number): boolean {
    if (record.slowFromMs === null) return false
    if (record.failures < this.limits.failures && nowMs - record.slowFromMs >= this.limits.slowStart.windowMs)
      record.slowFromMs = null
    return record.slowFromMs !== null
  }

  /**
   * Lets each slow worker take part in so few decisions that it gets at most its part of a fair share even if it wins all of
   * them, as an idle one does.
   */
  #admitSlow(slow: Worker[], known: number, nowMs: number): void {
    const { windowMs, floorShare } = this.limits.slowStart
    for (let i = slow.length - 1; i >= 0; i--) {
      const worker = slow[i] as Worker
      const { slowFromMs, failures } = worker.standing.record
      const share =
        failures >= this.limits.failures ? floorShare : Math.max(floorShare, (nowMs - (slowFromMs ?? 0)) / windowMs)
      if (this.#o.random() * known >= share) continue
      slow.splice(i, 1)
      this.#eligible.push(worker)
    }
  }
}
