import { randomBytes } from 'node:crypto'
import { RouterError } from '../errors.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import { Sleep } from './sleep.ts'
import { ReadLane } from './read-lane.ts'
import { WireCommands, type RedisCommands, type StreamReads } from './redis-commands.ts'
import type { RedisConnection } from './redis-connection.ts'
import { faultOf, RedisFault, type RedisReason } from './redis-fault.ts'
import { doorOf, tlsSettings, type Address, type RedisOptions } from './redis-options.ts'
import { RedisServerFinder } from './redis-server.ts'

export type RedisState =
  | { readonly kind: 'connecting' }
  | { readonly kind: 'up' }
  | { readonly kind: 'away'; readonly reason: RedisReason; readonly message: string }

export interface RedisLinkContext {
  /** Milliseconds of a monotonic clock. */
  readonly clock: () => number
  readonly random: () => number
  readonly log: Log
  readonly metrics: Metrics
}

interface Session {
  readonly address: Address
  readonly commands: RedisConnection
}

type Listener<Arguments extends readonly unknown[]> = (...args: Arguments) => void

const firstPauseMs = 50
const longestPauseMs = 1000

/** After these the same connection is as good as a new one. */
const passing: ReadonlySet<RedisReason> = new Set(['loading', 'oom', 'misconf', 'busy'])

/**
 * The way to Redis. `up` means that a moment ago it took a write; `away` that it has not for `awayMs`; either is found out
 * by a heartbeat and told once, when it changes. Connections that break are made anew for as long as it takes. Nothing
 * waits for Redis here: commands fail at once without a connection, and within their time with one.
 */
export class RedisLink {
  readonly commands: RedisCommands
  readonly #options: RedisOptions
  readonly #context: RedisLinkContext
  readonly #finder: RedisServerFinder
  readonly #onUp = new Set<Listener<[]>>()
  readonly #onAway = new Set<Listener<[RedisReason]>>()
  readonly #onLogId = new Set<Listener<[string]>>()
  readonly #sleep = new Sleep()
  #state: RedisState = { kind: 'connecting' }
  #logId: string | null = null
  readonly #lanes = new Set<ReadLane>()
  #session: Session | null = null
  #successMs: number
  #verdict: NodeJS.Timeout | undefined
  #lastFault = new RedisFault('unreachable', 'not tried yet')
  #isStopped = false
  #running: Promise<void> = Promise.resolve()

