import { RouterError, type OverloadStatus } from '../errors.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { Caller } from './caller.ts'
import { DrainRate } from './drain-rate.ts'
import { FairQueue, type Entry, type Turn } from './fair-queue.ts'
import { Pass, type PassIssuer } from './pass.ts'
import { Rates, type Charge } from './rates.ts'

/** The part of the config that can change while requests wait. */
export interface AdmissionSettings {
  readonly queue: {
    /** Most requests that wait for one pool. */
    readonly requests: number
    readonly timeoutMs: number
  }
  readonly overloadStatus: OverloadStatus
}

export interface AdmissionOptions {
  readonly settings: AdmissionSettings
  /**
   * Whether the pool can take one more request on top of `ahead` that were let through and are not in flight yet. True
   * also for a pool without any worker: its requests are refused at once, where they are sent.
   */
  readonly hasRoom: (pool: string, ahead: number) => boolean
  /** Monotonic milliseconds. */
  readonly clock: () => number
  /** Runs something later; the answer calls it off. */
  readonly after: (delayMs: number, run: () => void) => () => void
  readonly metrics: Pick<Metrics, 'admissionRefusals' | 'rateLimited' | 'queueWait' | 'read'>
}

export interface AdmissionRequest {
  readonly caller: Caller
  /** The model that the pool serves. */
  readonly pool: string
  readonly promptTokens: number
  /** The request's own priority: a client may stand back (above 0) behind its key's class, never push forward. */
  readonly priority: number
  /** Registers what is to be done when the client leaves; asked only of a request that must wait. */
  readonly onGone: (gone: () => void) => void
}

const shortestRetrySeconds = 1
const longestRetrySeconds = 30

interface Waiting {
  readonly charge: Charge | null
  readonly sinceMs: number
  readonly resolve: (pass: Pass | null) => void
  readonly reject: (error: RouterError) => void
}

/** All that stands in front of one pool. */
interface Line extends PassIssuer {
  readonly pool: string
  readonly queue: FairQueue<Waiting>
  readonly drain: DrainRate
  /** Passes handed out to requests that are not in flight yet. */
  unsent: number
  alarm: { readonly atMs: number; readonly callOff: () => void } | null
}

/**
 * Decides which requests go on to a worker, and when: limits of keys first, then room in the pool, in fair order.
 *
 *     tryEnter ─► limits ─► room, and nobody waits? ─► Pass ─► sent ─► done ─► wake
 *                   │            │ no                   ▲                       │
 *                   ▼            ▼                      └── next of the queue ◄─┘
 *              RATE_LIMITED    queue ─► QUEUE_FULL, QUEUE_TIMEOUT, DRAINING, or the client left
 */
export class Admission {
  readonly rates: Rates
  readonly #o: AdmissionOptions
  readonly #lines = new Map<string, Line>()
  #settings: AdmissionSettings
  #isClosed = false

  constructor(options: AdmissionOptions) {
    this.#o = options
    this.#settings = options.settings
    this.rates = new Rates(options.clock, options.metrics)
    options.metrics.read('admission_queued_requests', () =>
      [...this.#lines.values()].map(({ pool, queue }) => [[pool], queue.length] as const),
    )
  }

  /**
   * A pass for a request that need not wait; null, with nothing counted, for one that must: `enter` is for those. Throws
   * RouterError RATE_LIMITED or DRAINING.
   */
  tryEnter(request: AdmissionRequest): Pass | null {
    this.#check(request)
    const line = this.#line(request.pool)
    return line.queue.length === 0 && this.#o.hasRoom(line.pool, line.unsent)
      ? this.#issue(line, this.rates.charge(request.caller, request.promptTokens), 0)
      : null
  }

  /**
   * A pass once it is the request's turn; null where the client left before. Rejects with RouterError RATE_LIMITED,
   * QUEUE_FULL, QUEUE_TIMEOUT or DRAINING.
   */
  enter(request: AdmissionRequest): Promise<Pass | null> {
    return new Promise((resolve, reject) => {
      const line = this.#line(request.pool)
      this.#handOut(line)
      const pass = this.tryEnter(request)
      if (pass === null) this.#wait(line, request, resolve, reject)
      else resolve(pass)
    })
  }

  /** The pool may have room: hands out as many passes as it has. */
  wake(pool: string): void {
    const line = this.#lines.get(pool)
    if (line !== undefined) this.#handOut(line)
  }

  /** Requests that wait for the pool, by key id. */
  queued(pool: string): ReadonlyMap<string, number> {
    return this.#lines.get(pool)?.queue.lengthByKey() ?? new Map<string, number>()
  }

  /** Other settings, for requests that come from now on. */
  reconfigure(settings: AdmissionSettings): void {
    this.#settings = settings
  }

  /** Refuses all that wait and all that come; passes that are out stay good. */
  close(): void {
    this.#isClosed = true
    for (const line of this.#lines.values()) {
      for (let entry = line.queue.shift(); entry !== undefined; entry = line.queue.shift())
        this.#refuse(entry, draining())
      this.#setAlarm(line)
    }
  }

  #check({ caller, promptTokens }: AdmissionRequest): void {
    if (this.#isClosed) throw this.#counted(draining())
    try {
      this.rates.check(caller, promptTokens)
    } catch (error) {
      throw error instanceof RouterError ? this.#counted(error) : error
    }
  }

  #line(pool: string): Line {
    let line = this.#lines.get(pool)
    if (line === undefined) {
      const opened: Line = {
        pool,
        queue: new FairQueue(),
        drain: new DrainRate(this.#o.clock()),
        unsent: 0,
        alarm: null,
        passSent: () => opened.unsent--,
        passDone: (wasSent) => {
          if (wasSent) opened.drain.note(this.#o.clock())
          else opened.unsent--
          this.#handOut(opened)
        },
      }
      this.#lines.set(pool, opened)
      line = opened
    }
    return line
  }

  #issue(line: Line, charge: Charge | null, waitedMs: number): Pass {
    line.unsent++
    return new Pass(line, charge, waitedMs)
  }

  #wait(line: Line, request: AdmissionRequest, resolve: Waiting['resolve'], reject: Waiting['reject']): void {
    const { caller, promptTokens, priority } = request
    const sinceMs = this.#o.clock()
    const turn: Turn = {
      keyId: caller.keyId,
      weight: caller.weight,
      priority: caller.priority + Math.max(0, priority),
      costTokens: promptTokens,
      deadlineMs: sinceMs + this.#settings.queue.timeoutMs,
    }
    this.#makePlace(line, turn)
    const charge = this.rates.charge(caller, promptTokens)
    const entry = line.queue.push(turn, { charge, sinceMs, resolve, reject })
    this.#setAlarm(line)
    request.onGone(() => {
      this.#gone(line, entry)
    })
  }

