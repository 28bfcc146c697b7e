import type { StreamEntry } from './entry.ts'

/** Reads streams of Redis. */
export interface StreamReader {
  /** Hands on what the stream holds, from its oldest entry on, and then what is appended, until it is stopped. */
  follow(stream: string, options: StreamOptions, listener: StreamListener): StreamReading
}

export interface StreamOptions {
  /** Entries older than the newest by more than this are removed from the stream; null: none are. */
  readonly retainMs: number | null
}

export interface StreamReading {
  /** Begins again with the oldest entry; nothing that was read before is handed on any more. */
  rewind(): void
  /** Nothing is handed on any more. */
  stop(): void
}

/**
 * Told in the order of the stream, in slices that leave others their turn of the event loop. What is told after Redis was
 * away goes on where it stopped. A stream that began anew, with smaller ids, is read from its oldest entry.
 */
export interface StreamListener {
  connected(): void
  disconnected(): void
  entries(entries: readonly StreamEntry[]): void
  /** There is nothing behind what was handed on; told once after `connected`, `rewind` and each run of entries. */
  caughtUp(): void
}
