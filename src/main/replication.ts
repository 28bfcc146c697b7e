import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { RedisConfig } from '../config/schema.ts'
import { IntakeStreams } from '../replication/intake-streams.ts'
import { Leases } from '../replication/leases.ts'
import { RedisLink } from '../replication/link.ts'
import { framesOf, LogReader, streamStart, type Following } from '../replication/log-reader.ts'
import { LogWriter } from '../replication/log-writer.ts'
import { SharedState, type SharedStateOptions } from '../replication/shared-state.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import { EventPlane } from './event-plane.ts'

export interface ReplicationOptions extends Pick<
  SharedStateOptions,
  'slots' | 'counters' | 'isAnnounced' | 'foreignPrompts' | 'policyOf' | 'secret' | 'responsesKept' | 'clock'
> {
  readonly redis: RedisConfig
  /** Replicas of another one have other keys, and share nothing with us. */
  readonly fingerprint: string
  readonly random: () => number
  readonly log: Log
  readonly metrics: Metrics
}

const tickMs = 100
const snapshotLease = '#snapshot'
const settleLookMs = 20
/** A mark comes so much later than it is due, at most; else the next one is waited for. */
const markDelayMs = 500
/** For which a lease is left to others that was let go, since the engine is not heard. */
const yieldPauseMs = 5_000
/** For which a lease is left to its last holder once Redis is back. */
const deferPauseMs = 2_000
/** Messages of the shared stream are of use for a moment only. */
const sharedEntries = 20_000

/** What this router shares with its replicas, joined to their Redis. */
export class Replication {
  readonly link: RedisLink
  /** KV events that bridges write. */
  readonly streams: IntakeStreams
  readonly plane: EventPlane
  readonly shared: SharedState
  /** Ours among the replicas; another one after each start. */
  readonly replica = randomBytes(8).toString('hex')
  readonly #o: ReplicationOptions
  readonly #leases: Leases
  readonly #eventWriter: LogWriter
  readonly #sharedWriter: LogWriter
  readonly #reader: LogReader
  readonly #eventStream: string
  readonly #sharedStream: string
  #events: Following | null = null
  #ticking: NodeJS.Timeout | undefined

