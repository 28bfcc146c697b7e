import { RouterError } from '../../errors.ts'
import type { Log } from '../../telemetry/log.ts'
import type { Cancel, Clock } from '../../zmtp/clock.ts'
import type { EventSource } from '../source.ts'
import { decodeEvents, type TrtllmEvent } from '../trtllm/decode.ts'
import { TrtllmWorker, type TrtllmWorkerOptions } from '../trtllm/worker.ts'

export interface PollTiming {
  /** Between two polls while they bring events. */
  readonly intervalMs: number
  /** Longest time between two polls that bring none. */
  readonly idleIntervalMs: number
  /** For one poll: the engine itself waits for events before it answers that there are none. */
  readonly timeoutMs: number
  /** An engine that leaves a poll unanswered for longer tells of its cache too late. */
  readonly lateMs: number
  readonly answerBytes: number
}

/** How a request of a poll ended. */
export type PollOutcome =
  | { readonly kind: 'answer'; readonly status: number; readonly bytes: Uint8Array }
  /** It was never sent; `refused`: since no process takes connections there. */
  | { readonly kind: 'unreached'; readonly refused: boolean }
  /** It was sent, and no whole answer came: what it took is lost. */
  | { readonly kind: 'lost'; readonly reason: string }

/** Sends one request of a poll; never rejects. */
export type Poll = (
  method: 'POST' | 'GET',
  limits: { readonly timeoutMs: number; readonly limitBytes: number; readonly signal: AbortSignal },
) => Promise<PollOutcome>

export interface TrtllmEventsOptions {
  readonly poll: Poll
  /** Whether this process is the one that polls: the engine gives each event once, to whoever asks first. */
  readonly mayPoll: () => boolean
  readonly timing: () => PollTiming
  readonly clock: Clock
  readonly random: () => number
  /** Fulfilled when others have had their turn of the event loop. */
  readonly turn: () => Promise<void>
  readonly log: Log
  /** The engine's name in log lines. */
  readonly name: string
  /** No rank is left: the object is done with. */
  readonly onEnd: () => void
}

/** After an answer that the engine has no such path. */
const absentRetryMs = 30_000
/** Longest time between two polls that fail. */
const failedRetryMs = 2_000

/**
 * The KV events of one TensorRT-LLM engine: polled by `POST /kv_cache_events`, one request at a time, and handed to the
 * workers of its ranks. Reading takes the events away, so an answer that is lost on the way cannot be had again: what was
 * known is then cleared, as it is where event ids show that somebody else has polled some.
 */
export class TrtllmEvents {
  readonly #o: TrtllmEventsOptions
  readonly #workers = new Map<number | null, TrtllmWorker>()
  #method: 'POST' | 'GET' = 'POST'
  #cancel: Cancel = () => undefined
  #polling: AbortController | null = null
  /** Time until the next poll that brings nothing, or fails. */
  #pauseMs = 0
  #failed = false
  /** The engine's health check failed, and no poll was answered since. */
  #isDown = false
  #ended = false

  constructor(options: TrtllmEventsOptions) {
    this.#o = options
  }

