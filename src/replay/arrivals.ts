import { mix32, seededRandom, type Random } from '../simulator/random.ts'
import type { Trace, TraceRequest, TraceSession } from './traces/trace.ts'

/** How much of a trace is played, and how fast. */
export interface LoadOptions {
  /** Sessions without a time of their own that go on at once; default: all of the trace. */
  readonly users?: number
  /** Requests that have a time come so many times as fast. Default 1. */
  readonly rate?: number
  /** Pauses of users are so many times as long, and never longer than the cap. Default 1 and no cap. */
  readonly thinkScale?: number
  readonly thinkCapMs?: number
  /** From a user's end to the next one's beginning, on average. Default 2,000. */
  readonly betweenUsersMs?: number
  /** Requests are sent for so long; users come anew until then. Default: each session is played once, to its end. */
  readonly durationMs?: number
  /** Requests sent before are played and not counted. Default 0. */
  readonly warmUpMs?: number
  /** A session ends before the first request of more tokens, output included: what a model's length allows. */
  readonly mostTokens?: number
  /** Requests that have a time come up to so much later, at random. Default 0. */
  readonly jitterMs?: number
}

/** One user of a session. */
export interface Visit {
  readonly session: TraceSession
  /** 0 for the first one of this session. */
  readonly copy: number
  /** The turn that it begins with. */
  readonly turn: number
  readonly startMs: number
}

export const defaultBetweenUsersMs = 2_000

/**
 * Who comes when. An open loop is the trace's own times, of which a seed picks the part that is played. A closed loop holds so many
 * users: whoever is done is followed by another, in an order that the seed draws. Where it goes on for a given time the first users are
 * in the midst of their sessions, as on any day at any hour.
 */
export class Arrivals {
  /** Known from the start. */
  readonly first: readonly Visit[]
  readonly #options: LoadOptions
  readonly #random: Random
  readonly #sessions: readonly TraceSession[]
  #order: number[] = []
  #next = 0
  #copy = -1

  constructor(trace: Trace, options: LoadOptions, seed: number) {
    this.#options = options
    this.#random = seededRandom(mix32(seed ^ 0x3c6ef372))
    const sessions = trace.sessions.flatMap((session) => cut(session, options.mostTokens ?? Infinity))
    this.#sessions = sessions.filter(({ startMs }) => startMs === null)
    const timed = this.#timed(sessions)
    this.first = [...timed, ...this.#users()]
  }

  /** The next user of a closed loop, after one that ended now; null where nobody else comes. */
  after(nowMs: number): Visit | null {
    const { durationMs = Infinity, betweenUsersMs = defaultBetweenUsersMs } = this.#options
    return nowMs >= durationMs ? null : this.#visit(nowMs + this.#random.exponential(betweenUsersMs), false)
  }

  #timed(sessions: readonly TraceSession[]): Visit[] {
    const { rate = 1, durationMs = Infinity, jitterMs = 0 } = this.#options
    const times = sessions.flatMap(({ startMs }) => startMs ?? [])
    const spanMs = (times.at(-1) ?? 0) / rate
    const fromMs = spanMs > durationMs ? this.#random.next() * (spanMs - durationMs) : 0
    return sessions.flatMap((session) => {
      if (session.startMs === null) return []
      const startMs = session.startMs / rate - fromMs + (jitterMs > 0 ? (this.#random.next() * jitterMs) / rate : 0)
      return startMs < 0 || startMs >= durationMs ? [] : [{ session, copy: 0, turn: 0, startMs }]
    })
  }

  #users(): Visit[] {
    const { users = this.#sessions.length, durationMs, warmUpMs = 0 } = this.#options
    const visits: Visit[] = []
    for (let user = 0; user < users; user++) {
      const startMs = this.#random.next() * (durationMs === undefined ? 0 : warmUpMs / 2)
      const visit = this.#visit(startMs, durationMs !== undefined)
      if (visit !== null) visits.push(visit)
    }
    return visits
  }

  #visit(startMs: number, inTheMidst: boolean): Visit | null {
    if (this.#next >= this.#order.length && !this.#shuffle()) return null
    const session = this.#sessions[this.#order[this.#next++] as number] as TraceSession
    const turn = inTheMidst ? this.#random.below(session.requests.length) : 0
    return { session, copy: this.#copy, turn, startMs }
  }

  /** Once through all sessions in a new order. False where that is over. */
  #shuffle(): boolean {
    if (this.#sessions.length === 0 || (this.#copy >= 0 && this.#options.durationMs === undefined)) return false
    const order = this.#sessions.map((_, index) => index)
    for (let left = order.length; left > 1; left--) {
      const other = this.#random.below(left)
      ;[order[left - 1], order[other]] = [order[other] as number, order[left - 1] as number]
    }
    this.#order = order
    this.#next = 0
    this.#copy++
    return true
  }
}

/** The pause before a request, as these options make it. */
export function thinkMsOf({ thinkMs }: TraceRequest, { thinkScale = 1, thinkCapMs = Infinity }: LoadOptions): number {
  return Math.min(thinkMs * thinkScale, thinkCapMs)
}

/** Requests that are too long, with those after them in their sessions. */
export function leftOut({ sessions }: Trace, mostTokens: number): number {
  const played = sessions.flatMap((session) => cut(session, mostTokens)).flatMap(({ requests }) => requests).length
  return sessions.flatMap(({ requests }) => requests).length - played
}

function cut(session: TraceSession, mostTokens: number): TraceSession[] {
  const tooLong = session.requests.findIndex(
    ({ promptTokens, outputTokens }) => promptTokens + outputTokens > mostTokens,
  )
  if (tooLong === -1) return [session]
  return tooLong === 0 ? [] : [{ ...session, requests: session.requests.slice(0, tooLong) }]
}
