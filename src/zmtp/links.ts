import { connect, createServer, type Server, type Socket } from 'node:net'
import { RouterError } from '../errors.ts'
import type { Cancel, Clock } from './clock.ts'
import type { SocketType } from './command.ts'
import { formatEndpoint, parseEndpoint, type Endpoint } from './endpoint.ts'
import { zmtpLimits, type ZmtpLimits } from './limits.ts'
import { Peer, type PeerHandlers } from './peer.ts'

/** What every socket of this room takes. */
export interface SocketOptions {
  readonly clock: Clock
  /** Uniform in [0, 1); spreads reconnects so that a fleet does not dial in step. */
  readonly random: () => number
  readonly limits?: Partial<ZmtpLimits>
  /** A peer misbehaved or a connection failed; the socket heals by itself. `remote` is an address or an endpoint. */
  readonly onFault?: (fault: RouterError, remote: string) => void
}

/** All connections of one socket: those it dials, again and again, and those it accepts. */
export class Links {
  readonly peers = new Set<Peer>()
  readonly limits: ZmtpLimits
  readonly #socketType: SocketType
  readonly #identity: Uint8Array
  readonly #options: SocketOptions
  readonly #handlers: PeerHandlers
  readonly #servers = new Set<Server>()
  readonly #redials = new Set<Cancel>()
  #closed = false

  constructor(socketType: SocketType, identity: Uint8Array, options: SocketOptions, handlers: PeerHandlers) {
    this.limits = { ...zmtpLimits, ...options.limits }
    this.#socketType = socketType
    this.#identity = identity
    this.#options = options
    this.#handlers = handlers
  }

  /** Keeps one connection to the endpoint, with growing pauses between attempts. */
  connect(text: string): void {
    const endpoint = parseEndpoint(text)
    if (endpoint.host === '' || endpoint.port === 0) {
      throw new RouterError('CONFIG_INVALID', `"${text}" names no host to connect to; a worker's own host goes there.`)
    }
    this.#dial(endpoint, 0)
  }

  /** Listens; answers the port, which matters where port 0 left the choice to the system. */
  bind(text: string): Promise<number> {
    const { host, port } = parseEndpoint(text)
    const server = createServer((socket) => this.#accept(socket))
    this.#servers.add(server)
    return new Promise((resolve, reject) => {
      server.once('error', (cause: NodeJS.ErrnoException) => {
        this.#servers.delete(server)
        const code = cause.code === 'EADDRINUSE' ? 'PORT_IN_USE' : 'CONFIG_INVALID'
        reject(new RouterError(code, `Cannot listen on ${text}: ${cause.message}.`, { cause }))
      })
      server.listen(host === '' ? { port } : { host, port }, () => {
        server.on('error', (cause) =>
          this.#fault(new RouterError('UPSTREAM_UNREACHABLE', cause.message, { cause }), text),
        )
        const address = server.address()
        resolve(typeof address === 'object' && address !== null ? address.port : port)
      })
    })
  }

  /** Ends all connections and listeners; ends when the ports are free again. */
  async close(): Promise<void> {
    this.#closed = true
    for (const cancel of this.#redials) cancel()
    const servers = [...this.#servers].map((server) => new Promise((resolve) => server.close(resolve)))
    for (const peer of [...this.peers]) peer.close(null)
    await Promise.all(servers)
  }

  #dial(endpoint: Endpoint, failedAttempts: number): void {
    const socket = connect({ host: endpoint.host, port: endpoint.port })
    const peer = this.#open(socket, { address: endpoint.host, port: endpoint.port }, (fault) => {
      if (fault !== null) this.#fault(fault, formatEndpoint(endpoint))
      if (this.#closed) return
      const stable = peer.readyAtMs > 0 && this.#options.clock.now() - peer.readyAtMs >= this.limits.stableAfterMs
      const failed = stable ? 0 : failedAttempts
      const pauseMs = Math.min(this.limits.reconnectMaxMs, this.limits.reconnectFirstMs * 2 ** Math.min(failed, 20))
      const cancel = this.#options.clock.after(pauseMs * (1 - this.#options.random() / 2), () => {
        this.#redials.delete(cancel)
        this.#dial(endpoint, failed + 1)
      })
      this.#redials.add(cancel)
    })
  }

  #accept(socket: Socket): void {
    const { remoteAddress, remotePort } = socket
    if (this.#closed || remoteAddress === undefined || remotePort === undefined) {
      socket.destroy()
      return
    }
    const address = remoteAddress.replace(/^::ffff:(?=\d+\.)/, '')
    if (this.peers.size >= this.limits.maxPeers) {
      socket.destroy()
      this.#fault(new RouterError('ZMTP_PROTOCOL', `More than ${this.limits.maxPeers} connections at once.`), address)
      return
    }
    this.#open(socket, { address, port: remotePort }, (fault) => {
      if (fault !== null) this.#fault(fault, address)
    })
  }

  #open(socket: Socket, name: { address: string; port: number }, closed: (fault: RouterError | null) => void): Peer {
    const peer = new Peer(socket, name, {
      socketType: this.#socketType,
      identity: this.#identity,
      limits: this.limits,
      clock: this.#options.clock,
      handlers: {
        ...this.#handlers,
        closed: (ended, fault) => {
          this.peers.delete(ended)
          this.#handlers.closed(ended, fault)
          closed(fault)
        },
      },
    })
    this.peers.add(peer)
    return peer
  }

  #fault(fault: RouterError, remote: string): void {
    this.#options.onFault?.(fault, remote)
  }
}