  /** The source of one rank's worker; it takes the place of an earlier one. */
  worker(options: TrtllmWorkerOptions): EventSource {
    const worker = new TrtllmWorker(options, this.#o)
    return {
      start: (from) => {
        if (this.#workers.get(options.rank) === worker) return
        worker.start(from)
        this.#workers.set(options.rank, worker)
        // Workers of further ranks start in the same turn, and the first answer is for all of them.
        if (this.#workers.size === 1 && this.#polling === null) this.#plan(0)
      },
      stop: () => {
        worker.stop()
        if (this.#workers.get(options.rank) === worker) this.#workers.delete(options.rank)
        if (this.#workers.size === 0) this.#end()
        return Promise.resolve()
      },
      status: () => worker.status(),
      workerDown: () => this.#down(worker),
    }
  }

  #down(worker: TrtllmWorker): void {
    this.#isDown = true
    worker.doubt()
    if (!worker.isUnusable) return
    // Another process may come with other ranks, or answer in time.
    worker.reopen()
    if (this.#polling === null) this.#plan(this.#o.timing().idleIntervalMs)
  }

  #end(): void {
    if (this.#ended) return
    this.#ended = true
    this.#cancel()
    this.#polling?.abort()
    this.#o.onEnd()
  }

  #plan(afterMs: number): void {
    // Events that nobody can use are left to others.
    if (this.#ended || [...this.#workers.values()].every((worker) => worker.isUnusable)) return
    this.#cancel()
    // Several routers that lost their places together do not come back together.
    this.#cancel = this.#o.clock.after(afterMs * (0.9 + 0.2 * this.#o.random()), () => void this.#poll())
  }

  async #poll(): Promise<void> {
    const { poll, mayPoll } = this.#o
    const timing = this.#o.timing()
    if (!mayPoll()) {
      for (const worker of this.#workers.values()) worker.doubt()
      this.#plan(timing.idleIntervalMs)
      return
    }
    const polling = new AbortController()
    this.#polling = polling
    const cancelLate = this.#o.clock.after(timing.lateMs, () => this.#late(timing.lateMs))
    const outcome = await poll(this.#method, {
      timeoutMs: timing.timeoutMs,
      limitBytes: timing.answerBytes,
      signal: polling.signal,
    })
    cancelLate()
    if (this.#polling !== polling) return
    if (!this.#ended) await this.#settle(outcome)
    this.#polling = null
  }

  /**
   * The engine answers when no event has come for a while, which under load is never. What it tells then is older than
   * what was sent to it since, by which it is routed better.
   */
  #late(lateMs: number): void {
    if (this.#isDown) return
    for (const worker of this.#workers.values()) worker.giveUp()
    this.#polling?.abort()
    this.#polling = null
    this.#o.log.warn(
      { worker: this.#o.name, lateMs },
      'KV events: the engine answers polls too late, as it does while it is busy: routed by what is sent to it',
    )
  }

  async #settle(outcome: PollOutcome): Promise<void> {
    switch (outcome.kind) {
      case 'answer':
        await this.#answered(outcome.status, outcome.bytes)
        return
      case 'unreached':
        // Nothing listens: the process is gone, and its cache with it.
        for (const worker of this.#workers.values()) if (outcome.refused) worker.gone()
        this.#fail('the engine cannot be reached')
        return
      case 'lost':
        this.#lose(outcome.reason)
        return
      default:
        outcome satisfies never
    }
  }

  async #answered(status: number, bytes: Uint8Array): Promise<void> {
    if (status === 200) await this.#take(bytes)
    else if (status === 405 && this.#method === 'POST') {
      this.#method = 'GET'
      this.#plan(0)
    } else if (status === 404 || status === 405 || status === 501) {
      for (const worker of this.#workers.values()) worker.absent()
      this.#fail(`the engine has no path for them (${status})`)
      this.#plan(absentRetryMs)
    } else if (status < 500) this.#fail(`status ${status}`)
    else this.#lose(`status ${status}`)
  }

  async #take(bytes: Uint8Array): Promise<void> {
    const { log, name, turn } = this.#o
    const timing = this.#o.timing()
    let events: readonly TrtllmEvent[]
    try {
      const answer = await decodeEvents(bytes, turn)
      events = answer.events
      if (answer.malformed > 0) this.#first()?.skipped('event_malformed', answer.malformed)
    } catch (error) {
      if (!(error instanceof RouterError)) throw error
      this.#first()?.skipped('batch_malformed', 1)
      this.#lose(error.message)
      return
    }
    if (this.#failed) log.info({ worker: name }, 'KV events: polled again')
    this.#failed = false
    this.#isDown = false
    await this.#deliver(events)
    this.#pauseMs =
      events.length > 0
        ? timing.intervalMs
        : Math.min(timing.idleIntervalMs, Math.max(timing.intervalMs, 2 * this.#pauseMs))
    this.#plan(this.#pauseMs)
  }

  async #deliver(events: readonly TrtllmEvent[]): Promise<void> {
    const { log, name, turn } = this.#o
    const byRank = Map.groupBy(events, ({ rank }) => rank)
    const whole = this.#workers.get(null)
    if (whole !== undefined && [...byRank.keys()].some((rank) => rank > 0)) {
      whole.giveUp()
      log.warn(
        { worker: name },
        'KV events: the engine has several ranks and chooses among them itself, so nobody can tell which cache a request meets: routed by what is sent to it',
      )
    }
    for (const [rank, worker] of this.#workers) {
      const own = byRank.get(rank ?? 0) ?? []
      byRank.delete(rank ?? 0)
      await worker.take(own, turn)
    }
    for (const others of byRank.values()) this.#first()?.skipped('rank_unknown', others.length)
  }

  /** A poll failed that may have taken events. */
  #lose(reason: string): void {
    for (const worker of this.#workers.values()) worker.lose()
    this.#fail(reason)
  }

  #fail(reason: string): void {
    const { log, name } = this.#o
    for (const worker of this.#workers.values()) worker.doubt()
    if (!this.#failed) {
      this.#first()?.disconnect()
      log.warn({ worker: name, reason }, 'KV events: they cannot be polled')
    }
    this.#failed = true
    this.#pauseMs = Math.min(failedRetryMs, Math.max(this.#o.timing().idleIntervalMs, 2 * this.#pauseMs))
    this.#plan(this.#pauseMs)
  }

  #first(): TrtllmWorker | undefined {
    return this.#workers.values().next().value
  }
}
