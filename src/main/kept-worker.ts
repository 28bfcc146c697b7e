import { isDeepStrictEqual } from 'node:util'
import type { WorkerConfig } from '../config/schema.ts'
import type { Log } from '../telemetry/log.ts'
import type { ToldFacts } from '../truth/check.ts'
import type { EngineFacts, LoadFeedPlace, RankFacts, RankLoad } from '../workers/engine.ts'
import type { MeasuredLoad, Worker } from '../workers/worker.ts'
import type { WorkerLoadFeed } from './load-feeds.ts'
import { eventReading, eventsPlace, toldFacts, type EventReading } from './worker-config.ts'
import { noEvents, type EventsPlace, type WorkerEvents, type WorkerEventsStatus } from './worker-events.ts'

/** What a kept worker needs of the rooms around it. */
export interface KeptWorkerPorts {
  readonly clock: () => number
  readonly log: Log
  /** The worker is new, or what is known of it has changed. */
  readonly onWorker: (worker: Worker) => void
  /** Tokens in a block of a worker without events that does not say; null: nothing is concluded of it. */
  readonly assumedBlockSize: number | null
  /** What the worker's engine says of itself, as it comes up. */
  readonly onTold: (worker: Worker, told: ToldFacts) => void
  /** Its engine went away or is another process: what it was sent is not in its cache. */
  readonly onWorkerLost: (worker: Worker) => void
  /** The worker's load has just been read. */
  readonly onLoad: (worker: Worker) => void
  readonly startEvents: (worker: Worker, place: EventsPlace, reading: EventReading) => WorkerEvents
  readonly startLoadFeed: (worker: Worker, place: LoadFeedPlace, onLoad: (load: RankLoad) => void) => WorkerLoadFeed
}

/** A worker as its endpoint keeps it, with what tells of it: the events and the load that its engine publishes. */
export class KeptWorker {
  readonly worker: Worker
  readonly #o: KeptWorkerPorts
  #events: WorkerEvents | null = null
  /** Where the events come from. */
  #place: EventsPlace | null = null
  #loadFeed: WorkerLoadFeed | null = null

  constructor(worker: Worker, ports: KeptWorkerPorts) {
    this.worker = worker
    this.#o = ports
  }

  get eventsStatus(): WorkerEventsStatus {
    return this.#events?.status() ?? noEvents
  }

  /** Nobody need ask for the load of a worker that tells it. */
  get tellsLoad(): boolean {
    return this.#loadFeed?.isLive() === true
  }

  /** Whether its engine publishes its events elsewhere than before. */
  hasMoved(given: WorkerConfig, facts: EngineFacts): boolean {
    const now = eventsPlace(given, this.worker.rank, rankOf(facts, this.worker))
    return this.#place !== null && now !== null && !isDeepStrictEqual(this.#place, now)
  }

  /** Its engine answers. */
  up(given: WorkerConfig, facts: EngineFacts): void {
    const { worker } = this
    const rank = rankOf(facts, worker)
    // A restarted engine may have another block size or capacity than before.
    const blockSize = worker.announcedBlockSize ?? given.blockSize ?? rank?.blockSize ?? worker.blockSize
    if (blockSize !== worker.blockSize) {
      worker.blockSize = blockSize
      this.#o.onWorker(worker)
    }
    worker.omitsMisses = facts.omitsMisses ?? false
    worker.models = new Set(facts.models.map(({ id }) => id))
    worker.capacityBlocks = given.capacityBlocks ?? rank?.capacityBlocks ?? worker.capacityBlocks
    const place = eventsPlace(given, worker.rank, rank)
    if (this.#events === null && place !== null) this.#listenToEvents(place, eventReading(given))
    if (worker.blockSize === null && this.#events === null && this.#o.assumedBlockSize !== null) {
      worker.blockSize = this.#o.assumedBlockSize
      this.#o.onWorker(worker)
    }
    if (worker.degraded === 'wrong_model') worker.degraded = 'block_size_unknown'
    if (worker.blockSize !== null && worker.degraded === 'block_size_unknown') worker.degraded = null
    this.#o.onTold(worker, toldFacts(given, facts, rank, this.#events !== null))
    this.#listenToLoad(rank?.loadFeed ?? null)
    worker.standing.up = true
    this.#o.log.info(
      {
        worker: worker.id,
        model: worker.pool,
        engine: worker.engine,
        blockSize: worker.blockSize,
        capacityBlocks: worker.capacityBlocks,
        events: this.#events === null ? 'absent' : 'present',
      },
      'worker up',
    )
  }

