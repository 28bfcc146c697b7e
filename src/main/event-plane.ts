import type { NamedBatch } from '../kv/batch.ts'
import type { LogFrame } from '../replication/frame.ts'
import { decodeFrames, encodeFrame } from '../replication/frame-codec.ts'
import type { Log } from '../telemetry/log.ts'
import { FollowedEvents, type FollowedEventsOptions, type FollowedTiming } from './followed-events.ts'

export interface EventPlaneOptions {
  /** Appends a frame to the log, or drops it. */
  readonly append: (frame: Buffer, blocks: number) => void
  /** The log did not continue what was known of a worker. */
  readonly apart: (worker: string) => void
  readonly leases: {
    want(name: string): void
    drop(name: string): void
    /** Gives a lease back for a while, if it is ours. */
    yield(name: string): void
    /** Leaves a lease to others for the moment that its last holder needs to take it back. */
    defer(name: string): void
  }
  readonly timing: FollowedTiming
  /** A number below 2^53 that no other replica draws. */
  readonly newSession: () => number
  /** Monotonic milliseconds. */
  readonly clock: () => number
  readonly log: Log
  /** Frames of the log that could not be read. */
  readonly unread: (frames: number) => void
}

/** What a worker's events are shared by. */
export type FollowedParts = Pick<
  FollowedEventsOptions,
  'worker' | 'lease' | 'ingest' | 'listen' | 'isHeardByMany' | 'mayYield' | 'onRestart'
>

/**
 * The workers' events as several replicas share them: hands the frames of the log to the workers that they are about, and
 * the leases to those whose events this replica is to write.
 */
export class EventPlane {
  readonly #o: EventPlaneOptions
  readonly #byWorker = new Map<string, FollowedEvents>()
  readonly #byLease = new Map<string, Set<FollowedEvents>>()
  readonly #owned = new Map<string, number>()
  /** Since when leases have run out of engines that one replica only may hear, and none is known to have taken them. */
  readonly #lapsedSinceMs = new Map<string, number>()
  #isOpen = false
  #state: 'up' | 'away' = 'away'

  constructor(options: EventPlaneOptions) {
    this.#o = options
  }

  /** A worker's events; they wait until the plane is open. */
  source(parts: FollowedParts): FollowedEvents {
    const { lease } = parts
    const events: FollowedEvents = new FollowedEvents({
      ...parts,
      timing: this.#o.timing,
      log: this.#o.log,
      publish: (frame) => this.#o.append(encodeFrame(frame), blocksIn(frame)),
      apart: () => this.#o.apart(parts.worker),
      yield: () => this.#o.leases.yield(lease),
      onStart: () => this.#add(events, lease),
      onStop: () => this.#remove(events, lease),
    })
    return events
  }

  /** Those that wait for the plane to open, or have. */
  followed(): IterableIterator<FollowedEvents> {
    return this.#byWorker.values()
  }

