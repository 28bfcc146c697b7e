import type { Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'
import { RouterError } from '../errors.ts'
import type { Clock } from '../zmtp/clock.ts'
import { Counters } from './counters.ts'
import type { LoraAdapter } from './engine-call.ts'
import { EngineDrive } from './engine-drive.ts'
import type { EngineOptions } from './engine-options.ts'
import type { EngineStats } from './engine.ts'
import type { TrueBlocks, TrueMatch } from './tiered-cache.ts'
import { Faults, type Fault } from './faults.ts'
import type { EventOutlet, Flavour, Surface } from './flavour.ts'
import type { Misreport } from './misreport.ts'
import { Ports } from './ports.ts'
import type { GenerationRequest } from './sequence.ts'
import { createServer } from './server.ts'
import type { KvEvent } from './kv-event.ts'
import type { OutputVocabulary, SimulatorTokenizer } from './tokenizer.ts'

export interface WorkerOptions {
  /** Which kind of engine it is. */
  readonly flavour: Flavour
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
  /** What it does and tells other than it should. */
  readonly misreport: readonly Misreport[]
  /** How long after its start the worker refuses connections, as while a model loads. */
  readonly startDelayMs: number
  readonly clock: Clock
  /** The machine's monotonic clock, the same for all its processes. */
  readonly monotonicMs: () => number
  readonly random: () => number
  readonly wallSeconds: () => number
}

/** One life of the process: what dies with it. */
interface Life {
  readonly ranks: readonly EngineDrive[]
  readonly surface: Surface
  readonly app: FastifyInstance
  readonly sockets: Set<Socket>
  readonly counters: Counters
}

/** A simulated engine process: HTTP server, ranks with their caches and event streams, and the faults to try on a router. */
export class SimulatedWorker {
  readonly #options: WorkerOptions
  #life: Life | null = null
  #lives = 0
  readonly #ports: Ports
  readonly #faults: Faults
  #dieAfterTokens: number | null = null

  constructor(options: WorkerOptions) {
    this.#options = options
    this.#faults = new Faults(options.clock)
    const { host, httpPort, eventsPort, replayPort } = options
    this.#ports = new Ports(host, { http: httpPort, events: eventsPort ?? 0, replay: replayPort })
  }

  get url(): string {
    return `http://${this.#ports.reachable('http')}`
  }

  /** Where a rank's events come from, and where it repeats them. */
  eventEndpoints(rank = 0): { readonly events: string; readonly replay: string } {
    return {
      events: `tcp://${this.#ports.reachable('events', rank)}`,
      replay: `tcp://${this.#ports.reachable('replay', rank)}`,
    }
  }

  /** Where else than by HTTP rank 0 can be heard; empty while the worker is down. */
  get places(): Surface['places'] {
    return this.#life?.surface.places ?? {}
  }

  get running(): boolean {
    return this.#life !== null
  }

  /** Figures of each rank; empty while the worker is down. */
  get stats(): readonly EngineStats[] {
    return this.#life?.ranks.map(({ stats }) => stats) ?? []
  }

  /** What a rank's tiers hold now; null while the worker is down. */
  trueBlocks(rank = 0): TrueBlocks | null {
    return this.#life?.ranks[rank]?.trueBlocks() ?? null
  }

  /** The leading blocks of a prompt that a rank's tiers hold now; null while the worker is down. */
  trueMatch(request: Omit<GenerationRequest, 'id' | 'outputTokens'>, rank = 0): TrueMatch | null {
    return this.#life?.ranks[rank]?.trueMatch(request) ?? null
  }

  /** What came in during this life and how it ended; null while the worker is down. */
  get counters(): Counters['figures'] | null {
    return this.#life?.counters.figures ?? null
  }

  /** Where events leave, by rank; empty while the worker is down or without events. */
  get publishers(): readonly EventOutlet[] {
    return this.#life?.surface.outlets ?? []
  }

  /** Starts a new process: empty caches, sequence numbers from 0. Rejects with PORT_IN_USE. */
  async start(): Promise<void> {
    const options = this.#options
    const startedSeconds = options.wallSeconds()
    const opened: { surface?: Surface } = {}
    const ranks = Array.from({ length: options.ranks }, (_, rank) => {
      const onEvents = (events: readonly KvEvent[]): void => opened.surface?.outlets[rank]?.publish(events)
      return this.#createDrive(onEvents)
    })
    const surface = await this.#openSurface(ranks, startedSeconds)
    opened.surface = surface
    try {
      const counters = new Counters(options.monotonicMs)
      const app = this.#createApp(ranks, surface, startedSeconds, counters)
      const sockets = this.#guardConnections(app)
      await listen(app, options.host, this.#ports.of('http'))
      const address = app.server.address()
      if (typeof address === 'object' && address !== null) this.#ports.keep('http', 0, address.port)
      this.#life = { ranks, surface, app, sockets, counters }
      this.#lives++
    } catch (fault) {
      await surface.close()
      throw fault
    }
  }

  /** Ends the process as SIGTERM does; answers under way are cut. */
  async stop(): Promise<void> {
    const life = this.#life
    this.#life = null
    if (life === null) return
    for (const drive of life.ranks) drive.stop()
    await life.app.close()
    await life.surface.close()
  }

  /** Ends the process as SIGKILL does: every connection breaks at once. */
  async kill(): Promise<void> {
    const life = this.#life
    this.#life = null
    if (life === null) return
    for (const drive of life.ranks) drive.stop()
    for (const socket of life.sockets) socket.resetAndDestroy()
    await life.app.close()
    await life.surface.kill()
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

  /** The load is published no more, until the next start. */
  silenceLoad(): void {
    this.#life?.surface.silenceLoad?.()
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
    for (const drive of this.#life?.ranks ?? []) drive.stall()
  }

  resume(): void {
    for (const drive of this.#life?.ranks ?? []) drive.resume()
  }

  #createDrive(onEvents: (events: readonly KvEvent[]) => void): EngineDrive {
    const { flavour, engine, vocabulary, clock, timeScale, misreport } = this.#options
    return new EngineDrive({
      engine: { ...flavour.engine, ...engine, outputTokens: vocabulary.tokens },
      clock,
      timeScale,
      onEvents,
      misreport,
    })
  }

  #openSurface(ranks: readonly EngineDrive[], startedSeconds: number): Promise<Surface> {
    const { flavour, eventsPort, topic, eventHashes, bufferSteps } = this.#options
    return flavour.open({
      ...this.#options,
      ranks,
      startedSeconds,
      ports: this.#ports,
      events: eventsPort === null ? null : { topic, hashes: eventHashes, bufferSteps },
    })
  }

  #createApp(
    ranks: readonly EngineDrive[],
    surface: Surface,
    startedSeconds: number,
    counters: Counters,
  ): FastifyInstance {
    const options = this.#options
    const served = {
      ...options,
      maxModelLength: (ranks[0] as EngineDrive).options.maxModelLength,
      ranks,
      startedSeconds,
      idSeed: `${options.model} ${startedSeconds} ${this.#lives} ${options.random()}`,
      dieAfterTokens: () => this.#dieAfterTokens,
      faults: this.#faults,
      counters,
    }
    return createServer(served, surface)
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
