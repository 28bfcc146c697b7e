import { RouterError } from '../errors.ts'
import { encodeMessage } from './frame.ts'
import { Links, type SocketOptions } from './links.ts'
import type { Peer } from './peer.ts'

export interface PubSocketOptions extends SocketOptions {
  /** A subscriber asks for a topic, or no longer; the tests' sign that messages will reach it. */
  readonly onSubscription?: (topic: string, wanted: boolean, subscriber: Peer) => void
  readonly onDisconnected?: (subscriber: Peer) => void
}

/**
 * ZeroMQ's PUB: binds, or dials out to a bound SUB. A subscriber whose queue is full loses messages, which are counted;
 * it never slows the publisher or the other subscribers.
 */
export class PubSocket {
  readonly #links: Links
  /** Topic → how often it was asked for, per subscriber. */
  readonly #topics = new Map<Peer, Map<string, number>>()
  #dropped = 0

  constructor(options: PubSocketOptions) {
    this.#links = new Links('PUB', Buffer.alloc(0), options, {
      ready: (peer) => {
        this.#topics.set(peer, new Map())
      },
      message: () => undefined,
      subscription: (peer, topic, wanted) => {
        if (!this.#note(peer, topic.toString('latin1'), wanted)) {
          peer.close(new RouterError('ZMTP_PROTOCOL', `${peer.name} subscribes to too many topics.`))
          return
        }
        options.onSubscription?.(topic.toString(), wanted, peer)
      },
      closed: (peer) => {
        if (this.#topics.delete(peer)) options.onDisconnected?.(peer)
      },
    })
  }

  /** Messages dropped at the high-water mark, summed over subscribers. */
  get dropped(): number {
    return this.#dropped
  }

  /** Subscribers that want at least one topic. */
  get subscribers(): number {
    let count = 0
    for (const topics of this.#topics.values()) if (topics.size > 0) count++
    return count
  }

  connect(endpoint: string): void {
    this.#links.connect(endpoint)
  }

  bind(endpoint: string): Promise<number> {
    return this.#links.bind(endpoint)
  }

  /** Sends to every subscriber that wants frame 0; answers how many got it into their queue. */
  send(frames: readonly Uint8Array[]): number {
    const [first] = frames
    if (first === undefined || this.#topics.size === 0) return 0
    const topic = Buffer.from(first).toString('latin1')
    let bytes: Buffer | null = null
    let sent = 0
    for (const [peer, topics] of this.#topics) {
      if (!wants(topics, topic)) continue
      bytes ??= encodeMessage(frames)
      if (peer.send(bytes)) sent++
      else this.#dropped++
    }
    return sent
  }

  /** Cuts every connection without a word, as a crash would; listeners stay. */
  dropConnections(): void {
    for (const peer of [...this.#links.peers]) peer.destroy()
  }

  close(): Promise<void> {
    return this.#links.close()
  }

  #note(peer: Peer, topic: string, wanted: boolean): boolean {
    const topics = this.#topics.get(peer)
    if (topics === undefined) return true
    const times = (topics.get(topic) ?? 0) + (wanted ? 1 : -1)
    if (times > 0) topics.set(topic, times)
    else topics.delete(topic)
    return topics.size <= this.#links.limits.maxSubscriptions
  }
}

/** Topics are compared byte by byte, which latin1 text keeps. */
function wants(topics: ReadonlyMap<string, number>, topic: string): boolean {
  for (const prefix of topics.keys()) if (topic.startsWith(prefix)) return true
  return false
}
