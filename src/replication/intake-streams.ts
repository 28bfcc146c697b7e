import type { Log } from '../telemetry/log.ts'
import { FollowedStream, isBefore, type StreamFollower } from './followed-stream.ts'
import { Sleep } from './sleep.ts'
import { faultOf } from './redis-fault.ts'
import type { RedisCommands, StreamEntries, StreamReads } from './redis-commands.ts'

/** What is needed of RedisLink. */
export interface IntakeLink {
  readonly state: { readonly kind: 'connecting' | 'up' | 'away' }
  readonly commands: Pick<RedisCommands, 'lastId' | 'trimBefore'>
  onUp(listener: () => void): () => void
  onAway(listener: () => void): () => void
  /** Redis holds other data than a moment ago. */
  onLogId(listener: () => void): () => void
  reads(): StreamReads & { close(): void }
}

export interface IntakeStreamsOptions {
  readonly link: IntakeLink
  /** Milliseconds of a monotonic clock. */
  readonly clock: () => number
  readonly log: Log
  /** Between two looks whether a stream began anew and what of it is too old. */
  readonly lookMs?: number
}

/** Of one stream in one answer; a long stream is never held in full. */
const entriesAtOnce = 64
/** A read that waits knows nothing of streams that are added meanwhile, so it ends after so long. */
const waitMs = 100
const defaultLookMs = 2000
/** A stream that cannot be read, such as a key of another type, is tried again after so long. */
const pauseMs = 1000
/** So long may the event loop be held. */
const sliceMs = 4
const sliceEntries = 8

/**
 * Streams that others write; every replica reads them by itself. Those that have been read to their end are waited on
 * together, the others are read by turns.
 */
export class IntakeStreams {
  readonly #o: IntakeStreamsOptions
  readonly #followed = new Set<FollowedStream>()
  readonly #reads: StreamReads & { close(): void }
  readonly #unlisten: readonly (() => void)[]
  readonly #sleep = new Sleep()
  #isRunning = false
  #isStopped = false
  #turn = 0

