import { systemClock } from '../../src/zmtp/clock.ts'
import { PubSocket } from '../../src/zmtp/pub-socket.ts'
import { SubSocket } from '../../src/zmtp/sub-socket.ts'

/** A publisher that passes on what another one publishes, and loses messages when it is told to. */
export class Relay {
  readonly endpoint: string
  readonly #source: SubSocket
  readonly #sink: PubSocket
  #toLose = 0
  #lost = 0

  static async of(upstream: string): Promise<Relay> {
    const sink = new PubSocket({ clock: systemClock, random: Math.random })
    const port = await sink.bind('tcp://127.0.0.1:0')
    return new Relay(upstream, sink, `tcp://127.0.0.1:${port}`)
  }

  private constructor(upstream: string, sink: PubSocket, endpoint: string) {
    this.endpoint = endpoint
    this.#sink = sink
    this.#source = new SubSocket({
      topics: [''],
      clock: systemClock,
      random: Math.random,
      onMessage: (frames) => {
        if (this.#toLose === 0) this.#sink.send(frames)
        else {
          this.#toLose--
          this.#lost++
        }
      },
    })
    this.#source.connect(upstream)
  }

  get lost(): number {
    return this.#lost
  }

  /** The next messages go nowhere. */
  lose(messages: number): void {
    this.#toLose += messages
  }

  async close(): Promise<void> {
    await this.#source.close()
    await this.#sink.close()
  }
}
