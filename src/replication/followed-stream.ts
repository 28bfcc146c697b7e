import type { StreamEntry } from './redis-commands.ts'

/** Told what a stream holds, in its order. */
export interface StreamFollower {
  connected(): void
  disconnected(): void
  entries(entries: readonly StreamEntry[]): void
  /** There is nothing behind what was told. */
  caughtUp(): void
}

const beginning = '0-0'

/** How far a stream was read for one follower. */
export class FollowedStream {
  readonly stream: string
  readonly #retainMs: number | null
  readonly #follower: StreamFollower
  /** Changes whenever an answer under way is of no use any more. */
  generation = 0
  lastId = beginning
  isCaughtUp = false
  pausedUntilMs = -Infinity
  /** When to look next whether it began anew. */
  lookAtMs = -Infinity
  hasWarned = false
  #isConnected = false
  #trimmedTo = beginning

  constructor(stream: string, retainMs: number | null, follower: StreamFollower) {
    this.stream = stream
    this.#retainMs = retainMs
    this.#follower = follower
  }

  connect(): void {
    if (this.#isConnected) return
    this.#isConnected = true
    this.#follower.connected()
  }

  /** What is read next goes on where this ends. */
  disconnect(): void {
    this.isCaughtUp = false
    if (!this.#isConnected) return
    this.#isConnected = false
    this.generation++
    this.#follower.disconnected()
  }

  take(entries: readonly StreamEntry[]): void {
    const last = entries.at(-1)
    if (last === undefined) return
    this.lastId = last.id
    this.isCaughtUp = false
    this.#follower.entries(entries)
  }

  catchUp(): void {
    this.isCaughtUp = true
    this.#follower.caughtUp()
  }

  rewind(): void {
    this.generation++
    this.lastId = beginning
    this.#trimmedTo = beginning
    this.isCaughtUp = false
  }

  /** Nothing is told any more. */
  leave(): void {
    this.generation++
  }

  /** Entries before this id are too old; null where there is nothing new to say. By the stream's own ids: no clock is asked. */
  trimTo(lastId: string): string | null {
    const newestMs = Number.parseInt(lastId, 10)
    if (this.#retainMs === null || newestMs <= this.#retainMs) return null
    const id = `${newestMs - this.#retainMs}-0`
    if (!isBefore(this.#trimmedTo, id)) return null
    this.#trimmedTo = id
    return id
  }
}

/** Ids are a time in milliseconds, a dash, and a count. */
export function isBefore(one: string, other: string): boolean {
  const [oneMs = 0, oneCount = 0] = one.split('-').map(Number)
  const [otherMs = 0, otherCount = 0] = other.split('-').map(Number)
  return oneMs < otherMs || (oneMs === otherMs && oneCount < otherCount)
}
