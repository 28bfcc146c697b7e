import { RouterError } from '../errors.ts'

/*
 * A ZMTP 3.x frame (RFC 23 and 37 of rfc.zeromq.org):
 *
 *     flags ─ bit 0 MORE, bit 1 LONG, bit 2 COMMAND, others zero
 *     │  length ─ one byte, or eight big-endian where LONG
 *     ▼  ▼        body
 *    ┌──┬──┬───────────────┐
 *    │01│05│ h  e  l  l  o │
 *    └──┴──┴───────────────┘
 */
const more = 1
const long = 2
const command = 4

export interface FrameLimits {
  readonly maxMessageBytes: number
  readonly maxFrames: number
  readonly maxCommandBytes: number
}

export interface FrameSink {
  /** One whole message. The buffers are views of what was received and are never written to again. */
  message(frames: Buffer[]): void
  command(body: Buffer): void
}

/**
 * Cuts a byte stream into messages and commands. Frames that lie within one chunk are views of it; only a frame that
 * spans chunks is copied, into a buffer that grows with what really arrives and not with what its header claims.
 */
export class FrameParser {
  readonly #limits: FrameLimits
  readonly #sink: FrameSink
  #frames: Buffer[] = []
  #messageBytes = 0
  /** Bytes of an incomplete frame: the first #held of #tail, of which #needed make the next step possible. */
  #tail: Buffer = Buffer.alloc(0)
  #held = 0
  #needed = 0
  #stopped = false

  constructor(limits: FrameLimits, sink: FrameSink) {
    this.#limits = limits
    this.#sink = sink
  }

  /** Nothing more is delivered, not even from the chunk that is being read. */
  stop(): void {
    this.#stopped = true
  }

  /** Takes the next chunk; answers what the peer did wrong, after which the stream cannot be read further. */
  push(chunk: Buffer): RouterError | null {
    if (this.#held === 0) return this.#parse(chunk)
    this.#hold(chunk, this.#needed)
    if (this.#held < this.#needed) return null
    const whole = this.#tail.subarray(0, this.#held)
    this.#tail = Buffer.alloc(0)
    this.#held = 0
    return this.#parse(whole)
  }

  #parse(bytes: Buffer): RouterError | null {
    let at = 0
    while (!this.#stopped && at < bytes.length) {
      const flags = bytes[at] as number
      if (flags > 7) return protocolFault(`a frame has reserved flags (0x${flags.toString(16)})`)
      const headerBytes = (flags & long) === 0 ? 2 : 9
      if (bytes.length - at < headerBytes) {
        this.#hold(bytes.subarray(at), headerBytes)
        return null
      }
      const bodyBytes = headerBytes === 2 ? (bytes[at + 1] as number) : longLength(bytes, at + 1)
      const fault = this.#refuse(flags, bodyBytes)
      if (fault !== null) return fault
      const end = at + headerBytes + bodyBytes
      if (end > bytes.length) {
        this.#hold(bytes.subarray(at), headerBytes + bodyBytes)
        return null
      }
      this.#deliver(flags, bytes.subarray(at + headerBytes, end))
      at = end
    }
    return null
  }

  #refuse(flags: number, bodyBytes: number): RouterError | null {
    const { maxCommandBytes, maxFrames, maxMessageBytes } = this.#limits
    if ((flags & command) !== 0) {
      if ((flags & more) !== 0) return protocolFault('a command has the MORE flag')
      if (bodyBytes > maxCommandBytes) return protocolFault(`a command is longer than ${maxCommandBytes} bytes`)
      return null
    }
    if (this.#frames.length >= maxFrames) return protocolFault(`a message has more than ${maxFrames} frames`)
    if (this.#messageBytes + bodyBytes > maxMessageBytes) {
      return protocolFault(`a message is longer than ${maxMessageBytes} bytes`)
    }
    return null
  }

  #deliver(flags: number, body: Buffer): void {
    if ((flags & command) !== 0) {
      this.#sink.command(body)
      return
    }
    this.#frames.push(body)
    this.#messageBytes += body.length
    if ((flags & more) !== 0) return
    const frames = this.#frames
    this.#frames = []
    this.#messageBytes = 0
    this.#sink.message(frames)
  }

  #hold(bytes: Buffer, needed: number): void {
    const total = this.#held + bytes.length
    if (total > this.#tail.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(total, Math.min(needed, 2 * total)))
      this.#tail.copy(grown, 0, 0, this.#held)
      this.#tail = grown
    }
    bytes.copy(this.#tail, this.#held)
    this.#held = total
    this.#needed = needed
  }
}

/** The bytes of one message of these frames. */
export function encodeMessage(frames: readonly Uint8Array[]): Buffer {
  let totalBytes = 0
  for (const frame of frames) totalBytes += frame.length + (frame.length > 255 ? 9 : 2)
  const bytes = Buffer.allocUnsafeSlow(totalBytes)
  let at = 0
  for (const [index, frame] of frames.entries()) {
    at = writeHeader(bytes, at, index < frames.length - 1 ? more : 0, frame.length)
    bytes.set(frame, at)
    at += frame.length
  }
  return bytes
}

export function encodeCommandFrame(body: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafeSlow(body.length + (body.length > 255 ? 9 : 2))
  bytes.set(body, writeHeader(bytes, 0, command, body.length))
  return bytes
}

export function protocolFault(what: string): RouterError {
  return new RouterError('ZMTP_PROTOCOL', `The peer does not speak ZMTP 3 properly: ${what}.`)
}

function writeHeader(bytes: Buffer, at: number, flags: number, bodyBytes: number): number {
  if (bodyBytes <= 255) {
    bytes[at] = flags
    bytes[at + 1] = bodyBytes
    return at + 2
  }
  bytes[at] = flags | long
  bytes.writeUInt32BE(Math.floor(bodyBytes / 0x1_0000_0000), at + 1)
  bytes.writeUInt32BE(bodyBytes >>> 0, at + 5)
  return at + 9
}

/** Lengths above 2^53 lose bits here, which no limit lets pass anyway. */
function longLength(bytes: Buffer, at: number): number {
  return bytes.readUInt32BE(at) * 0x1_0000_0000 + bytes.readUInt32BE(at + 4)
}