  /** Throws QUEUE_FULL where the queue is full and nobody in it deserves its place less than the newcomer. */
  #makePlace(line: Line, newcomer: Turn): void {
    if (line.queue.length < this.#settings.queue.requests) return
    const given = this.#settings.queue.requests === 0 ? null : line.queue.leastDeserving(newcomer)
    const error = this.#overloaded('QUEUE_FULL', line, 'The queue of this model is full')
    if (given === null) throw this.#counted(error)
    line.queue.remove(given)
    this.#refuse(given, error)
  }

  #handOut(line: Line): void {
    if (line.queue.length === 0) return
    this.#expire(line)
    while (this.#o.hasRoom(line.pool, line.unsent)) {
      const entry = line.queue.shift()
      if (entry === undefined) break
      const { charge, sinceMs, resolve } = entry.value
      const waitedMs = this.#o.clock() - sinceMs
      this.#o.metrics.queueWait.observe(waitedMs / 1000)
      resolve(this.#issue(line, charge, waitedMs))
    }
    this.#setAlarm(line)
  }

  #expire(line: Line): void {
    const nowMs = this.#o.clock()
    for (let entry = line.queue.shiftExpired(nowMs); entry !== undefined; entry = line.queue.shiftExpired(nowMs)) {
      const seconds = Math.round((nowMs - entry.value.sinceMs) / 100) / 10
      const message = `All workers of this model are saturated; the request waited ${seconds} s for its turn`
      this.#refuse(entry, this.#overloaded('QUEUE_TIMEOUT', line, message))
    }
  }

  #gone(line: Line, entry: Entry<Waiting>): void {
    if (!line.queue.remove(entry)) return
    this.#setAlarm(line)
    this.#o.metrics.admissionRefusals.add(1, 'client_gone')
    entry.value.charge?.refund()
    entry.value.resolve(null)
  }

  #refuse(entry: Entry<Waiting>, error: RouterError): void {
    entry.value.charge?.refund()
    entry.value.reject(this.#counted(error))
  }

  /** Keeps one alarm, at the earliest deadline; one that is too early only sets the next. */
  #setAlarm(line: Line): void {
    const { alarm, queue } = line
    if (queue.length > 0 && alarm !== null && alarm.atMs <= queue.nextDeadlineMs) return
    alarm?.callOff()
    line.alarm = null
    if (queue.length === 0) return
    const atMs = queue.nextDeadlineMs
    const ring = (): void => {
      line.alarm = null
      this.#expire(line)
      this.#setAlarm(line)
    }
    line.alarm = { atMs, callOff: this.#o.after(Math.max(1, atMs - this.#o.clock()), ring) }
  }

  /** Told to come back when all that waits now will have had its turn, as fast as requests end at present. */
  #overloaded(code: 'QUEUE_FULL' | 'QUEUE_TIMEOUT', line: Line, message: string): RouterError {
    const seconds = Math.ceil((line.queue.length + 1) / line.drain.perSecond(this.#o.clock()))
    return new RouterError(code, message, {
      overloadStatus: this.#settings.overloadStatus,
      retryAfterSeconds: Math.min(longestRetrySeconds, Math.max(shortestRetrySeconds, seconds)),
    })
  }

  #counted(error: RouterError): RouterError {
    this.#o.metrics.admissionRefusals.add(1, error.code.toLowerCase())
    return error
  }
}

function draining(): RouterError {
  return new RouterError('DRAINING', 'The router is shutting down; try another replica', { retryAfterSeconds: 1 })
}
