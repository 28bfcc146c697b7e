import assert from 'node:assert/strict'
import type { Metrics } from '../telemetry/metrics.ts'
import type { RedisLink } from './link.ts'
import { entryField } from './log-writer.ts'
import { Sleep } from './sleep.ts'
import type { RedisCommands, StreamEntries, StreamEntry, StreamReads } from './redis-commands.ts'

/** Before the first entry of any stream. */
export const streamStart = '0-0'

/**
 * Why entries may have been missed: the log was cut off before it was read, or lost its end in a failover; or it began
 * anew, since Redis lost its data.
 */
export type StreamGap = 'trimmed' | 'anew'

export interface StreamFollower {
  /** Key of the stream. */
  readonly stream: string
  /** Its short name in metrics. */
  readonly name: string
  /** Id of the entry after which reading begins. */
  readonly from: string
  /** Each entry once and in order; after a gap, those that are left from the oldest on, known ones among them. */
  readonly onEntry: (entry: StreamEntry) => void
  readonly onGap?: (gap: StreamGap) => void
  /** Everything that is there was read; told again each time after falling behind. */
  readonly onCaughtUp?: () => void
}

/** One stream that is being read. */
export interface Following {
  /** Id of the last entry that was handed on. */
  readonly position: string
  readonly isCaughtUp: boolean
  /** Since when not all that was there has been read; 0: it has. */
  behindMs(): number
  /** Goes on after this id instead. */
  readFrom(id: string): void
  leave(): void
}

export interface LogReaderOptions {
  readonly link: Pick<RedisLink, 'logId' | 'onLogId' | 'onUp'>
  /** On a connection that nobody else waits on. */
  readonly reads: StreamReads
  readonly commands: Pick<RedisCommands, 'range'>
  /** Milliseconds of a monotonic clock. */
  readonly clock: () => number
  readonly metrics: Metrics
}

/** Entries of each stream in one read: with the largest, some tens of megabytes. */
const entriesAtOnce = 128
/** A read that finds nothing ends after so long; new streams are read from then on. */
const waitMs = 500
/** Entries are handed on for so long before others get a turn of the event loop. */
const sliceMs = 4
const retryMs = 100

interface Followed {
  readonly follower: StreamFollower
  position: string
  /** Whether the last entry that was read might be gone, and others after it. */
  isUnsure: boolean
  isCaughtUp: boolean
  currentMs: number
  /** Counts changes of the position from outside, which what is being read then does not know. */
  version: number
}

/** Reads several streams in one loop, each from its own place, and hands their entries on in order. */
export class LogReader {
  readonly #o: LogReaderOptions
  readonly #followed = new Map<string, Followed>()
  readonly #sleep = new Sleep()
  readonly #deaf: readonly (() => void)[]
  #logId: string | null
  #isStopped = false
  #running: Promise<void> | null = null

  constructor(options: LogReaderOptions) {
    this.#o = options
    this.#logId = options.link.logId
    this.#deaf = [options.link.onUp(() => this.#sleep.cut()), options.link.onLogId((id) => this.#renamed(id))]
  }

