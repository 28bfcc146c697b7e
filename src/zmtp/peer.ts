import type { Socket } from 'node:net'
import { RouterError } from '../errors.ts'
import type { Cancel, Clock } from './clock.ts'
import { decodeCommand, encodePing, encodePong, encodeReady, partners, type SocketType } from './command.ts'
import { FrameParser, protocolFault } from './frame.ts'
import { encodeGreeting, greetingBytes, greetingFault, readGreeting } from './greeting.ts'
import type { ZmtpLimits } from './limits.ts'

export interface PeerHandlers {
  /** The handshake is done. */
  ready(peer: Peer): void
  message(peer: Peer, frames: Buffer[]): void
  /** The peer asks for a topic, or no longer; by command (3.1) or by message (3.0). */
  subscription(peer: Peer, topic: Buffer, wanted: boolean): void
  /** Comes exactly once. The fault is null where the peer, or we, ended the connection properly. */
  closed(peer: Peer, fault: RouterError | null): void
}

export interface PeerOptions {
  readonly socketType: SocketType
  readonly identity: Uint8Array
  readonly limits: ZmtpLimits
  readonly clock: Clock
  readonly handlers: PeerHandlers
}

/**
 * One ZMTP connection over one TCP socket: greeting, NULL handshake, frames, heartbeat. Whatever the other side sends,
 * it ends in `closed` with a RouterError and never in a throw.
 */
export class Peer {
  /** `address:port` of the other side, for logs. */
  readonly name: string
  /** IP address of the other side. */
  readonly address: string
  identity: Buffer = Buffer.alloc(0)
  /** Minor version of ZMTP 3 that the other side speaks. */
  minor = 0
  isReady = false
  readyAtMs = 0
  queuedMessages = 0
  readonly #socket: Socket
  readonly #options: PeerOptions
  readonly #parser: FrameParser
  #greeting: Buffer = Buffer.alloc(0)
  #greeted = false
  #unansweredPings = 0
  /** Read since the event loop came round last. */
  #turnBytes = 0
  #cancelTimer: Cancel
  #closed = false
  #fault: RouterError | null = null

