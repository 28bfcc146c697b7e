import type { Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'
import { RouterError } from '../errors.ts'
import type { Clock } from '../zmtp/clock.ts'
import { formatEndpoint } from '../zmtp/endpoint.ts'
import { Counters } from './counters.ts'
import type { LoraAdapter } from './engine-call.ts'
import { EngineDrive } from './engine-drive.ts'
import type { EngineOptions, EngineStats } from './engine.ts'
import { EventPublisher } from './event-publisher.ts'
import { Faults, type Fault } from './faults.ts'
import { createServer } from './server.ts'
import type { OutputVocabulary, SimulatorTokenizer } from './tokenizer.ts'

export interface WorkerOptions {
  /** The address to listen on; `0.0.0.0` for all. */
  readonly host: string
  /** 0: the system chooses, and a restart keeps its choice. */
  readonly httpPort: number
  /** Of rank 0; rank r listens on port + r. 0: the system chooses each. Null: no events, as without --kv-events-config. */
  readonly eventsPort: number | null
  readonly replayPort: number
  /** Data-parallel ranks, each with its own cache and events. */
  readonly ranks: number
  readonly model: string
  readonly loras: readonly LoraAdapter[]
  readonly tokenizer: SimulatorTokenizer
  readonly vocabulary: OutputVocabulary
  readonly engine: Partial<EngineOptions>
  readonly topic: string
  readonly eventHashes: 'int' | 'bytes'
  readonly bufferSteps: number
  readonly timeScale: number
  readonly defaultOutputTokens: number
  readonly maxSequences: number
  readonly promptTokensDetails: boolean
  readonly requestIdHeaders: boolean
  readonly bodyLimitBytes: number
  /** Responses kept for those that go on from them; 0: none, as in vLLM without VLLM_ENABLE_RESPONSES_API_STORE. */
  readonly storedResponses: number
  /** vLLM's --enable-scale-out. */
  readonly scaleOut: boolean
  /** Whether POST /simulator/fault is there; `fault` does the same in this process. */
  readonly faultControl: boolean
  /** How long after its start the worker refuses connections, as while a model loads. */
  readonly startDelayMs: number
  readonly clock: Clock
  /** The machine's monotonic clock, the same for all its processes. */
  readonly monotonicMs: () => number
  readonly random: () => number
  readonly wallSeconds: () => number
}

interface Rank {
  readonly drive: EngineDrive
  readonly publisher: EventPublisher | null
}

/** One life of the process: what dies with it. */
interface Life {
  readonly ranks: readonly Rank[]
  readonly app: FastifyInstance
  readonly sockets: Set<Socket>
  readonly counters: Counters
}

/** A simulated engine process: HTTP server, ranks with their caches and event streams, and the faults to try on a router. */
export class SimulatedWorker {
  readonly #options: WorkerOptions
  #life: Life | null = null
  #lives = 0
  #httpPort: number
  #eventsPorts: number[]
  #replayPorts: number[]
  readonly #faults: Faults
  #dieAfterTokens: number | null = null

  constructor(options: WorkerOptions) {
    this.#options = options
    this.#faults = new Faults(options.clock)
    this.#httpPort = options.httpPort
    const ports = (first: number): number[] => Array.from({ length: options.ranks }, (_, rank) => portOf(first, rank))
    this.#eventsPorts = options.eventsPort === null ? [] : ports(options.eventsPort)
    this.#replayPorts = ports(options.replayPort)
  }

  get url(): string {
    return `http://${reachable(this.#options.host)}:${this.#httpPort}`
  }

  /** Where a rank's events come from, and where it repeats them. */
  eventEndpoints(rank = 0): { readonly events: string; readonly replay: string } {
    const host = reachable(this.#options.host)
    return {
      events: `tcp://${host}:${this.#eventsPorts[rank] ?? 0}`,
      replay: `tcp://${host}:${this.#replayPorts[rank] ?? 0}`,
    }
  }

  get running(): boolean {
    return this.#life !== null
  }

  /** Figures of each rank; empty while the worker is down. */
  get stats(): readonly EngineStats[] {
    return this.#life?.ranks.map(({ drive }) => drive.stats) ?? []
  }

  /** What came in during this life and how it ended; null while the worker is down. */
  get counters(): Counters['figures'] | null {
    return this.#life?.counters.figures ?? null
  }

  /** Event publishers by rank; empty while the worker is down or without events. */
  get publishers(): readonly EventPublisher[] {
    return this.#life?.ranks.flatMap(({ publisher }) => publisher ?? []) ?? []
  }

  /** Starts a new process: empty caches, sequence numbers from 0. Rejects with PORT_IN_USE. */
  async start(): Promise<void> {
    const options = this.#options
    const startedSeconds = options.wallSeconds()
    const ranks: Rank[] = []
    try {
      for (let rank = 0; rank < options.ranks; rank++) ranks.push(await this.#openRank(rank))
      const counters = new Counters(options.monotonicMs)
      const app = this.#createApp(ranks, startedSeconds, counters)
      const sockets = this.#guardConnections(app)
      await listen(app, options.host, this.#httpPort)
      const address = app.server.address()
      if (typeof address === 'object' && address !== null) this.#httpPort = address.port
      this.#life = { ranks, app, sockets, counters }
      this.#lives++
    } catch (fault) {
      for (const { publisher } of ranks) await publisher?.close()
      throw fault
    }
  }

  /** Ends the process as SIGTERM does; answers under way are cut. */
  async stop(): Promise<void> {
    const life = this.#life
    this.#life = null
    if (life === null) return
    for (const { drive } of life.ranks) drive.stop()
    await life.app.close()
    for (const { publisher } of life.ranks) await publisher?.close()
  }

  /** Ends the process as SIGKILL does: every connection breaks at once. */
  async kill(): Promise<void> {
    const life = this.#life
    this.#life = null
    if (life === null) return
    for (const { drive } of life.ranks) drive.stop()
    for (const socket of life.sockets) socket.resetAndDestroy()
    await life.app.close()
    for (const { publisher } of life.ranks) await publisher?.kill()
  }

  /** Kills the process, if it lives, and starts a new one on the same ports. */
  async restart(): Promise<void> {
    await this.kill()
    await this.start()
  }

  /** The next batches of a rank are numbered but never sent; `forget` also takes all batches so far from its replay. */
  dropEvents(batches: number, { rank = 0, forget = false } = {}): void {
    const publisher = this.publishers[rank]
    publisher?.dropNext(batches)
    if (forget) publisher?.forgetBuffer()
  }

  /** Events are held back until `resumeEvents`. */
  pauseEvents(): void {
    for (const publisher of this.publishers) publisher.pause()
  }

  resumeEvents(): void {
    for (const publisher of this.publishers) publisher.resume()
  }

  /** Each answer's connection is destroyed after this many of its tokens; null: no longer. */
  dieAfterTokens(tokens: number | null): void {
    this.#dieAfterTokens = tokens
  }

  /** What goes wrong from now on with the requests that the fault meets; it replaces the one before and outlives restarts. */
  fault(fault: Fault): void {
    this.#faults.set(fault)
  }

  /** Requests are accepted and nothing comes out until `resume`. */
  stall(): void {
    for (const { drive } of this.#life?.ranks ?? []) drive.stall()
  }

  resume(): void {
    for (const { drive } of this.#life?.ranks ?? []) drive.resume()
  }

  async #openRank(rank: number): Promise<Rank> {
    const options = this.#options
    const { clock, random, wallSeconds, host, topic, bufferSteps, timeScale, vocabulary } = options
    let publisher: EventPublisher | null = null
    const drive = new EngineDrive({
      engine: { ...options.engine, outputTokens: vocabulary.tokens },
      clock,
      timeScale,
      onEvents: (events) => publisher?.publish(events),
    })
    if (options.eventsPort === null) return { drive, publisher }
    publisher = await EventPublisher.open({
      clock,
      random,
      wallSeconds,
      host,
      topic,
      bufferSteps,
      rank,
      hashes: options.eventHashes,
      blockSize: drive.options.blockSize,
      eventsPort: this.#eventsPorts[rank] ?? 0,
      replayPort: this.#replayPorts[rank] ?? 0,
    })
    this.#eventsPorts[rank] = publisher.eventsPort
    this.#replayPorts[rank] = publisher.replayPort
    return { drive, publisher }
  }

  #createApp(ranks: readonly Rank[], startedSeconds: number, counters: Counters): FastifyInstance {
    const options = this.#options
    return createServer({
      ...options,
      maxModelLength: (ranks[0] as Rank).drive.options.maxModelLength,
      ranks: ranks.map(({ drive }, rank) => ({ drive, eventSource: this.#eventSource(rank) })),
      startedSeconds,
      idSeed: `${options.model} ${startedSeconds} ${this.#lives} ${options.random()}`,
      dieAfterTokens: () => this.#dieAfterTokens,
      faults: this.#faults,
      counters,
    })
  }

  #eventSource(rank: number): object | null {
    const { eventsPort, host, bufferSteps, topic } = this.#options
    if (eventsPort === null) return null
    const bound = (port: number | undefined): string =>
      formatEndpoint({ host: host === '0.0.0.0' || host === '::' ? '' : host, port: port ?? 0 })
    return {
      enable_kv_cache_events: true,
      publisher: 'zmq',
      endpoint: bound(this.#eventsPorts[rank]),
      replay_endpoint: bound(this.#replayPorts[rank]),
      buffer_steps: bufferSteps,
      hwm: 100_000,
      max_queue_size: 100_000,
      topic,
    }
  }

  /** Keeps the open connections, and refuses new ones while the model is said to load. */
  #guardConnections(app: FastifyInstance): Set<Socket> {
    const { clock, startDelayMs } = this.#options
    const readyAtMs = clock.now() + startDelayMs
    const sockets = new Set<Socket>()
    app.server.on('connection', (socket: Socket) => {
      if (startDelayMs > 0 && clock.now() < readyAtMs) {
        socket.resetAndDestroy()
        return
      }
      sockets.add(socket)
      socket.once('close', () => sockets.delete(socket))
    })
    return sockets
  }
}

async function listen(app: FastifyInstance, host: string, port: number): Promise<void> {
  try {
    await app.listen({ host, port })
  } catch (cause) {
    await app.close()
    const inUse = (cause as NodeJS.ErrnoException).code === 'EADDRINUSE'
    throw new RouterError(
      inUse ? 'PORT_IN_USE' : 'CONFIG_INVALID',
      `Cannot listen on ${host}:${port}: ${(cause as Error).message}`,
      { cause },
    )
  }
}

function portOf(first: number, rank: number): number {
  return first === 0 ? 0 : first + rank
}

function reachable(host: string): string {
  return host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host.includes(':') ? `[${host}]` : host
}