  follow(follower: StreamFollower): Following {
    assert.ok(!this.#followed.has(follower.stream), 'a stream is followed once')
    const followed: Followed = {
      follower,
      position: follower.from,
      isUnsure: true,
      isCaughtUp: false,
      currentMs: this.#o.clock(),
      version: 0,
    }
    this.#followed.set(follower.stream, followed)
    this.#sleep.cut()
    return {
      get position() {
        return followed.position
      },
      get isCaughtUp() {
        return followed.isCaughtUp
      },
      behindMs: () => (followed.isCaughtUp ? 0 : this.#o.clock() - followed.currentMs),
      readFrom: (id) => moveTo(followed, id),
      leave: () => {
        followed.version++
        if (this.#followed.get(follower.stream) === followed) this.#followed.delete(follower.stream)
      },
    }
  }

  start(): void {
    this.#running ??= this.#run()
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    for (const end of this.#deaf) end()
    this.#sleep.end()
    await this.#running
  }

  async #run(): Promise<void> {
    while (!this.#isStopped) {
      const streams = [...this.#followed.values()].map((followed) => ({ followed, version: followed.version }))
      if (streams.length === 0) {
        await this.#sleep.of(waitMs)
        continue
      }
      const after = streams.map(({ followed }) => ({ stream: followed.follower.stream, id: followed.position }))
      // A failure is counted by the link, which also says what it means.
      const found = await this.#o.reads.read(after, entriesAtOnce, waitMs).catch(() => null)
      let isWhole = found !== null
      for (const { followed, version } of streams) {
        if (found === null) doubt(followed)
        else isWhole = (await this.#take(followed, version, found)) && isWhole
      }
      if (!isWhole) await this.#sleep.of(retryMs)
    }
  }

  /** False: Redis failed meanwhile, and nothing was handed on. */
  async #take(followed: Followed, version: number, found: readonly StreamEntries[]): Promise<boolean> {
    if (followed.version !== version) return true
    const { follower } = followed
    const entries = found.find(({ stream }) => stream === follower.stream)?.entries ?? []
    if (followed.isUnsure) {
      const isWhole = await this.#isWhole(followed).catch(() => null)
      if (followed.version !== version) return true
      if (isWhole === null) return doubt(followed)
      if (!isWhole) {
        this.#gap(followed, 'trimmed')
        return true
      }
    }
    await this.#handOn(followed, version, entries)
    if (followed.version !== version) return true
    const isAll = entries.length < entriesAtOnce
    // Who is far behind may be overtaken by the stream's cut.
    followed.isUnsure = !isAll
    if (isAll) followed.currentMs = this.#o.clock()
    if (isAll && !followed.isCaughtUp) {
      followed.isCaughtUp = true
      follower.onCaughtUp?.()
    } else if (!isAll) followed.isCaughtUp = false
    return true
  }

  async #handOn(followed: Followed, version: number, entries: readonly StreamEntry[]): Promise<void> {
    let sliceStartMs = this.#o.clock()
    let handedOn = 0
    for (const entry of entries) {
      if (followed.version !== version || this.#isStopped) break
      followed.position = entry.id
      followed.follower.onEntry(entry)
      handedOn++
      if (this.#o.clock() - sliceStartMs < sliceMs) continue
      await new Promise((resolve) => setImmediate(resolve))
      sliceStartMs = this.#o.clock()
    }
    this.#o.metrics.streamEntriesRead.add(handedOn, followed.follower.name)
  }

  /**
   * While the last entry that was read is still there, none after it was cut off, since streams lose their oldest first.
   * Asked after the read, so that nothing can happen in between.
   */
  async #isWhole({ follower, position }: Followed): Promise<boolean> {
    if (position === streamStart) return true
    return (await this.#o.commands.range(follower.stream, position, position, 1)).length > 0
  }

  #gap(followed: Followed, gap: StreamGap): void {
    this.#o.metrics.streamGaps.add(1, followed.follower.name, gap)
    // From the oldest: after a failover new entries may have smaller ids than the one that was read last.
    moveTo(followed, streamStart)
    followed.follower.onGap?.(gap)
  }

  #renamed(logId: string): void {
    const isFirst = this.#logId === null
    this.#logId = logId
    if (!isFirst) for (const followed of this.#followed.values()) this.#gap(followed, 'anew')
  }
}

/** The frames in an entry of a log; null: it is of another version. */
export function framesOf({ fields }: StreamEntry): Buffer | null {
  const at = fields.findIndex((field, index) => index % 2 === 0 && field.toString() === entryField)
  return at === -1 ? null : (fields[at + 1] ?? null)
}

/** What comes next must be checked against what was read last. */
function doubt(followed: Followed): false {
  followed.isUnsure = true
  followed.isCaughtUp = false
  return false
}

function moveTo(followed: Followed, id: string): void {
  followed.version++
  followed.position = id
  followed.isUnsure = true
  followed.isCaughtUp = false
}
