import { isSamePosition, type EventPosition, type NamedBatch } from '../kv/batch.ts'
import type { BatchFrame, ClearFrame, LogFrame } from './frame.ts'
import { History } from './history.ts'

/** What the state machine asks for; called synchronously, in order. */
export interface FeedOutputs {
  /** Listens to the engine itself from here on; what is applied so far has to be proved by it. */
  listen(position: EventPosition | null, partial: boolean): void
  /** Stops listening; answers whether the engine may hold more than is known. */
  unlisten(): boolean
  /** Applies a batch of the log. */
  follow(batch: NamedBatch): void
  /** Forgets the worker's blocks. */
  forget(reason: string): void
  publish(frame: LogFrame): void
  /** The log does not continue what is known. */
  apart(): void
}

export interface FeedOptions {
  readonly worker: string
  /**
   * Whether several may hear the engine at the same time; otherwise only the lease's holder does, or whoever was never told
   * of one.
   */
  readonly isHeardByMany: boolean
  /** For which a log that does not continue what is known is waited for, before the engine itself is asked. */
  readonly graceMs: number
  /** For which the log may be away. */
  readonly fallbackMs: number
  /** Between two marks of the lease's holder. */
  readonly markMs: number
}

/**
 * Where one worker's events come from in this replica, so that its entries in the map are those of one engine process,
 * whichever way its batches came.
 *
 *                     the lease is ours · the log is away · the log does not go on where we stand
 *      following ──────────────────────────────────────────────────────────────────────────────► listening
 *      the log     ◄──────────────────────────────────────────────────────────────────────────  to the engine
 *                     the lease is another's, and the log stands where we have been
 *
 * Batches are known again by their positions (number and time), so that it does not matter from where one was had: one that
 * names our position as the one before continues it, one that we have been through is old, and any other shows that
 * something is missing. Then the engine itself is asked, which replays what is missing or makes us forget. Pure: no clock,
 * no sockets.
 */
export class Feed {
  readonly #o: FeedOptions
  readonly #out: FeedOutputs
  readonly #history = new History()
  #position: EventPosition | null = null
  #partial = false
  #mode: 'following' | 'listening' = 'following'
  /** Whether the log continues what is known. */
  #joined = false
  /** Session of the log's present writer; null before the first frame. */
  #session: number | null = null
  /** Where the log stands by its last frame; undefined where that is unknown. */
  #logPosition: EventPosition | null | undefined = undefined
  /** Our own session while the lease is ours. */
  #owned: number | null = null
  /** Whether the log ever said anything of this worker: then somebody may be hearing its engine. */
  #isWritten = false
  #apartSinceMs: number | null = null
  #awaySinceMs: number | null = null
  #upSinceMs = -Infinity
  #markedMs = -Infinity

  constructor(options: FeedOptions, outputs: FeedOutputs) {
    this.#o = options
    this.#out = outputs
  }

  get mode(): 'following' | 'listening' {
    return this.#mode
  }

  /** Whether what is known is the engine's state as of the log's end. Says nothing while listening. */
  get joined(): boolean {
    return this.#joined
  }

  get position(): EventPosition | null {
    return this.#position
  }

  /** Whether the engine may hold blocks that were announced before what is known. Says nothing while listening. */
  get partial(): boolean {
    return this.#partial
  }

  /** Begins with what a snapshot brought: the log, or the engine, has to continue it. */
  restore(position: EventPosition | null, partial: boolean): void {
    this.#position = position
    this.#partial = partial
    this.#history.clear()
    if (position !== null) this.#history.add(position)
  }

