import type { StreamEntry } from '../../src/events/stream/entry.ts'
import type { StreamListener, StreamOptions, StreamReader, StreamReading } from '../../src/events/stream/reader.ts'

export type EntryFields = Readonly<Record<string, string | Buffer>>

export function fieldsOf(fields: EntryFields): Buffer[] {
  return Object.entries(fields).flatMap(([name, value]) => [Buffer.from(name), Buffer.from(value)])
}

/** Streams in memory, with the first number of an id only; what is told is told from the event loop, some at a time. */
export class FakeStreams implements StreamReader {
  readonly #streams = new Map<string, StreamEntry[]>()
  readonly #followers = new Set<Follower>()
  #isUp = true
  #nextId = 1

  append(stream: string, fields: EntryFields): void {
    const entries = this.#streams.get(stream) ?? []
    this.#streams.set(stream, entries)
    entries.push({ id: `${this.#nextId++}-0`, fields: fieldsOf(fields) })
    this.#wake()
  }

  /** Loses the oldest entries. */
  trim(stream: string, kept: number): void {
    const entries = this.#streams.get(stream) ?? []
    entries.splice(0, entries.length - kept)
  }

  /** Everything is gone, and ids begin again. */
  wipe(): void {
    this.#streams.clear()
    this.#nextId = 1
    this.#wake()
  }

  cut(): void {
    this.#isUp = false
    for (const follower of this.#followers) follower.cut()
  }

  heal(): void {
    this.#isUp = true
    this.#wake()
  }

  follow(stream: string, _options: StreamOptions, listener: StreamListener): StreamReading {
    const follower = new Follower(listener, () => (this.#isUp ? (this.#streams.get(stream) ?? []) : null))
    this.#followers.add(follower)
    follower.wake()
    return {
      rewind: () => follower.rewind(),
      stop: () => {
        follower.stop()
        this.#followers.delete(follower)
      },
    }
  }

  #wake(): void {
    for (const follower of this.#followers) follower.wake()
  }
}

const sliceEntries = 3

class Follower {
  readonly #listener: StreamListener
  readonly #entries: () => readonly StreamEntry[] | null
  #last = 0
  #isConnected = false
  #hasTold = false
  #planned: NodeJS.Immediate | null = null

  constructor(listener: StreamListener, entries: () => readonly StreamEntry[] | null) {
    this.#listener = listener
    this.#entries = entries
  }

  wake(): void {
    this.#planned ??= setImmediate(() => {
      this.#planned = null
      this.#step()
    })
  }

  cut(): void {
    if (this.#isConnected) this.#listener.disconnected()
    this.#isConnected = false
  }

  rewind(): void {
    this.#last = 0
    this.#hasTold = false
    this.wake()
  }

  stop(): void {
    if (this.#planned !== null) clearImmediate(this.#planned)
  }

  #step(): void {
    const entries = this.#entries()
    if (entries === null) return
    if (!this.#isConnected) {
      this.#isConnected = true
      this.#hasTold = false
      this.#listener.connected()
    }
    const newest = entries.at(-1)
    if (newest !== undefined && numberOf(newest) < this.#last) this.#last = 0
    const next = entries.filter((entry) => numberOf(entry) > this.#last).slice(0, sliceEntries)
    const last = next.at(-1)
    if (last !== undefined) {
      this.#last = numberOf(last)
      this.#hasTold = false
      this.#listener.entries(next)
      this.wake()
    } else if (!this.#hasTold) {
      this.#hasTold = true
      this.#listener.caughtUp()
    }
  }
}

const numberOf = ({ id }: StreamEntry): number => Number.parseInt(id, 10)
