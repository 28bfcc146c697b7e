import { protocolFault, encodeMessage } from './frame.ts'
import { Links, type SocketOptions } from './links.ts'
import type { Peer } from './peer.ts'

export interface RouterSocketOptions extends SocketOptions {
  /** A message of the peer with this identity (hexadecimal); a REQ peer's begins with an empty frame. */
  readonly onMessage: (identity: string, frames: readonly Buffer[]) => void
  readonly onDisconnected?: (identity: string) => void
}

/** ZeroMQ's ROUTER: answers each peer by the identity that it gave, or that it was given here. */
export class RouterSocket {
  readonly #links: Links
  readonly #peers = new Map<string, Peer>()
  #dropped = 0
  #named = 0

  constructor(options: RouterSocketOptions) {
    const identities = new Map<Peer, string>()
    this.#links = new Links('ROUTER', Buffer.alloc(0), options, {
      ready: (peer) => {
        const identity = peer.identity.length > 0 ? peer.identity.toString('hex') : this.#newIdentity()
        if (this.#peers.has(identity)) {
          peer.close(protocolFault('another peer already has its identity'))
          return
        }
        identities.set(peer, identity)
        this.#peers.set(identity, peer)
      },
      message: (peer, frames) => {
        const identity = identities.get(peer)
        if (identity !== undefined) options.onMessage(identity, frames)
      },
      subscription: () => undefined,
      closed: (peer) => {
        const identity = identities.get(peer)
        if (identity === undefined) return
        identities.delete(peer)
        this.#peers.delete(identity)
        options.onDisconnected?.(identity)
      },
    })
  }

  /** Messages to peers that are gone or whose queue is full. */
  get dropped(): number {
    return this.#dropped
  }

  connect(endpoint: string): void {
    this.#links.connect(endpoint)
  }

  bind(endpoint: string): Promise<number> {
    return this.#links.bind(endpoint)
  }

  /** False where the message was dropped: the peer is gone, or its queue is full. */
  send(identity: string, frames: readonly Uint8Array[]): boolean {
    const sent = this.#peers.get(identity)?.send(encodeMessage(frames)) ?? false
    if (!sent) this.#dropped++
    return sent
  }

  /** Cuts every connection without a word, as a crash would; listeners stay. */
  dropConnections(): void {
    for (const peer of [...this.#links.peers]) peer.destroy()
  }

  close(): Promise<void> {
    return this.#links.close()
  }

  /** RFC 28: identities that a ROUTER makes up begin with a zero byte, which peers may not use. */
  #newIdentity(): string {
    this.#named = (this.#named + 1) >>> 0
    return `00${this.#named.toString(16).padStart(8, '0')}`
  }
}
