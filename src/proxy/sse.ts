const lineFeed = 10
const carriageReturn = 13
const empty = Buffer.alloc(0)

/**
 * Passes a server-sent event stream on up to its last complete event and holds the rest until the event's blank line
 * has come, so that a client never sees half an event when the worker dies (decision 21). Bytes are never changed; a
 * chunk that ends with a complete event, as engines write them, is handed through without a copy.
 */
export class EventBoundary {
  #held: Buffer = empty
  readonly #limitBytes: number

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes
  }

  get heldBytes(): number {
    return this.#held.length
  }

  /** The bytes that may go on now, empty if none. Over the limit everything goes on as it is: holding is a courtesy. */
  push(chunk: Buffer): Buffer {
    const bytes = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk])
    const end = lastEventEnd(bytes)
    if (end === bytes.length || bytes.length - end > this.#limitBytes) {
      this.#held = empty
      return bytes
    }
    this.#held = end === 0 ? bytes : bytes.subarray(end)
    return bytes.subarray(0, end)
  }

  /** Takes what is held, at the end of a stream that ended well. */
  flush(): Buffer {
    const held = this.#held
    this.#held = empty
    return held
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
  const afterLf = bytes.lastIndexOf('\n\n')
  const afterCrLf = bytes.lastIndexOf('\n\r\n')
  const afterCr = bytes.lastIndexOf('\r\r')
  return Math.max(
    afterLf === -1 ? 0 : afterLf + 2,
    afterCrLf === -1 ? 0 : afterCrLf + 3,
    afterCr === -1 ? 0 : afterCr + 2,
  )
}

/** Complete events in the bytes, counted by their `data:` lines' blank-line ends; what streams count generated tokens by. */
export function countEvents(bytes: Buffer): number {
  let events = 0
  for (let at = bytes.indexOf('\n\n'); at !== -1; at = bytes.indexOf('\n\n', at + 2)) events++
  if (events > 0) return events
  for (let at = bytes.indexOf('\n\r\n'); at !== -1; at = bytes.indexOf('\n\r\n', at + 3)) events++
  return events
}