  /** A frame of the log about this worker, in the log's order. */
  frame(frame: LogFrame): void {
    this.#isWritten = true
    if (frame.session === this.#owned) return
    if (frame.kind === 'mark' || this.#session === null) this.#session = frame.session
    if (frame.session !== this.#session) return
    if (frame.kind === 'batch') this.#batchFrame(frame)
    else if (frame.kind === 'clear') this.#clearFrame(frame)
    else {
      this.#logPosition = frame.position
      if (this.#owned !== null) {
        // Somebody else believes that the lease is theirs; the others must not stay with them.
        this.markSoon()
        return
      }
      // Only one may hear such an engine, and that is whoever wrote this.
      if (this.#mode === 'listening' && !this.#o.isHeardByMany) this.#unlisten()
      if (this.#mode === 'following' && this.#joined && !this.#hasBeenAt(frame.position)) this.#part()
      else this.#tryJoin()
    }
  }

  /** A batch from the engine was applied, while listening. */
  heard(batch: NamedBatch): void {
    this.#advance(batch)
    if (this.#owned !== null) {
      this.#out.publish({ kind: 'batch', worker: this.#o.worker, session: this.#owned, batch })
    } else this.#tryJoin()
  }

  /** What was known was forgotten, while listening. */
  forgotten(reason: string): void {
    this.#reset()
    if (this.#owned !== null) this.#out.publish({ kind: 'clear', worker: this.#o.worker, session: this.#owned, reason })
  }

  /** The lease is ours: the others follow what we hear from now on. */
  own(session: number): void {
    this.#owned = session
    this.#session = session
    this.#publishMark(session)
    if (this.#mode === 'following') this.#listen()
  }

  /** The lease is lost. */
  disown(): void {
    if (this.#owned === null) return
    this.#owned = null
    if (this.#o.isHeardByMany || this.#awaySinceMs !== null) return
    // Whoever takes the lease takes the engine's events, too.
    this.#unlisten()
    this.#part()
  }

  /** Whether the log can be read and written. */
  logIs(state: 'up' | 'away', nowMs: number): void {
    if (state === 'away') this.#awaySinceMs ??= nowMs
    else {
      this.#awaySinceMs = null
      this.#upSinceMs = nowMs
      if (this.#apartSinceMs !== null) this.#apartSinceMs = nowMs
      // What it said last is of before; whoever writes it now says where they are.
      if (this.#mode === 'listening') this.#logPosition = undefined
    }
  }

  /** The log is another one than was read so far. */
  logBegan(): void {
    this.#session = this.#owned
    this.#logPosition = undefined
    this.markSoon()
    if (this.#mode === 'following') this.#part()
  }

  /** Says at the next tick where we are, if the lease is ours. */
  markSoon(): void {
    this.#markedMs = -Infinity
  }

  /** To be called some times a second. */
  tick(nowMs: number, isCaughtUp: boolean): void {
    if (this.#owned !== null) {
      if (nowMs - this.#markedMs < this.#o.markMs) return
      this.#markedMs = nowMs
      this.#publishMark(this.#owned)
      return
    }
    if (this.#mode === 'listening') {
      // The lease is likely to become ours: nothing is missed if the engine is heard until it is another's.
      const mayStay = this.#awaySinceMs !== null || nowMs - this.#upSinceMs < this.#o.graceMs
      if (this.#o.isHeardByMany || mayStay) return
      this.#unlisten()
      this.#part()
    }
    if (this.#awaySinceMs !== null) {
      const isOurs = this.#o.isHeardByMany || !this.#isWritten
      if (isOurs && nowMs - this.#awaySinceMs >= this.#o.fallbackMs) this.#listen()
      return
    }
    if (this.#joined) return
    if (!isCaughtUp) this.#apartSinceMs = null
    else if (this.#apartSinceMs === null) this.#apartSinceMs = nowMs
    else if (this.#isHopeless || nowMs - this.#apartSinceMs >= this.#o.graceMs) this.#repair()
  }

  /** We know nothing and the log is in its middle: it will never begin for us. */
  get #isHopeless(): boolean {
    return this.#position === null && this.#logPosition !== undefined && this.#logPosition !== null
  }

  #batchFrame({ batch }: BatchFrame): void {
    const { sequence, timestamp, previous } = batch
    this.#logPosition = { sequence, timestamp }
    if (this.#owned !== null) return
    if (this.#mode === 'listening') {
      this.#tryJoin()
      return
    }
    if (isSamePosition(previous, this.#position) || this.#startsAnywhere()) {
      this.#joined = true
      this.#apartSinceMs = null
      this.#out.follow(batch)
      this.#advance(batch)
    } else if (this.#history.has(batch)) this.#join()
    else if (this.#joined) this.#part()
  }

  #clearFrame({ reason }: ClearFrame): void {
    this.#logPosition = null
    if (this.#owned !== null || this.#mode === 'listening' || !this.#joined) return
    this.#out.forget(reason)
    this.#reset()
  }

  /** Nothing is known of an engine that we cannot ask: whatever the log says next is a beginning. */
  #startsAnywhere(): boolean {
    return this.#position === null && !this.#o.isHeardByMany
  }

  #advance({ sequence, timestamp, previous }: NamedBatch): void {
    if (previous === null || this.#position === null) this.#partial = sequence > 0
    this.#position = { sequence, timestamp }
    this.#history.add(this.#position)
  }

  #reset(): void {
    this.#position = null
    this.#partial = true
    this.#history.clear()
  }

  #hasBeenAt(position: EventPosition | null): boolean {
    if (isSamePosition(position, this.#position)) return true
    return position !== null && this.#history.has(position)
  }

  #tryJoin(): void {
    if (this.#owned !== null || this.#logPosition === undefined || !this.#hasBeenAt(this.#logPosition)) return
    if (this.#mode === 'listening') {
      if (this.#awaySinceMs !== null) return
      // What was heard before nothing was known may still be on its way.
      if (this.#logPosition === null) return
      this.#unlisten()
    }
    this.#join()
  }

  #join(): void {
    this.#joined = true
    this.#apartSinceMs = null
  }

  #part(): void {
    if (this.#joined) this.#out.apart()
    this.#joined = false
  }

  #repair(): void {
    this.#apartSinceMs = null
    if (this.#o.isHeardByMany) this.#listen()
    else if (this.#position !== null) {
      this.#out.forget('gap')
      this.#reset()
    }
  }

  #listen(): void {
    this.#mode = 'listening'
    this.#joined = false
    this.#apartSinceMs = null
    this.#out.listen(this.#position, this.#partial)
  }

  #unlisten(): void {
    this.#mode = 'following'
    this.#partial = this.#out.unlisten()
  }

  #publishMark(session: number): void {
    this.#out.publish({ kind: 'mark', worker: this.#o.worker, session, position: this.#position })
  }
}
