import { encodeSubscribe } from './command.ts'
import { encodeMessage } from './frame.ts'
import { Links, type SocketOptions } from './links.ts'
import type { Peer } from './peer.ts'

export interface SubSocketOptions extends SocketOptions {
  /** Prefixes of the topics that are wanted; an empty one wants everything. */
  readonly topics: readonly string[]
  /** One message; frame 0 is its topic. The buffers stay valid. */
  readonly onMessage: (frames: readonly Buffer[], publisher: Peer) => void
  /** A publisher was reached and asked for the topics. */
  readonly onConnected?: (publisher: Peer) => void
  /** A publisher that was connected is gone, and messages may be lost. */
  readonly onDisconnected?: (publisher: Peer) => void
}

/**
 * ZeroMQ's SUB: connects to publishers, or binds and lets publishers dial in. Messages of one publisher arrive in order;
 * which of them were dropped on the way only a sequence number inside can tell.
 */
export class SubSocket {
  readonly #links: Links
  readonly #topics: readonly Buffer[]

  constructor(options: SubSocketOptions) {
    this.#topics = options.topics.map((topic) => Buffer.from(topic))
    const wanted = new Set<Peer>()
    this.#links = new Links('SUB', Buffer.alloc(0), options, {
      ready: (peer) => {
        wanted.add(peer)
        this.#subscribe(peer)
        options.onConnected?.(peer)
      },
      message: (peer, frames) => {
        if (this.#isWanted(frames[0] as Buffer)) options.onMessage(frames, peer)
      },
      subscription: () => undefined,
      closed: (peer) => {
        if (wanted.delete(peer)) options.onDisconnected?.(peer)
      },
    })
  }

  connect(endpoint: string): void {
    this.#links.connect(endpoint)
  }

  bind(endpoint: string): Promise<number> {
    return this.#links.bind(endpoint)
  }

  close(): Promise<void> {
    return this.#links.close()
  }

  #subscribe(peer: Peer): void {
    for (const topic of this.#topics) {
      peer.send(peer.minor >= 1 ? encodeSubscribe(topic) : encodeMessage([Buffer.concat([Buffer.of(1), topic])]))
    }
  }

  /** Publishers filter too, but nothing obliges one that dials in to do so. */
  #isWanted(topic: Buffer): boolean {
    return this.#topics.some(
      (prefix) => topic.length >= prefix.length && topic.compare(prefix, 0, prefix.length, 0, prefix.length) === 0,
    )
  }
}