  /** Whether every worker's events are as they are now, as far as one can tell. */
  get isSettled(): boolean {
    return [...this.#byWorker.values()].every((events) => events.isSettled)
  }

  /** Leases that are ours. */
  get owned(): ReadonlySet<string> {
    return new Set(this.#owned.keys())
  }

  /** From now on the log is read, and leases are taken. */
  open(state: 'up' | 'away'): void {
    this.#isOpen = true
    this.#state = state
    for (const [lease, sharers] of this.#byLease) for (const events of sharers) this.#admit(events, lease)
  }

  /** An entry of the log. */
  received(bytes: Buffer): void {
    const unread = decodeFrames(bytes, (frame) => {
      const events = this.#byWorker.get(frame.worker)
      if (events === undefined) return
      if (this.#lapsedSinceMs.has(events.lease) && frame.session !== this.#owned.get(events.lease))
        this.#disown(events.lease)
      events.frame(frame)
    })
    if (unread > 0) this.#o.unread(unread)
  }

  /** Whether nobody else is known to take the events of an engine that gives each out once. */
  mayPoll(lease: string): boolean {
    return !this.#lapsedSinceMs.has(lease)
  }

  acquired(lease: string): void {
    const session = this.#o.newSession()
    this.#owned.set(lease, session)
    this.#lapsedSinceMs.delete(lease)
    for (const events of this.#byLease.get(lease) ?? []) events.own(session)
  }

  lost(lease: string): void {
    if (!this.#owned.has(lease)) return
    // It may have run out as Redis froze, which shows a moment later: then whoever had it last goes on.
    if (this.#state === 'up' && this.#isForOne(lease)) this.#lapsedSinceMs.set(lease, this.#o.clock())
    else this.#disown(lease)
  }

  logIs(state: 'up' | 'away'): void {
    this.#state = state
    if (!this.#isOpen) return
    for (const events of this.#byWorker.values()) events.logIs(state, this.#o.clock())
    if (state === 'away') for (const lease of [...this.#lapsedSinceMs.keys()]) this.#disown(lease)
  }

  logBegan(): void {
    for (const events of this.#byWorker.values()) events.logBegan()
  }

  /** Says at the next tick where the workers are whose writer we are. */
  markAll(): void {
    for (const events of this.#byWorker.values()) events.markSoon()
  }

  /** To be called some ten times a second. */
  tick(isCaughtUp: boolean): void {
    if (!this.#isOpen) return
    const nowMs = this.#o.clock()
    for (const [lease, sinceMs] of [...this.#lapsedSinceMs])
      if (nowMs - sinceMs >= this.#o.timing.fallbackMs) this.#disown(lease)
    if (this.#state === 'away') this.#deferAll()
    for (const events of this.#byWorker.values()) events.tick(nowMs, isCaughtUp)
  }

  #disown(lease: string): void {
    this.#lapsedSinceMs.delete(lease)
    if (!this.#owned.delete(lease)) return
    for (const events of this.#byLease.get(lease) ?? []) events.disown()
  }

  /** Without Redis the last holder alone goes on hearing such an engine; any other would find that it missed something. */
  #deferAll(): void {
    for (const [lease, sharers] of this.#byLease)
      if (this.#isForOne(lease) && [...sharers].every(({ via }) => via === 'log')) this.#o.leases.defer(lease)
  }

  #isForOne(lease: string): boolean {
    return [...(this.#byLease.get(lease) ?? [])].some(({ isHeardByMany }) => !isHeardByMany)
  }

  #add(events: FollowedEvents, lease: string): void {
    this.#byWorker.set(events.worker, events)
    const sharers = this.#byLease.get(lease) ?? new Set()
    this.#byLease.set(lease, sharers.add(events))
    if (this.#isOpen) this.#admit(events, lease)
  }

  #admit(events: FollowedEvents, lease: string): void {
    // With nobody to wait for, the engine is asked at once.
    if (this.#state === 'away') events.logIs('away', -Infinity)
    this.#o.leases.want(lease)
    const session = this.#owned.get(lease)
    if (session !== undefined) events.own(session)
  }

  #remove(events: FollowedEvents, lease: string): void {
    if (this.#byWorker.get(events.worker) === events) this.#byWorker.delete(events.worker)
    const sharers = this.#byLease.get(lease)
    if (sharers?.delete(events) !== true || sharers.size > 0) return
    this.#byLease.delete(lease)
    this.#owned.delete(lease)
    this.#lapsedSinceMs.delete(lease)
    this.#o.leases.drop(lease)
  }
}

function blocksIn(frame: LogFrame): number {
  return frame.kind === 'batch' ? frame.batch.events.reduce(addBlocks, 0) : 0
}

function addBlocks(sum: number, event: NamedBatch['events'][number]): number {
  return 'engineHashes' in event ? sum + event.engineHashes.length / 2 : sum
}