  /** Throws RouterError CONFIG_UNREADABLE when a certificate cannot be read. */
  constructor(options: ReplicationOptions) {
    this.#o = options
    const { redis, fingerprint, clock, random, log, metrics } = options
    this.link = new RedisLink(redis, { clock, random, log, metrics })
    this.streams = new IntakeStreams({ link: this.link, clock, log })
    const { commands } = this.link
    const key = (name: string): string => this.link.key(`${fingerprint}:${name}`)
    this.#eventStream = key('events')
    this.#sharedStream = key('shared')
    const bounds = { maxAgeMs: redis.logSeconds * 1000, entryBlocks: redis.entryBlocks, bufferBytes: redis.bufferBytes }
    const writing = { commands, clock, metrics, ...bounds }
    this.#eventWriter = new LogWriter({
      ...{ ...writing, stream: this.#eventStream, name: 'events', maxEntries: redis.logEntries },
      onBroken: (reason) => log.debug({ reason }, 'events for other replicas were dropped'),
    })
    this.#sharedWriter = new LogWriter({
      ...{ ...writing, stream: this.#sharedStream, name: 'shared', maxEntries: sharedEntries },
      onBroken: () => undefined,
    })
    this.#leases = new Leases({
      ...{ commands, clock, replica: this.replica, leaseMs: redis.leaseMs },
      key: (name) => key(`lease:${name}`),
      replicas: () => this.shared.replicas(),
      onAcquired: (name) => this.plane.acquired(name),
      onLost: (name) => this.plane.lost(name),
    })
    this.plane = new EventPlane({
      ...{ clock, log },
      newSession: () => randomBytes(6).readUIntLE(0, 6),
      append: (frame, blocks) => this.#eventWriter.append(frame, blocks),
      leases: {
        want: (name) => this.#leases.want(name, true),
        drop: (name) => this.#leases.want(name, false),
        yield: (name) => {
          this.#leases.release(name, yieldPauseMs)
          this.plane.lost(name)
        },
        defer: (name) => this.#leases.release(name, deferPauseMs),
      },
      timing: { graceMs: redis.graceMs, fallbackMs: redis.fallbackMs, markMs: redis.markMs, yieldMs: redis.yieldMs },
      unread: (frames) => metrics.streamFramesUnread.add(frames, 'events'),
      apart: (worker) => metrics.kvEventsApart.add(1, worker),
    })
    this.shared = new SharedState({
      ...options,
      replica: this.replica,
      limits: { shareMs: redis.shareMs, shareTtlMs: redis.shareTtlMs },
      append: (message) => this.#sharedWriter.append(message, 1),
      onSkipped: () => metrics.streamFramesUnread.add(1, 'shared'),
    })
    this.#reader = new LogReader({ ...{ commands, clock, metrics }, link: this.link, reads: this.link.reads() })
    this.link.onUp(() => this.#isUp())
    this.link.onAway(() => this.#isAway())
    metrics.read('redis_leases', () => [[[], this.#leases.held().length]])
    metrics.read('replicas', () => [[[], this.shared.replicas().length + 1]])
    metrics.read('in_flight_elsewhere_requests', () => [[[], this.shared.requestsElsewhere]])
    metrics.read('log_behind_seconds', () => [[[], (this.#events?.behindMs() ?? 0) / 1000]])
  }

  /** Where the log of events was read to; null before that. */
  get logPosition(): string | null {
    return this.#events?.position ?? null
  }

  /** Finds out whether Redis can be used. Throws RouterError REDIS_UNAVAILABLE where it has to be and cannot. */
  async start(): Promise<void> {
    await this.link.start()
  }

  /**
   * Reads what others write, and writes what is ours to write.
   *
   * @param from where the log goes on behind what is known; null: nothing is, and the last marks will do
   */
  async open(from: string | null): Promise<void> {
    const position = from ?? beforeBy(await this.#endOf(this.#eventStream), this.#o.redis.markMs + markDelayMs)
    this.#events = this.#reader.follow({
      ...{ stream: this.#eventStream, name: 'events', from: position },
      onEntry: (entry) => {
        const frames = framesOf(entry)
        if (frames === null) this.#o.metrics.streamFramesUnread.add(1, 'events')
        else this.plane.received(frames)
      },
      onGap: (gap) => {
        if (gap === 'anew') this.plane.logBegan()
      },
    })
    this.#reader.follow({
      ...{ stream: this.#sharedStream, name: 'shared', from: await this.#endOf(this.#sharedStream) },
      onEntry: (entry) => {
        const messages = framesOf(entry)
        if (messages !== null) this.shared.receive(messages)
      },
      onGap: () => this.shared.missed(),
    })
    this.plane.open(this.link.state.kind === 'up' ? 'up' : 'away')
    if (this.link.state.kind === 'up') this.shared.up()
    this.#reader.start()
    this.#leases.want(snapshotLease, true)
    this.#leases.start()
    this.#ticking = setInterval(() => this.#tick(), tickMs)
  }

  /** Waits until what is known of every worker is as its log or its engine has it; not while Redis is away, nor for ever. */
  async settled(deadlineMs: number): Promise<void> {
    const { clock, log } = this.#o
    const startMs = clock()
    while (!this.plane.isSettled && this.link.state.kind === 'up') {
      if (clock() - startMs >= deadlineMs) {
        log.warn({ deadlineMs }, 'the map is not whole yet: workers it knows little of are routed by load')
        return
      }
      await sleep(settleLookMs)
    }
  }

  /** Of the replicas one makes the snapshots. */
  get makesSnapshots(): boolean {
    return this.#leases.holds(snapshotLease)
  }

  /** Whether no other replica is there that could go on from what this one knows. */
  get isLast(): boolean {
    return this.makesSnapshots && this.shared.replicas().length === 0
  }

  /** For /admin/map. */
  view(): object {
    const { state } = this.link
    return {
      redis: state.kind === 'away' ? { state: state.kind, reason: state.reason } : { state: state.kind },
      replica: this.replica,
      others: this.shared.replicas(),
      leases: this.#leases.held(),
      log: { position: this.logPosition, behindMs: this.#events?.behindMs() ?? null },
    }
  }

  async stop(): Promise<void> {
    clearInterval(this.#ticking)
    this.shared.stop()
    this.streams.stop()
    await this.#leases.stop()
    await this.#reader.stop()
    this.#eventWriter.stop()
    this.#sharedWriter.stop()
    await this.link.stop()
  }

  /** Without Redis there is no end to know: reading then begins with the oldest. */
  async #endOf(stream: string): Promise<string> {
    try {
      return (await this.link.commands.lastId(stream)) ?? streamStart
    } catch {
      return streamStart
    }
  }

  #isUp(): void {
    this.plane.logIs('up')
    this.shared.up()
  }

  #isAway(): void {
    this.plane.logIs('away')
    this.shared.away()
  }

  #tick(): void {
    if (this.link.state.kind === 'up') {
      if (this.#sharedWriter.isBroken) {
        this.#sharedWriter.resume()
        this.shared.away()
        this.shared.up()
      }
      if (this.#eventWriter.isBroken) {
        this.#eventWriter.resume()
        // What was dropped the others notice by the next mark.
        this.plane.markAll()
      }
    }
    this.plane.tick(this.#events?.isCaughtUp ?? false)
    this.shared.beat()
  }
}

/** The id of an entry that came so long before another. */
function beforeBy(id: string, ms: number): string {
  return `${Math.max(0, Number.parseInt(id, 10) - ms)}-0`
}