  /** Its engine does not answer. */
  down(): void {
    const { worker } = this
    worker.standing.up = false
    worker.load = null
    this.#events?.workerDown()
    this.#o.onWorkerLost(worker)
    this.#o.log.warn({ worker: worker.id }, 'worker down')
  }

  /** Its engine answers, and serves another model. */
  keepOut(): void {
    const { worker } = this
    worker.standing.up = false
    worker.load = null
    worker.degraded = 'wrong_model'
    this.#o.onWorkerLost(worker)
    void this.stop()
  }

  /** What its engine answered of the load of its ranks. */
  loaded(load: ReadonlyMap<number, RankLoad>): void {
    if (this.tellsLoad) return
    const { rank } = this.worker
    const own = rank === null ? ofAllRanks(load) : load.get(rank)
    if (own !== undefined) this.#setLoad(own, 'poll')
  }

  /** Listens no more, until its engine comes up again. */
  async stop(): Promise<void> {
    const events = this.#events
    const loadFeed = this.#loadFeed
    this.#events = null
    this.#loadFeed = null
    await Promise.all([events?.stop(), loadFeed?.stop()])
  }

  /** A restarted engine may publish its load elsewhere, or no longer. */
  #listenToLoad(place: LoadFeedPlace | null): void {
    const { worker } = this
    if (this.#loadFeed !== null && !isDeepStrictEqual(this.#loadFeed.place, place)) {
      void this.#loadFeed.stop()
      this.#loadFeed = null
    }
    if (place === null || this.#loadFeed !== null) return
    this.#listening(() => {
      this.#loadFeed = this.#o.startLoadFeed(worker, place, (load) => {
        if (worker.standing.up) this.#setLoad(load, 'feed')
      })
    })
  }

  #listenToEvents(place: EventsPlace, reading: EventReading): void {
    this.#listening(() => {
      this.#events = this.#o.startEvents(this.worker, place, reading)
      this.#place = place
    })
  }

  /** Engines may tell of places that cannot be reached from here, such as a pipe on their own machine. */
  #listening(start: () => void): void {
    try {
      start()
    } catch (error) {
      this.#o.log.error({ worker: this.worker.id, error: String(error) }, 'cannot listen to what the engine publishes')
    }
  }

  #setLoad(load: RankLoad, source: MeasuredLoad['source']): void {
    this.worker.load = { ...load, source, atMs: this.#o.clock() }
    this.#o.onLoad(this.worker)
  }
}

function rankOf(facts: EngineFacts, worker: Worker): RankFacts | null {
  return facts.ranks.find(({ rank }) => rank === null || rank === (worker.rank ?? 0)) ?? null
}

/** The load of a worker that is all of its engine. */
function ofAllRanks(load: ReadonlyMap<number, RankLoad>): RankLoad | undefined {
  const [first, ...others] = load.values()
  if (first === undefined || others.length === 0) return first
  const all = [first, ...others]
  const sum = (figure: (load: RankLoad) => number): number => all.reduce((total, own) => total + figure(own), 0)
  return {
    running: sum(({ running }) => running),
    waiting: sum(({ waiting }) => waiting),
    kvUsage: all.some(({ kvUsage }) => kvUsage === null) ? null : sum(({ kvUsage }) => kvUsage ?? 0) / all.length,
  }
}
