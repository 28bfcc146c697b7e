import { PubSocket } from '../../src/zmtp/pub-socket.ts'
import { RouterSocket } from '../../src/zmtp/router-socket.ts'
import { writeSequence } from '../../src/events/sequence-number.ts'
import { systemClock } from '../../src/zmtp/clock.ts'
import { encodeMsgpack, type Encodable } from '../support/msgpack.ts'

const ports = { clock: systemClock, random: Math.random }
const endMark = Buffer.alloc(8, 0xff)

/** A process of an engine: publishes numbered batches and replays those that it keeps. */
export class FakeEngine {
  readonly pub = new PubSocket(ports)
  readonly router: RouterSocket
  readonly requests: number[] = []
  keeps = 10_000
  /** Frames of a replay answer: with the topic (vLLM 0.32) or without (older). */
  layout: 3 | 4 = 4
  answers: 'all' | 'nothing' | 'first half once' = 'all'
  port = 0
  replayPort = 0
  readonly #topic: Buffer
  readonly #kept: { sequence: number; payload: Buffer }[] = []
  #next = 0
  readonly #bornAt: number

  constructor(topic = 'kv@a', bornAt = 1000) {
    this.#topic = Buffer.from(topic)
    this.#bornAt = bornAt
    this.router = new RouterSocket({ ...ports, onMessage: (identity, frames) => this.#replay(identity, frames) })
  }

  async listen(port = 0, replayPort = 0): Promise<this> {
    this.port = await this.pub.bind(`tcp://127.0.0.1:${port}`)
    this.replayPort = await this.router.bind(`tcp://127.0.0.1:${replayPort}`)
    return this
  }

  /** A batch that stores one root block named and made of its tokens; `lost` never reaches subscribers. */
  store(tokens: readonly number[], lost = false): void {
    this.publish(
      [
        {
          type: 'BlockStored',
          block_hashes: [tokens[0] ?? 0],
          parent_block_hash: null,
          token_ids: tokens,
          block_size: tokens.length,
          medium: 'GPU',
        },
      ],
      lost,
    )
  }

  publish(events: readonly Encodable[], lost = false): void {
    const payload = encodeMsgpack([this.#bornAt + this.#next + 0.5, events, 0])
    this.raw(payload, lost)
  }

  raw(payload: Buffer, lost = false): void {
    const sequence = this.#next++
    this.#kept.push({ sequence, payload })
    if (this.#kept.length > this.keeps) this.#kept.shift()
    if (!lost) this.pub.send([this.#topic, writeSequence(sequence), payload])
  }

  async close(): Promise<void> {
    this.pub.dropConnections()
    this.router.dropConnections()
    await Promise.all([this.pub.close(), this.router.close()])
  }

  #replay(identity: string, frames: readonly Buffer[]): void {
    const start = Number(frames[1]?.readBigUInt64BE())
    this.requests.push(start)
    if (this.answers === 'nothing') return
    const topic = this.layout === 4 ? [this.#topic] : []
    const empty = Buffer.alloc(0)
    let kept = this.#kept.filter(({ sequence }) => sequence >= start)
    const half = this.answers === 'first half once'
    if (half) kept = kept.slice(0, Math.ceil(kept.length / 2))
    for (const { sequence, payload } of kept)
      this.router.send(identity, [empty, ...topic, writeSequence(sequence), payload])
    if (!half) this.router.send(identity, [empty, ...topic.map(() => empty), endMark, empty])
    this.answers = 'all'
  }
}
