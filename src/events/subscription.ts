import type { Clock } from '../zmtp/clock.ts'
import type { ZmtpLimits } from '../zmtp/limits.ts'
import type { Peer } from '../zmtp/peer.ts'
import { SubSocket } from '../zmtp/sub-socket.ts'
import type { RouterError } from '../errors.ts'
import { readSequence } from './sequence-number.ts'

/** What one publisher's subscriber is told. */
export interface PublisherHandlers {
  /** A subscription stands; what was sent before it is unknown. */
  connected(): void
  /** The subscription broke; what is sent from now on is lost. */
  disconnected(): void
  message(frames: readonly Buffer[]): void
  /** A message that was passed over. */
  skipped(reason: string): void
}

/** A stream of one publisher's messages; closing it tells nothing more. */
export interface Subscription {
  close(): Promise<void>
}

export interface SubscriptionOptions {
  readonly clock: Clock
  readonly random: () => number
  readonly limits?: Partial<ZmtpLimits>
  readonly onFault?: (fault: RouterError, remote: string) => void
}

/** Largest event message that an engine may send. */
export const maxEventBytes = 16 * 1024 * 1024

/**
 * Subscribes at one engine. Where messages of several topics come over the connection, only those of the first count:
 * each topic is a publisher with numbers of its own.
 */
export function dialPublisher(
  endpoint: string,
  topic: string,
  options: SubscriptionOptions,
  handlers: PublisherHandlers,
): Subscription {
  let heard: string | null = null
  let closed = false
  const socket = new SubSocket({
    ...options,
    limits: { maxMessageBytes: maxEventBytes, ...options.limits },
    topics: [topic],
    onConnected: () => {
      heard = null
      if (!closed) handlers.connected()
    },
    onDisconnected: () => {
      if (!closed) handlers.disconnected()
    },
    onMessage: (frames) => {
      if (closed) return
      const number = frames.at(-2)
      if (frames.length < 3 || number === undefined || readSequence(number) === null) {
        handlers.message(frames)
        return
      }
      const name = topicOf(frames)
      heard ??= name
      if (name === heard) handlers.message(frames)
      else handlers.skipped('other_topic')
    },
  })
  socket.connect(endpoint)
  return {
    close() {
      closed = true
      return socket.close()
    },
  }
}

/** How a publisher that dials in is known to be a worker's. */
export interface PublisherName {
  /** Exact topic; empty: the address tells. */
  readonly topic: string
  /** IP address of the other side, for a worker without a topic. */
  readonly address: string | null
}

interface Seat {
  readonly name: PublisherName
  readonly handlers: PublisherHandlers
  publisher: { readonly peer: Peer; readonly topic: string } | null
}

/** Topics of one connection that are remembered, refused ones included. */
const maxTopicsPerPeer = 64

/**
 * One bound SUB for several workers: engines behind a NAT dial in. A publisher is the pair (connection, topic); it is
 * assigned by its topic, else by its address, else refused and counted (decision 10).
 */
export class PublisherListener {
  readonly #socket: SubSocket
  readonly #seats = new Set<Seat>()
  /** What each topic of a connection was assigned to; null: refused. */
  readonly #assigned = new Map<Peer, Map<string, Seat | null>>()
  readonly #refused: (reason: string) => void

  constructor(options: SubscriptionOptions & { readonly refused: (reason: string) => void }) {
    this.#refused = options.refused
    this.#socket = new SubSocket({
      ...options,
      limits: { maxMessageBytes: maxEventBytes, ...options.limits },
      topics: [''],
      onConnected: (peer) => this.#assigned.set(peer, new Map()),
      onDisconnected: (peer) => this.#left(peer),
      onMessage: (frames, peer) => this.#message(frames, peer),
    })
  }

  bind(endpoint: string): Promise<number> {
    return this.#socket.bind(endpoint)
  }

  /** Waits for the publisher of this name; closing gives the name free. */
  attach(name: PublisherName, handlers: PublisherHandlers): Subscription {
    const seat: Seat = { name, handlers, publisher: null }
    this.#seats.add(seat)
    // A publisher that was refused may be the one that is awaited now.
    for (const topics of this.#assigned.values())
      for (const [topic, at] of topics) if (at === null) topics.delete(topic)
    return {
      close: () => {
        this.#seats.delete(seat)
        for (const topics of this.#assigned.values())
          for (const [topic, at] of topics) if (at === seat) topics.delete(topic)
        return Promise.resolve()
      },
    }
  }

  close(): Promise<void> {
    return this.#socket.close()
  }

  #message(frames: readonly Buffer[], peer: Peer): void {
    const topics = this.#assigned.get(peer)
    if (topics === undefined) return
    const topic = topicOf(frames)
    let seat = topics.get(topic)
    if (seat === undefined) {
      if (topics.size >= maxTopicsPerPeer) {
        this.#refused('publisher_topics')
        return
      }
      seat = this.#assign(topic, peer)
      topics.set(topic, seat)
    }
    if (seat === null) this.#refused('publisher_unknown')
    else if (seat.publisher?.peer === peer && seat.publisher.topic === topic) seat.handlers.message(frames)
    else seat.handlers.skipped('publisher_superseded')
  }

  /** A newer connection takes the seat: the older one is the half-open rest of a process that is gone. */
  #assign(topic: string, peer: Peer): Seat | null {
    const seat = this.#find(topic, peer.address)
    if (seat === null) return null
    if (seat.publisher !== null) seat.handlers.disconnected()
    seat.publisher = { peer, topic }
    seat.handlers.connected()
    return seat
  }

  #find(topic: string, address: string): Seat | null {
    const seats = [...this.#seats]
    return (
      seats.find((seat) => seat.name.topic !== '' && seat.name.topic === topic) ??
      seats.find((seat) => seat.name.topic === '' && seat.name.address === address) ??
      null
    )
  }

  #left(peer: Peer): void {
    const topics = this.#assigned.get(peer)
    this.#assigned.delete(peer)
    for (const seat of topics?.values() ?? []) {
      if (seat?.publisher?.peer !== peer) continue
      seat.publisher = null
      seat.handlers.disconnected()
    }
  }
}

function topicOf(frames: readonly Buffer[]): string {
  return frames.length > 2 ? (frames[0]?.toString() ?? '') : ''
}
