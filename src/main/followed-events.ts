import type { Ingest } from '../events/ingest.ts'
import type { EventSource, EventSourceState, StartingPoint } from '../events/source.ts'
import type { NamedBatch } from '../kv/batch.ts'
import { Feed } from '../replication/feed.ts'
import type { LogFrame } from '../replication/frame.ts'
import type { Log } from '../telemetry/log.ts'

export interface FollowedTiming {
  /** For which a log that does not continue what is known is waited for. */
  readonly graceMs: number
  /** For which Redis may be away before the engine is asked instead. */
  readonly fallbackMs: number
  readonly markMs: number
  /** For which the lease's holder may be without the engine's events before it lets somebody else try. */
  readonly yieldMs: number
}

export interface FollowedEventsOptions {
  /** The worker's id. */
  readonly worker: string
  readonly ingest: Ingest
  /** A source of the engine's own events; a new one each time. */
  readonly listen: () => EventSource
  readonly isHeardByMany: boolean
  /** Whose holder writes the worker's events; workers whose events only one replica can take, and only together, have one. */
  readonly lease: string
  /** Whether the lease is let go where the engine is not heard. */
  readonly mayYield: boolean
  readonly timing: FollowedTiming
  readonly log: Log
  readonly publish: (frame: LogFrame) => void
  readonly apart: () => void
  /** The lease is better held by somebody else. */
  readonly yield: () => void
  /** The engine is another process, by the log. */
  readonly onRestart: () => void
  readonly onStart: () => void
  readonly onStop: () => void
}

/** The KV events of a worker that several replicas share: from the log that one of them writes, or from the engine. */
export class FollowedEvents implements EventSource {
  readonly #o: FollowedEventsOptions
  readonly #feed: Feed
  #source: EventSource | null = null
  #started = false
  #gaps = 0
  #restarts = 0
  #deafSinceMs: number | null = null

  constructor(options: FollowedEventsOptions) {
    this.#o = options
    const { worker, isHeardByMany, timing, ingest } = options
    this.#feed = new Feed(
      { worker, isHeardByMany, ...timing },
      {
        listen: (position, partial) => this.#listen({ position, partial }),
        unlisten: () => this.#unlisten(),
        follow: (batch) => ingest.follow(batch),
        forget: (reason) => this.#forget(reason),
        publish: options.publish,
        apart: () => {
          options.log.info({ worker }, 'KV events: the log does not continue what is known')
          options.apart()
        },
      },
    )
  }

  get worker(): string {
    return this.#o.worker
  }

  get lease(): string {
    return this.#o.lease
  }

  get isHeardByMany(): boolean {
    return this.#o.isHeardByMany
  }

  /** Where what is known of the worker comes from, and whether the others follow us. */
  get via(): 'log' | 'engine' {
    return this.#feed.mode === 'following' ? 'log' : 'engine'
  }

  get isStarted(): boolean {
    return this.#started
  }

  /** Whether what is known is the engine's present state, as far as one can tell. */
  get isSettled(): boolean {
    return this.#started && this.status().state === 'live'
  }

  start(from?: StartingPoint): void {
    if (this.#started) return
    this.#started = true
    if (from === undefined) this.#o.ingest.forget('start')
    else this.#feed.restore(from.position, from.partial)
    this.#o.onStart()
  }

  async stop(): Promise<void> {
    this.#started = false
    this.#o.onStop()
    const source = this.#source
    this.#source = null
    await source?.stop()
  }

  status(): EventSourceState {
    const { ingest } = this.#o
    const own = this.#source?.status()
    const counted = { gaps: this.#gaps + (own?.gaps ?? 0), restarts: this.#restarts + (own?.restarts ?? 0) }
    const epoch = ingest.epoch
    if (own !== undefined) return { ...own, ...counted, epoch }
    const { joined, position, partial } = this.#feed
    const state = !this.#started ? 'absent' : joined ? 'live' : position === null ? 'unknown' : 'replaying'
    return { state, lastSequence: position?.sequence ?? null, partial, ...counted, epoch }
  }

  /** Whoever writes the log finds out for itself; what we hear ourselves is ours to doubt. */
  workerDown(): void {
    this.#source?.workerDown()
  }

  heard(batch: NamedBatch): void {
    this.#feed.heard(batch)
  }

  forgotten(reason: string): void {
    this.#feed.forgotten(reason)
  }

  frame(frame: LogFrame): void {
    if (this.#started) this.#feed.frame(frame)
  }

  own(session: number): void {
    this.#deafSinceMs = null
    this.#feed.own(session)
  }

  disown(): void {
    this.#feed.disown()
  }

  logIs(state: 'up' | 'away', nowMs: number): void {
    this.#feed.logIs(state, nowMs)
  }

  logBegan(): void {
    this.#feed.logBegan()
  }

  markSoon(): void {
    this.#feed.markSoon()
  }

  tick(nowMs: number, isCaughtUp: boolean): void {
    if (!this.#started) return
    this.#feed.tick(nowMs, isCaughtUp)
    const isDeaf = this.#o.mayYield && this.#source !== null && this.#source.status().state !== 'live'
    if (!isDeaf) this.#deafSinceMs = null
    else this.#deafSinceMs ??= nowMs
    if (this.#deafSinceMs === null || nowMs - this.#deafSinceMs < this.#o.timing.yieldMs) return
    this.#deafSinceMs = nowMs
    this.#o.yield()
  }

  #listen(from: StartingPoint): void {
    this.#source = this.#o.listen()
    this.#source.start(from)
  }

  #unlisten(): boolean {
    const source = this.#source
    this.#source = null
    if (source === null) return this.#feed.partial
    const { gaps, restarts, partial } = source.status()
    this.#gaps += gaps
    this.#restarts += restarts
    void source.stop()
    return partial
  }

  #forget(reason: string): void {
    const { ingest, log, worker, onRestart } = this.#o
    ingest.forget(reason)
    log.info({ worker, reason, epoch: ingest.epoch }, 'KV events: cleared, as the log says')
    if (reason !== 'restart') return
    this.#restarts++
    onRestart()
  }
}
