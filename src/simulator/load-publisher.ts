import type { Cancel, Clock } from '../zmtp/clock.ts'
import { formatEndpoint } from '../zmtp/endpoint.ts'
import { PubSocket } from '../zmtp/pub-socket.ts'
import type { EngineDrive } from './engine-drive.ts'
import { MsgpackWriter } from './msgpack.ts'
import { loadFigures } from './sglang-load.ts'

export interface LoadPublisherOptions {
  readonly clock: Clock
  readonly random: () => number
  readonly host: string
  /** 0: the system chooses. */
  readonly port: number
  readonly rank: number
  readonly drive: EngineDrive
}

/** SGLang looks after every step; what is the same is told once a second. */
const lookMs = 20
const repeatMs = 1_000
const topic = Buffer.from('load')

/** A rank's load as SGLang 0.5.23 publishes it (`--load-publish-endpoint`): `LoadStat` on change, else every second. */
export class LoadPublisher {
  readonly #options: LoadPublisherOptions
  readonly #pub: PubSocket
  #sequence = 0
  #last: Buffer = Buffer.alloc(0)
  #lastAtMs = -Infinity
  #silent = false
  #cancel: Cancel = () => undefined
  port = 0

  private constructor(options: LoadPublisherOptions) {
    this.#options = options
    this.#pub = new PubSocket(options)
  }

  /** Rejects with PORT_IN_USE. */
  static async open(options: LoadPublisherOptions): Promise<LoadPublisher> {
    const publisher = new LoadPublisher(options)
    try {
      publisher.port = await publisher.#pub.bind(formatEndpoint({ host: options.host, port: options.port }))
    } catch (fault) {
      await publisher.#pub.close()
      throw fault
    }
    publisher.#look()
    return publisher
  }

  /** No more is told, though the engine goes on. */
  silence(): void {
    this.#silent = true
  }

  async kill(): Promise<void> {
    this.#pub.dropConnections()
    await this.close()
  }

  async close(): Promise<void> {
    this.#cancel()
    await this.#pub.close()
  }

  #look(): void {
    const { clock } = this.#options
    this.#cancel = clock.after(lookMs, () => this.#look())
    const payload = this.#payload()
    if (this.#silent || (payload.equals(this.#last) && clock.now() - this.#lastAtMs < repeatMs)) return
    this.#last = payload
    this.#lastAtMs = clock.now()
    const number = Buffer.alloc(8)
    number.writeBigUInt64BE(BigInt(this.#sequence++))
    this.#pub.send([topic, number, payload])
  }

  #payload(): Buffer {
    const { drive, rank } = this.#options
    const load = loadFigures(drive)
    const out = new MsgpackWriter()
    out.array(11)
    out.text('LoadStat')
    for (const figure of [load.running, load.waiting, load.usedTokens, load.capacityTokens, rank]) out.unsigned(figure)
    out.unsigned(load.waitingUncachedTokens)
    out.unsigned(load.totalTokens)
    out.unsigned(load.maxRunning)
    for (const figure of [load.prefilledTokens, load.prefillBusyUs])
      out.unsigned64(figure >>> 0, Math.floor(figure / 2 ** 32))
    return out.take()
  }
}