  constructor(options: IntakeStreamsOptions) {
    this.#o = options
    const { link } = options
    this.#reads = link.reads()
    this.#unlisten = [
      link.onUp(() => this.#start()),
      link.onAway(() => {
        for (const followed of this.#followed) followed.disconnect()
      }),
      link.onLogId(() => {
        for (const followed of this.#followed) followed.lookAtMs = -Infinity
      }),
    ]
  }

  /** Tells what the stream holds, from its oldest entry on, and then what is appended. */
  follow(
    stream: string,
    { retainMs }: { readonly retainMs: number | null },
    follower: StreamFollower,
  ): { rewind(): void; stop(): void } {
    const followed = new FollowedStream(stream, retainMs, follower)
    this.#followed.add(followed)
    this.#start()
    return {
      rewind: () => followed.rewind(),
      stop: () => {
        followed.leave()
        this.#followed.delete(followed)
      },
    }
  }

  stop(): void {
    this.#isStopped = true
    for (const unlisten of this.#unlisten) unlisten()
    this.#reads.close()
    this.#sleep.end()
  }

  get #mayRead(): boolean {
    return !this.#isStopped && this.#followed.size > 0 && this.#o.link.state.kind === 'up'
  }

  #start(): void {
    if (!this.#isRunning) void this.#run()
  }

  async #run(): Promise<void> {
    this.#isRunning = true
    while (this.#mayRead) {
      const nowMs = this.#o.clock()
      const ready = [...this.#followed].filter(({ pausedUntilMs }) => pausedUntilMs <= nowMs)
      for (const followed of ready) if (followed.lookAtMs <= nowMs) this.#look(followed, nowMs)
      const behind = ready.filter(({ isCaughtUp }) => !isCaughtUp)
      const ahead = ready.filter(({ isCaughtUp }) => isCaughtUp)
      if (ahead.length > 0) await this.#readTogether(ahead, behind.length > 0 ? 0 : waitMs)
      const next = behind[this.#turn++ % Math.max(1, behind.length)]
      if (next !== undefined) await this.#readAlone(next)
      if (ready.length === 0) await this.#sleep.of(waitMs)
    }
    this.#isRunning = false
  }

  /** One of them may spoil the answer for all; each is read alone then, which finds out the one. */
  async #readTogether(followed: readonly FollowedStream[], longestMs: number): Promise<void> {
    const ids = new Map<string, string>()
    for (const { stream, lastId } of followed) if (!ids.has(stream)) ids.set(stream, lastId)
    const asked = followed.filter(({ stream, lastId }) => ids.get(stream) === lastId).map(asNow)
    // Who shares a stream with another one and stands elsewhere in it is read alone until they stand together.
    for (const each of followed) if (ids.get(each.stream) !== each.lastId) each.isCaughtUp = false
    try {
      const after = [...ids].map(([stream, id]) => ({ stream, id }))
      await this.#handOn(asked, await this.#reads.read(after, entriesAtOnce, longestMs))
    } catch {
      for (const { each } of asked) each.isCaughtUp = false
      await this.#sleep.of(waitMs)
    }
  }

  async #readAlone(each: FollowedStream): Promise<void> {
    const asked = asNow(each)
    try {
      const answers = await this.#reads.read([{ stream: each.stream, id: each.lastId }], entriesAtOnce, 0)
      if (isPassed(asked)) return
      each.connect()
      if (answers.length === 0) each.catchUp()
      else await this.#handOn([asked], answers)
    } catch (error) {
      // Redis itself may be about to count as away, which is told by the link alone.
      if (this.#mayRead) this.#pause(each, error)
    }
  }

  /** In slices, between which others have their turn. */
  async #handOn(asked: readonly Asked[], answers: readonly StreamEntries[]): Promise<void> {
    let sliceEndMs = this.#o.clock() + sliceMs
    for (const one of asked) {
      const entries = answers.find(({ stream }) => stream === one.each.stream)?.entries ?? []
      for (let at = 0; at < entries.length && !isPassed(one); at += sliceEntries) {
        if (this.#o.clock() > sliceEndMs) {
          await new Promise((resolve) => setImmediate(resolve))
          sliceEndMs = this.#o.clock() + sliceMs
        }
        if (!isPassed(one)) one.each.take(entries.slice(at, at + sliceEntries))
      }
      if (entries.length > 0 && entries.length < entriesAtOnce && !isPassed(one)) one.each.catchUp()
    }
  }

  /**
   * Whether the stream began anew (ids grow along it, so its last one is not before what was read), and what of it is too
   * old. In this order, and by the id that the stream has now: by one
   * of before, all of a stream whose ids begin again would be too old.
   */
  #look(followed: FollowedStream, nowMs: number): void {
    followed.lookAtMs = nowMs + (this.#o.lookMs ?? defaultLookMs)
    const asked = asNow(followed)
    // Further entries may be read before the answer comes: it is about no more than what had been read when it was asked.
    const { stream, lastId: readTo } = followed
    const { link, log } = this.#o
    link.commands.lastId(stream).then(
      (lastId) => {
        if (lastId === null || isPassed(asked)) return
        if (isBefore(lastId, readTo)) {
          log.info({ stream }, 'KV events: a stream began anew')
          followed.rewind()
          return
        }
        const trimTo = followed.trimTo(lastId)
        if (trimTo === null) return
        link.commands.trimBefore(stream, trimTo).catch((error: unknown) => this.#warn(followed, error, 'trimmed'))
      },
      // What keeps it from being answered is told where the stream is read.
      () => undefined,
    )
  }

  #pause(followed: FollowedStream, error: unknown): void {
    followed.disconnect()
    followed.pausedUntilMs = this.#o.clock() + pauseMs
    this.#warn(followed, error, 'read')
  }

  /** Once for each stream: it would come again with every try. */
  #warn(followed: FollowedStream, error: unknown, what: 'read' | 'trimmed'): void {
    if (followed.hasWarned || !this.#mayRead) return
    followed.hasWarned = true
    const { reason, message } = faultOf(error)
    this.#o.log.warn({ stream: followed.stream, reason, message }, `KV events: a stream cannot be ${what}`)
  }
}

/** Whom an answer is for, and where that one stood when it was asked. */
interface Asked {
  readonly each: FollowedStream
  readonly generation: number
}

const asNow = (each: FollowedStream): Asked => ({ each, generation: each.generation })

/** Whether the answer is of no use any more. */
const isPassed = ({ each, generation }: Asked): boolean => each.generation !== generation