  /** Takes over a socket that is connected or connecting. */
  constructor(socket: Socket, name: { address: string; port: number }, options: PeerOptions) {
    this.#socket = socket
    this.#options = options
    this.address = name.address
    this.name = name.address.includes(':') ? `[${name.address}]:${name.port}` : `${name.address}:${name.port}`
    this.#parser = new FrameParser(options.limits, {
      message: (frames) => this.#message(frames),
      command: (body) => this.#command(body),
    })
    this.#cancelTimer = options.clock.after(options.limits.handshakeTimeoutMs, () => {
      this.close(protocolFault(`no handshake within ${options.limits.handshakeTimeoutMs} ms`))
    })
    socket.setNoDelay(true)
    socket.on('data', (chunk: Buffer) => this.#data(chunk))
    socket.on('error', (cause) => {
      this.close(
        new RouterError('UPSTREAM_UNREACHABLE', `The connection with ${this.name} failed: ${cause.message}.`, {
          cause,
        }),
      )
    })
    socket.on('close', () => this.close(null))
    socket.write(encodeGreeting())
  }

  /** Queues encoded bytes; false where the queue is at its high-water mark and the message was dropped. */
  send(bytes: Uint8Array): boolean {
    if (this.#closed || !this.isReady || this.queuedMessages >= this.#options.limits.highWaterMarkMessages) return false
    this.queuedMessages++
    this.#socket.write(bytes, () => this.queuedMessages--)
    return true
  }

  /** Ends the connection; what was queued before is still sent when there is no fault. */
  close(fault: RouterError | null): void {
    if (this.#closed) return
    const wasReady = this.isReady
    this.#closed = true
    this.isReady = false
    this.#fault ??= fault
    this.#cancelTimer()
    this.#parser.stop()
    if (fault === null && wasReady) this.#linger()
    else this.#socket.destroy()
    this.#options.handlers.closed(this, this.#fault)
  }

  /** Ends the connection at once, queued messages included. */
  destroy(): void {
    this.close(null)
    this.#socket.destroy()
  }

  /** Lets the queue drain for a while, so that a last answer arrives; a peer that does not read cannot hold us. */
  #linger(): void {
    if (this.#socket.destroyed) return
    const cancel = this.#options.clock.after(this.#options.limits.lingerMs, () => this.#socket.destroy())
    this.#socket.once('close', cancel)
    this.#socket.destroySoon()
  }

  #data(chunk: Buffer): void {
    this.#unansweredPings = 0
    if (this.#closed) return
    this.#bound(chunk.length)
    const rest = this.#greeted ? chunk : this.#greet(chunk)
    if (rest.length === 0 || this.#isClosed()) return
    const fault = this.#parser.push(rest)
    if (fault !== null) this.close(fault)
  }

  /** A socket with a backlog would be read many times over before anything else gets its turn. */
  #bound(bytes: number): void {
    const { maxBytesPerTurn } = this.#options.limits
    if (this.#turnBytes === 0) {
      setImmediate(() => {
        if (this.#turnBytes >= maxBytesPerTurn) this.#socket.resume()
        this.#turnBytes = 0
      })
    }
    this.#turnBytes += bytes
    if (this.#turnBytes >= maxBytesPerTurn) this.#socket.pause()
  }

  /** Collects the greeting; answers what follows it. */
  #greet(chunk: Buffer): Buffer {
    const bytes = this.#greeting.length === 0 ? chunk : Buffer.concat([this.#greeting, chunk])
    const fault = greetingFault(bytes)
    if (fault !== null) {
      this.close(fault)
      return Buffer.alloc(0)
    }
    if (bytes.length < greetingBytes) {
      this.#greeting = bytes
      return Buffer.alloc(0)
    }
    this.#greeted = true
    this.minor = readGreeting(bytes).minor
    this.#socket.write(encodeReady(this.#options.socketType, this.#options.identity))
    return bytes.subarray(greetingBytes)
  }

  #message(frames: Buffer[]): void {
    if (!this.isReady) {
      this.close(protocolFault('a message came before READY'))
      return
    }
    const { socketType, handlers } = this.#options
    if (socketType !== 'PUB') {
      handlers.message(this, frames)
      return
    }
    const [body] = frames
    if (frames.length === 1 && body !== undefined && (body[0] === 0 || body[0] === 1)) {
      handlers.subscription(this, body.subarray(1), body[0] === 1)
    }
  }

  #command(body: Buffer): void {
    const command = decodeCommand(body)
    switch (command.kind) {
      case 'ready':
        this.#ready(command.socketType, command.identity)
        return
      case 'error':
        this.close(protocolFault(`it refused the handshake with ${JSON.stringify(command.reason)}`))
        return
      case 'ping':
        if (this.isReady) this.send(encodePong(command.context))
        return
      case 'subscribe':
      case 'cancel':
        if (this.isReady && this.#options.socketType === 'PUB') {
          this.#options.handlers.subscription(this, command.topic, command.kind === 'subscribe')
        }
        return
      case 'malformed':
        this.close(command.fault)
        return
      case 'pong':
      case 'unknown':
        // RFC 37: commands that are not known are ignored once the handshake is done.
        return
      default:
        command satisfies never
    }
  }

  #ready(socketType: string, identity: Buffer): void {
    if (this.isReady) {
      this.close(protocolFault('READY came twice'))
      return
    }
    if (!partners[this.#options.socketType].includes(socketType)) {
      const asked = partners[this.#options.socketType].join(' or ')
      this.close(protocolFault(`it is a ${JSON.stringify(socketType)} socket where ${asked} is needed`))
      return
    }
    this.#cancelTimer()
    this.identity = Buffer.from(identity)
    this.isReady = true
    this.readyAtMs = this.#options.clock.now()
    if (this.minor >= 1) this.#heartbeat()
    else this.#socket.setKeepAlive(true, this.#options.limits.pingEveryMs)
    this.#options.handlers.ready(this)
  }

  /**
   * Counts PINGs and not milliseconds: after the process itself stood still for a minute, one PING is unanswered and
   * the answers that wait in the kernel are read before the next.
   */
  #heartbeat(): void {
    const { clock, limits } = this.#options
    this.#cancelTimer = clock.after(limits.pingEveryMs, () => {
      if (this.#unansweredPings >= limits.maxUnansweredPings) {
        const silentMs = limits.maxUnansweredPings * limits.pingEveryMs
        this.close(new RouterError('UPSTREAM_UNREACHABLE', `${this.name} was silent for ${silentMs} ms after a PING.`))
        return
      }
      this.#unansweredPings++
      this.send(encodePing())
      this.#heartbeat()
    })
  }

  /** Read anew after a call that may have closed us, which the compiler cannot see. */
  #isClosed(): boolean {
    return this.#closed
  }
}
