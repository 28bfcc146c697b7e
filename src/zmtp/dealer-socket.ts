import { encodeMessage } from './frame.ts'
import { Links, type SocketOptions } from './links.ts'
import type { Peer } from './peer.ts'

export interface DealerSocketOptions extends SocketOptions {
  /** How a ROUTER knows us again; omitted, it makes a name up. */
  readonly identity?: Uint8Array
  readonly onMessage: (frames: readonly Buffer[]) => void
  readonly onConnected?: () => void
  readonly onDisconnected?: () => void
}

/** ZeroMQ's DEALER with one peer: asks and is answered without taking turns. */
export class DealerSocket {
  readonly #links: Links
  #peer: Peer | null = null

  constructor(options: DealerSocketOptions) {
    this.#links = new Links('DEALER', options.identity ?? Buffer.alloc(0), options, {
      ready: (peer) => {
        this.#peer = peer
        options.onConnected?.()
      },
      message: (_peer, frames) => options.onMessage(frames),
      subscription: () => undefined,
      closed: (peer) => {
        if (this.#peer !== peer) return
        this.#peer = null
        options.onDisconnected?.()
      },
    })
  }

  connect(endpoint: string): void {
    this.#links.connect(endpoint)
  }

  /** False where the message could not be queued: not connected, or the queue is full. */
  send(frames: readonly Uint8Array[]): boolean {
    return this.#peer?.send(encodeMessage(frames)) ?? false
  }

  close(): Promise<void> {
    return this.#links.close()
  }
}