  /** Throws RouterError CONFIG_UNREADABLE when a certificate cannot be read. */
  constructor(options: RedisOptions, context: RedisLinkContext) {
    this.#options = options
    this.#context = context
    this.#successMs = context.clock()
    const door = doorOf(options)
    if (door.tls !== null) tlsSettings(door.tls)
    this.#finder = new RedisServerFinder(door, options, this.key('log-id'))
    const reads = this.reads()
    this.commands = new WireCommands({
      send: (command) => this.#counted(this.#with((session) => session.commands.send(command))),
      sendAll: (commands) => this.#counted(this.#with((session) => session.commands.sendAll(commands))),
      read: (after, most, waitMs) => reads.read(after, most, waitMs),
    })
    context.metrics.read('redis_up', () => [[[], this.#state.kind === 'up' ? 1 : 0]])
  }

  get state(): RedisState {
    return this.#state
  }

  /** Random name of the log that Redis holds; another one after it lost its data. Null before it was first read. */
  get logId(): string | null {
    return this.#logId
  }

  /** A key of ours: all have one hash tag, so that a cluster keeps them together. */
  key(name: string): string {
    return `{${this.#options.prefix}}:${name}`
  }

  /** Told after `away`, and at the first success. Each returns what ends it. */
  onUp(listener: Listener<[]>): () => void {
    return listen(this.#onUp, listener)
  }

  onAway(listener: Listener<[RedisReason]>): () => void {
    return listen(this.#onAway, listener)
  }

  /** Told before `up`: Redis holds another log than a moment ago, or the first one that we see. */
  onLogId(listener: Listener<[string]>): () => void {
    return listen(this.#onLogId, listener)
  }

  /**
   * Begins, and resolves when it is known whether Redis is up, after `awayMs` at the latest. Where it is required and away:
   * stops, and throws RouterError REDIS_UNAVAILABLE.
   */
  async start(): Promise<void> {
    this.#successMs = this.#context.clock()
    let known = (): void => undefined
    const verdict = new Promise<void>((resolve) => (known = resolve))
    const deaf = [this.onUp(known), this.onAway(known)]
    this.#running = this.#run()
    await Promise.race([verdict, this.#running])
    for (const end of deaf) end()
    if (!this.#options.required || this.#state.kind !== 'away') return
    const { reason, message } = this.#state
    await this.stop()
    throw new RouterError(
      'REDIS_UNAVAILABLE',
      `Redis cannot be used (${reason}): ${message}. Mend "redis", or set redis.required to false to start without it.`,
    )
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    clearTimeout(this.#verdict)
    this.#close()
    this.#sleep.end()
    await this.#running
  }

  /** Reads on a connection of their own, for streams that must not wait for those of `commands.read`, nor it for them. */
  reads(): StreamReads & { close(): void } {
    const open = (): Promise<RedisConnection> => this.#with(({ address }) => this.#finder.open(address))
    const lane = new ReadLane(open, this.#options.commandMs)
    this.#lanes.add(lane)
    return {
      read: (after, most, waitMs) => this.#counted(lane.read(after, most, waitMs)),
      close: () => {
        this.#lanes.delete(lane)
        lane.close()
      },
    }
  }

  async #run(): Promise<void> {
    let failures = 0
    while (!this.#isStopped) {
      try {
        const session = await this.#open()
        const fault = await this.#attend(session, () => (failures = 0))
        if (fault !== null) this.#failed(fault)
      } catch (error) {
        this.#failed(faultOf(error))
      }
      this.#close()
      this.#finder.mistrust()
      const pauseMs = Math.min(longestPauseMs, firstPauseMs * 2 ** failures++)
      await this.#sleep.of(pauseMs * (0.5 + this.#context.random() / 2))
    }
  }

  async #open(): Promise<Session> {
    const address = await this.#finder.find()
    return (this.#session = { address, commands: await this.#finder.open(address) })
  }

  /** Until the connection is of no use any more; with the reason, or null when the link was stopped. */
  async #attend(session: Session, succeeded: () => void): Promise<RedisFault | null> {
    const end: { fault: RedisFault | null } = { fault: null }
    void session.commands.closed.then((fault) => {
      end.fault = fault
      this.#sleep.cut()
    })
    while (!this.#isStopped) {
      try {
        await this.#beat(session)
        succeeded()
      } catch (error) {
        const fault = faultOf(error)
        if (!passing.has(fault.reason)) return fault
        this.#failed(fault)
      }
      if (end.fault === null) await this.#sleep.of(this.#options.heartbeatMs)
      if (end.fault !== null) return end.fault
    }
    return null
  }

  /** Redis takes a write, and says which log it holds. The name offered is new each time: a lost log never gets its old one. */
  async #beat(session: Session): Promise<void> {
    const sentMs = this.#context.clock()
    const offered = randomBytes(8).toString('hex')
    const marker = this.key('log-id')
    const [set, got] = await session.commands.sendAlways([
      ['SET', marker, offered, 'NX'],
      ['GET', marker],
    ])
    for (const answer of [set, got]) if (answer instanceof RedisFault) throw answer
    if (!(got instanceof Buffer)) throw new RedisFault('error', 'a value that was just written is not there')
    this.#context.metrics.redisLatency.observe((this.#context.clock() - sentMs) / 1000)
    this.#succeeded(got.toString())
  }

  #succeeded(logId: string): void {
    clearTimeout(this.#verdict)
    this.#verdict = undefined
    const awayMs = this.#context.clock() - this.#successMs
    this.#successMs = this.#context.clock()
    if (this.#isStopped) return
    if (logId !== this.#logId) {
      this.#logId = logId
      for (const listener of [...this.#onLogId]) listener(logId)
    }
    if (this.#state.kind === 'up') return
    const message = this.#state.kind === 'away' ? 'Redis is back' : 'Redis is up'
    this.#context.log.info({ address: addressText(this.#session), awayMs: Math.round(awayMs) }, message)
    this.#change({ kind: 'up' })
    for (const listener of [...this.#onUp]) listener()
  }

  /** Counts as away only once `awayMs` have passed: a connection that breaks and is made anew changes nothing. */
  #failed(fault: RedisFault): void {
    if (this.#isStopped) return
    this.#context.metrics.redisErrors.add(1, fault.reason)
    this.#lastFault = fault
    if (this.#state.kind === 'away') this.#state = { kind: 'away', reason: fault.reason, message: fault.message }
    else if (this.#verdict === undefined) {
      const leftMs = this.#successMs + this.#options.awayMs - this.#context.clock()
      this.#verdict = setTimeout(() => this.#away(), Math.max(0, leftMs))
    }
  }

  #away(): void {
    this.#verdict = undefined
    const { reason, message } = this.#lastFault
    this.#context.log.warn({ reason, message }, 'Redis is away: requests go on from memory')
    this.#change({ kind: 'away', reason, message })
    for (const listener of [...this.#onAway]) listener(reason)
  }

  #change(state: RedisState): void {
    this.#state = state
    this.#context.metrics.redisStateChanges.add(1, state.kind)
  }

  #with<Answer>(use: (session: Session) => Promise<Answer>): Promise<Answer> {
    const session = this.#session
    return session === null ? Promise.reject(new RedisFault('unreachable', 'not connected')) : use(session)
  }

  async #counted<Answer>(work: Promise<Answer>): Promise<Answer> {
    try {
      return await work
    } catch (error) {
      const fault = faultOf(error)
      this.#context.metrics.redisErrors.add(1, fault.reason)
      throw fault
    }
  }

  #close(): void {
    this.#session?.commands.close()
    this.#session = null
    for (const lane of this.#lanes) lane.drop()
  }
}

function listen<Heard>(listeners: Set<Heard>, listener: Heard): () => void {
  listeners.add(listener)
  return () => listeners.delete(listener)
}

function addressText(session: Session | null): string {
  return session === null ? '' : `${session.address.host}:${session.address.port}`
}
