import { RouterError } from '../errors.ts'
import type { Clock } from '../zmtp/clock.ts'
import { SubSocket } from '../zmtp/sub-socket.ts'
import { MsgpackCursor } from './msgpack.ts'

/** One engine rank's load as the engine publishes it. */
export interface PublishedLoad {
  readonly running: number
  readonly waiting: number
  /** Share of the KV cache in use; null where the engine tells no capacity. */
  readonly kvUsage: number | null
  readonly waitingTokens?: number
  readonly prefilled?: Prefilled
}

/** Prompt tokens computed since the engine's start, and the time that this took. */
export interface Prefilled {
  readonly tokens: number
  readonly busyUs: number
}

export interface LoadFeedOptions {
  readonly endpoint: string
  readonly topic: string
  /** The rank whose load is expected there. */
  readonly rank: number
  readonly clock: Clock
  readonly random: () => number
  readonly onLoad: (load: PublishedLoad) => void
  /** A message was passed over: it cannot be read, or is of another rank. */
  readonly onRefused: (reason: 'malformed' | 'other_rank') => void
}

/** Engines repeat an unchanged load every second; after three of these nothing can be said of it. */
const silentMs = 3000

/**
 * SGLang's load feed (0.5.23, `--load-publish-endpoint`): frames `[topic, sequence, LoadStat]`. A load is a gauge, so what was
 * lost or comes with a lower sequence number needs no repair: the last word counts.
 */
export class LoadFeed {
  readonly #o: LoadFeedOptions
  readonly #socket: SubSocket
  #heardAtMs = -Infinity

  constructor(options: LoadFeedOptions) {
    this.#o = options
    const { clock, random, topic, endpoint } = options
    this.#socket = new SubSocket({
      topics: [topic],
      clock,
      random,
      onMessage: (frames) => this.#hear(frames),
      onDisconnected: () => (this.#heardAtMs = -Infinity),
    })
    this.#socket.connect(endpoint)
  }

  isLive(): boolean {
    return this.#o.clock.now() - this.#heardAtMs < silentMs
  }

  stop(): Promise<void> {
    this.#heardAtMs = -Infinity
    return this.#socket.close()
  }

  #hear(frames: readonly Buffer[]): void {
    let stat: LoadStat
    try {
      stat = decodeLoadStat(frames.at(-1) ?? Buffer.alloc(0))
    } catch (fault) {
      if (!(fault instanceof RouterError)) throw fault
      this.#o.onRefused('malformed')
      return
    }
    if (stat.rank !== null && stat.rank !== this.#o.rank) {
      this.#o.onRefused('other_rank')
      return
    }
    this.#heardAtMs = this.#o.clock.now()
    this.#o.onLoad(stat.load)
  }
}

export interface LoadStat {
  readonly rank: number | null
  readonly load: PublishedLoad
}

/**
 * `["LoadStat", running, waiting, KV tokens, KV capacity, rank or nil, waiting uncached tokens, tokens in all, most running,
 * prefilled uncached tokens, prefill time in µs]`; the last five came later and may be missing.
 *
 * @throws RouterError EVENT_MALFORMED
 */
export function decodeLoadStat(payload: Buffer): LoadStat {
  const cursor = new MsgpackCursor(payload)
  const items = cursor.array()
  if (items < 5 || !cursor.isText()) throw new RouterError('EVENT_MALFORMED', 'A load has at least five items.')
  const nameBytes = cursor.textBytes()
  const name = payload.toString('latin1', cursor.at, cursor.at + nameBytes)
  if (name !== 'LoadStat') throw new RouterError('EVENT_MALFORMED', 'A load is not named so.')
  cursor.at += nameBytes
  const figure = (): number => {
    const value = cursor.number()
    if (!(value >= 0)) throw new RouterError('EVENT_MALFORMED', 'A load has a figure below zero.')
    return value
  }
  const [running, waiting, usedTokens, capacityTokens] = [figure(), figure(), figure(), figure()]
  const rank = items > 5 && !cursor.skipNil() ? cursor.integer() : null
  const waitingTokens = items > 6 ? figure() : null
  const prefilled = items > 10 ? prefilledOf([figure(), figure(), figure(), figure()]) : null
  return {
    rank,
    load: {
      running,
      waiting,
      kvUsage: capacityTokens > 0 ? Math.min(1, usedTokens / capacityTokens) : null,
      ...(waitingTokens === null ? {} : { waitingTokens }),
      ...(prefilled === null ? {} : { prefilled }),
    },
  }
}

function prefilledOf([, , tokens, busyUs]: readonly [number, number, number, number]): Prefilled {
  return { tokens, busyUs }
}
