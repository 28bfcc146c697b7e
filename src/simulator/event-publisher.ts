import type { Clock } from '../zmtp/clock.ts'
import { formatEndpoint } from '../zmtp/endpoint.ts'
import { PubSocket } from '../zmtp/pub-socket.ts'
import { RouterSocket } from '../zmtp/router-socket.ts'
import type { EventOutlet } from './flavour.ts'
import type { KvEvent } from './kv-event.ts'

export interface EventPublisherOptions {
  readonly clock: Clock
  readonly random: () => number
  readonly wallSeconds: () => number
  readonly host: string
  /** 0: the system chooses. */
  readonly eventsPort: number
  readonly replayPort: number
  readonly topic: string
  /** What of a step's events is told; left out: all. A step of which nothing is told has no batch. */
  readonly told?: (events: readonly KvEvent[]) => readonly KvEvent[]
  /** The bytes of one batch. */
  readonly encode: (events: readonly KvEvent[], timestampSeconds: number) => Buffer
  /** Batches that replay can still give. */
  readonly bufferSteps: number
}

/** `seq` of the message that ends a replay: −1 as 8 bytes. */
const endMarker = Buffer.alloc(8, 0xff)
const empty = Buffer.alloc(0)

/** A rank's KV events: PUB with a sequence number that starts at 0, and ROUTER that repeats what is still buffered. */
export class EventPublisher implements EventOutlet {
  readonly #options: EventPublisherOptions
  readonly #topic: Buffer
  readonly #pub: PubSocket
  readonly #replay: RouterSocket
  readonly #buffer: { readonly sequence: number; readonly frames: readonly Buffer[] }[] = []
  /** Batches that wait because publishing is paused; null while it is not. */
  #held: (readonly Buffer[])[] | null = null
  #sequence = 0
  #dropNext = 0
  eventsPort = 0
  replayPort = 0

  private constructor(options: EventPublisherOptions) {
    this.#options = options
    this.#topic = Buffer.from(options.topic)
    const { clock, random } = options
    this.#pub = new PubSocket({ clock, random })
    this.#replay = new RouterSocket({ clock, random, onMessage: (identity, frames) => this.#repeat(identity, frames) })
  }

  /** Binds both endpoints; rejects with PORT_IN_USE. */
  static async open(options: EventPublisherOptions): Promise<EventPublisher> {
    const publisher = new EventPublisher(options)
    try {
      const bind = (port: number): string => formatEndpoint({ host: options.host, port })
      publisher.eventsPort = await publisher.#pub.bind(bind(options.eventsPort))
      publisher.replayPort = await publisher.#replay.bind(bind(options.replayPort))
      return publisher
    } catch (fault) {
      await publisher.close()
      throw fault
    }
  }

  /** The number that the next batch will bear. */
  get nextSequence(): number {
    return this.#sequence
  }

  get subscribers(): number {
    return this.#pub.subscribers
  }

  publish(all: readonly KvEvent[]): void {
    const events = this.#options.told?.(all) ?? all
    if (events.length === 0) return
    const sequence = this.#sequence++
    const number = Buffer.alloc(8)
    number.writeBigUInt64BE(BigInt(sequence))
    const frames = [this.#topic, number, this.#options.encode(events, this.#options.wallSeconds())]
    this.#buffer.push({ sequence, frames })
    if (this.#buffer.length > this.#options.bufferSteps) this.#buffer.shift()
    if (this.#dropNext > 0) this.#dropNext--
    else if (this.#held !== null) this.#held.push(frames)
    else this.#pub.send(frames)
  }

  /** The next batches are numbered and kept for replay, but never sent: subscribers see a gap. */
  dropNext(batches: number): void {
    this.#dropNext = batches
  }

  /** Replay forgets what it holds, so that a gap cannot be repaired. */
  forgetBuffer(): void {
    this.#buffer.length = 0
  }

  pause(): void {
    this.#held ??= []
  }

  /** Sends what was held back, in order. */
  resume(): void {
    const held = this.#held ?? []
    this.#held = null
    for (const frames of held) this.#pub.send(frames)
  }

  /** Cuts the connections of all peers as a crash would, then frees the ports. */
  async kill(): Promise<void> {
    this.#pub.dropConnections()
    this.#replay.dropConnections()
    await this.close()
  }

  async close(): Promise<void> {
    await Promise.all([this.#pub.close(), this.#replay.close()])
  }

  /** Engines insist on exactly an empty frame and 8 bytes of start sequence; anything else is not answered. */
  #repeat(identity: string, frames: readonly Buffer[]): void {
    const [delimiter, start] = frames
    if (frames.length !== 2 || delimiter?.length !== 0 || start?.length !== 8) return
    const from = Number(start.readBigUInt64BE())
    for (const batch of this.#buffer) {
      if (batch.sequence >= from) this.#replay.send(identity, [empty, ...batch.frames])
    }
    this.#replay.send(identity, [empty, empty, endMarker, empty])
  }
}
