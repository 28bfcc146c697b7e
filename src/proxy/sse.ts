const lineFeed = 10
const carriageReturn = 13
const empty = Buffer.alloc(0)
/** Bytes of what is held that may belong to a blank line which the next chunk completes. */
const overlapBytes = 3

/**
 * Passes a server-sent event stream on up to its last complete event and holds the rest until the event's blank line
 * has come, so that a client never sees half an event when the worker dies (decision 21). Bytes are never changed; a
 * chunk that ends with a complete event, as engines write them, is handed through without a copy.
 */
export class EventBoundary {
  #held: Buffer[] = []
  #heldBytes = 0
  readonly #limitBytes: number

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes
  }

  get heldBytes(): number {
    return this.#heldBytes
  }

  /** The bytes that may go on now, empty if none. Over the limit everything goes on as it is: holding is a courtesy. */
  push(chunk: Buffer): Buffer {
    if (this.#heldBytes === 0) return this.#split(chunk, lastEventEnd(chunk))
    const end = lastEventEnd(chunk) || this.#endAcrossSeam(chunk)
    this.#held.push(chunk)
    this.#heldBytes += chunk.length
    if (end === 0 && this.#heldBytes <= this.#limitBytes) return empty
    const before = this.#heldBytes - chunk.length
    return this.#split(this.take(), end === 0 ? 0 : before + end)
  }

  /** Takes what is held, at the end of a stream that ended well. */
  take(): Buffer {
    const held = this.#held.length === 1 ? (this.#held[0] as Buffer) : Buffer.concat(this.#held)
    this.#held = []
    this.#heldBytes = 0
    return held
  }

  #split(bytes: Buffer, end: number): Buffer {
    const rest = bytes.length - end
    if (rest === 0 || rest > this.#limitBytes) return bytes
    this.#held = [end === 0 ? bytes : bytes.subarray(end)]
    this.#heldBytes = rest
    return bytes.subarray(0, end)
  }

  /** End, within the chunk, of a blank line that began in what is held; 0 if none did. */
  #endAcrossSeam(chunk: Buffer): number {
    const overlap = this.#overlap()
    return Math.max(0, lastEventEnd(Buffer.concat([overlap, chunk.subarray(0, overlapBytes)])) - overlap.length)
  }

  #overlap(): Buffer {
    const last = this.#held.at(-1) ?? empty
    if (last.length >= overlapBytes) return last.subarray(-overlapBytes)
    return Buffer.concat(this.#held.slice(-overlapBytes)).subarray(-overlapBytes)
  }
}

/** Position after the last blank line; lines end with LF, CRLF or CR (WHATWG HTML, server-sent events, 9.2.5). */
function lastEventEnd(bytes: Buffer): number {
  const last = bytes.length - 1
  if (
    bytes[last] === lineFeed &&
    (bytes[last - 1] === lineFeed || (bytes[last - 1] === carriageReturn && bytes[last - 2] === lineFeed))
  ) {
    return bytes.length
  }
  return Math.max(...blankLines.map((line) => endOf(bytes.lastIndexOf(line), line.length)))
}

const blankLines = ['\n\n', '\n\r\n', '\r\r'] as const

function endOf(at: number, length: number): number {
  return at === -1 ? 0 : at + length
}

/** Complete events in the bytes, counted by their blank lines; what streams count generated tokens by. */
export function countEvents(bytes: Buffer): number {
  let events = 0
  for (let at = bytes.indexOf('\n\n'); at !== -1; at = bytes.indexOf('\n\n', at + 2)) events++
  if (events > 0) return events
  for (let at = bytes.indexOf('\n\r\n'); at !== -1; at = bytes.indexOf('\n\r\n', at + 3)) events++
  return events
}

/**
 * Position after the event that ends the stream, −1 if it is not among these complete events. Within JSON a line end is
 * always escaped, so that a mark at the start of a line is never part of an answer's text.
 */
export function streamEnd(bytes: Buffer, lastEvents: readonly string[]): number {
  for (const mark of lastEvents) {
    for (let at = bytes.indexOf(mark); at !== -1; at = bytes.indexOf(mark, at + mark.length)) {
      const before = bytes[at - 1]
      const after = bytes[at + mark.length]
      if (at > 0 && before !== lineFeed && before !== carriageReturn) continue
      if (after !== undefined && after !== lineFeed && after !== carriageReturn) continue
      return eventEnd(bytes, at)
    }
  }
  return -1
}

/** Position after the blank line that ends the event at `from`. */
function eventEnd(bytes: Buffer, from: number): number {
  const ends = blankLines.map((line) => endOf(bytes.indexOf(line, from), line.length)).filter((end) => end > 0)
  return ends.length === 0 ? bytes.length : Math.min(...ends)
}
