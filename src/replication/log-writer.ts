import type { Metrics } from '../telemetry/metrics.ts'
import type { RedisCommands } from './redis-commands.ts'
import { faultOf, type RedisReason } from './redis-fault.ts'

/** Name of the one field of an entry; the digit is the version of what lies in it. */
export const entryField = 'v1'

export interface LogWriterOptions {
  readonly commands: Pick<RedisCommands, 'append' | 'trimBefore'>
  /** Key of the stream. */
  readonly stream: string
  /** Its short name in metrics. */
  readonly name: string
  /** Entries that the stream keeps, about. */
  readonly maxEntries: number
  /** Older entries go, about. */
  readonly maxAgeMs: number
  /** An entry is sent once it has so many blocks; before that, within a turn of the event loop or two. */
  readonly entryBlocks: number
  /** Frames that Redis has not confirmed, in bytes. */
  readonly bufferBytes: number
  /** Milliseconds of a monotonic clock. */
  readonly clock: () => number
  readonly metrics: Metrics
  /** Frames were lost, those that waited and maybe some before; nothing is taken until `resume`. Told once. */
  readonly onBroken: (reason: RedisReason) => void
}

/** Also with many blocks still to come, an entry is sent at this size: a larger one would hold up the others' answers. */
const entryBytes = 256 * 1024
/** While entries are under way further frames gather for so long; the first after a pause is sent with its turn's end. */
const gatherMs = 1
const entriesUnderWay = 8
/** Points in time that are kept to trim by; trims are this far apart, as a share of the age. */
const ageShare = 32

interface Entry {
  readonly frames: readonly Buffer[]
  readonly bytes: number
}

/**
 * Appends frames to a stream, in order, several to an entry. Frames lie in an entry one after the other as they were given:
 * they must tell their own length.
 *
 * When Redis refuses or does not answer, or more than `bufferBytes` would wait for it, everything that waits is dropped and
 * counted, and the owner is told once. What was under way then may be in the stream or not, or get there later, as a frozen
 * Redis does what it was sent; so the owner begins something new that its readers can tell from the old.
 */
export class LogWriter {
  readonly #o: LogWriterOptions
  #gathered: Buffer[] = []
  #gatheredBytes = 0
  #gatheredBlocks = 0
  #ready: Entry[] = []
  #bufferedBytes = 0
  #underWay = 0
  /** Answers of an earlier term count for nothing. */
  #term = 0
  #isBroken = false
  #isDue = false
  #cancel: (() => void) | null = null
  /** When which id was the last, by our clock, oldest first. */
  #ages: { readonly atMs: number; readonly id: string }[] = []

  constructor(options: LogWriterOptions) {
    this.#o = options
  }

  get isBroken(): boolean {
    return this.#isBroken
  }

  /** Bytes that Redis has not confirmed. */
  get bufferedBytes(): number {
    return this.#bufferedBytes
  }

  /** Takes a frame that tells of so many blocks; false when it was dropped. */
  append(frame: Buffer, blocks: number): boolean {
    if (this.#isBroken) return this.#dropped(1, 'broken')
    if (this.#bufferedBytes + frame.length > this.#o.bufferBytes) {
      this.#break('full', 1)
      return false
    }
    this.#gathered.push(frame)
    this.#gatheredBytes += frame.length
    this.#gatheredBlocks += blocks
    this.#bufferedBytes += frame.length
    if (this.#gatheredBlocks >= this.#o.entryBlocks || this.#gatheredBytes >= entryBytes) this.#cut()
    else this.#arm()
    this.#send()
    return true
  }

  /** Takes frames again. */
  resume(): void {
    this.#isBroken = false
  }

  /** Drops what waits, quietly. */
  stop(): void {
    this.#isBroken = true
    this.#forget()
  }

  #arm(): void {
    if (this.#cancel !== null || this.#isDue) return
    const due = (): void => {
      this.#cancel = null
      this.#isDue = true
      this.#send()
    }
    if (this.#underWay === 0) {
      const immediate = setImmediate(due)
      this.#cancel = () => clearImmediate(immediate)
    } else {
      const timer = setTimeout(due, gatherMs)
      this.#cancel = () => clearTimeout(timer)
    }
  }

  #disarm(): void {
    this.#cancel?.()
    this.#cancel = null
    this.#isDue = false
  }

  /** What was gathered becomes an entry. */
  #cut(): void {
    this.#disarm()
    if (this.#gathered.length === 0) return
    this.#ready.push({ frames: this.#gathered, bytes: this.#gatheredBytes })
    this.#gathered = []
    this.#gatheredBytes = 0
    this.#gatheredBlocks = 0
  }

  #send(): void {
    while (this.#underWay < entriesUnderWay) {
      // What is due goes on gathering while there is no room to send it.
      if (this.#ready.length === 0 && this.#isDue) this.#cut()
      const entry = this.#ready.shift()
      if (entry === undefined) return
      void this.#append(entry)
    }
  }

  async #append({ frames, bytes }: Entry): Promise<void> {
    const term = this.#term
    const value = frames.length === 1 ? (frames[0] as Buffer) : Buffer.concat(frames, bytes)
    this.#underWay++
    try {
      const id = await this.#o.commands.append(this.#o.stream, entryField, value, this.#o.maxEntries)
      this.#o.metrics.streamFrames.add(frames.length, this.#o.name)
      if (term === this.#term) this.#bufferedBytes -= bytes
      this.#age(id)
    } catch (error) {
      if (term === this.#term) this.#break(faultOf(error).reason, frames.length)
      else this.#dropped(frames.length, faultOf(error).reason)
    } finally {
      this.#underWay--
    }
    this.#send()
  }

  #break(reason: RedisReason, lost: number): void {
    this.#isBroken = true
    const waiting = this.#ready.reduce((sum, { frames }) => sum + frames.length, this.#gathered.length)
    this.#dropped(waiting + lost, reason)
    this.#forget()
    this.#o.onBroken(reason)
  }

  #forget(): void {
    this.#term++
    this.#disarm()
    this.#gathered = []
    this.#gatheredBytes = 0
    this.#gatheredBlocks = 0
    this.#ready = []
    this.#bufferedBytes = 0
  }

  #dropped(frames: number, reason: string): false {
    this.#o.metrics.streamFramesDropped.add(frames, this.#o.name, reason)
    return false
  }

  /**
   * Trims by age with ids alone: what was the last entry that long ago by our own clock is the oldest that stays. A clock of
   * Redis that jumps moves nothing.
   */
  #age(id: string): void {
    const nowMs = this.#o.clock()
    const last = this.#ages.at(-1)
    if (last !== undefined && nowMs - last.atMs < this.#o.maxAgeMs / ageShare) return
    this.#ages.push({ atMs: nowMs, id })
    const young = this.#ages.findIndex(({ atMs }) => nowMs - atMs < this.#o.maxAgeMs)
    if (young < 1) return
    const oldest = this.#ages[young - 1]
    this.#ages = this.#ages.slice(young)
    // Whether it succeeds or not, the next one does it again, and the stream is bounded by its number of entries anyway.
    if (oldest !== undefined) this.#o.commands.trimBefore(this.#o.stream, oldest.id).catch(() => undefined)
  }
}
