import { isIP } from 'node:net'
import { RouterError } from '../errors.ts'
import type { EventCounters } from '../events/counters.ts'
import { Ingest, type IngestSink } from '../events/ingest.ts'
import { Losses, type LossLimits } from '../events/losses.ts'
import { ReplayGate } from '../events/replay.ts'
import type { EventSource, StartingPoint } from '../events/source.ts'
import { createRedisSource } from '../events/sources/redis.ts'
import { createZmqSource } from '../events/sources/zmq.ts'
import type { StreamReader } from '../events/stream/reader.ts'
import { PublisherListener } from '../events/subscription.ts'
import type { WorkerSlot } from '../kv/batch.ts'
import type { KeyMaker } from '../kv/keys.ts'
import type { FlatMap } from '../map/flat-map.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { EngineExchange } from '../workers/engine-http.ts'
import { engines } from '../workers/engines.ts'
import type { TruthCheck } from '../truth/check.ts'
import type { Worker } from '../workers/worker.ts'
import { systemClock } from '../zmtp/clock.ts'
import type { EventPlane } from './event-plane.ts'
import type { FollowedEvents } from './followed-events.ts'
import { PolledEvents, type PolledEventsOptions } from './polled-events.ts'
import type { ChunkStores } from './chunk-stores.ts'
import type { EventReading } from './worker-config.ts'
import type { EventsPlace, WorkerEvents } from './worker-events.ts'

export interface EventsWiringOptions {
  readonly map: FlatMap
  readonly keys: KeyMaker
  readonly metrics: Metrics
  readonly log: Log
  readonly random: () => number
  readonly truth: TruthCheck
  readonly http: EngineExchange
  /** Of events that are polled by HTTP; asked before each poll. */
  readonly polling: PolledEventsOptions['timing']
  /** From when on a stream that loses batches is left alone. */
  readonly losses: () => LossLimits
  readonly stores: ChunkStores
  /** Of events that bridges write to Redis; null where there is none. */
  readonly streams: StreamReader | null
  /** Through which replicas share what they hear; null where this router is the only one. */
  readonly plane: EventPlane | null
}

/** A worker's events, where they come from and where they go. */
export interface Heard {
  readonly worker: Worker
  readonly ingest: Ingest
  readonly source: EventSource
  /** What was restored counts only once the events prove it. */
  isConcealed: boolean
  /** Whether its stream was lossy when it was last looked at. */
  isLossy: boolean
}

type ZmqPlace = Extract<EventsPlace, { kind: 'zmq' }>
type StreamPlace = Extract<EventsPlace, { kind: 'stream' }>

/** How often a worker is asked whether its events are live: what decisions call `exact`. */
const refreshMs = 100
/** About a millisecond of sweeping at a time. */
const sweepSteps = 8

/** Starts a worker's event source and joins it to the map and the metrics. */
export class EventsWiring {
  readonly #o: EventsWiringOptions
  readonly #gate = new ReplayGate()
  /** Bound endpoints, shared by the engines that dial in there. */
  readonly #listeners = new Map<string, PublisherListener>()
  readonly #polled: PolledEvents
  readonly #heard = new Map<Worker, Heard>()
  readonly #bySlot = new Map<WorkerSlot, Heard>()
  /** Sources that wait for what a snapshot knows of their workers; null: none need wait any more. */
  #waiting: Set<Heard> | null
  readonly #refresh: NodeJS.Timeout

  /** @param waits Whether sources wait until `open`. */
  constructor(options: EventsWiringOptions, { waits }: { readonly waits: boolean }) {
    this.#o = options
    this.#waiting = waits ? new Set() : null
    this.#polled = new PolledEvents({
      ...options,
      timing: options.polling,
      mayPoll: (url) => options.plane?.mayPoll(url) ?? true,
    })
    this.#refresh = setInterval(() => {
      // Storing sweeps dead rows as it goes; after a clear on a quiet fleet nobody would.
      this.#o.map.sweep(sweepSteps)
      this.#o.stores.tend()
      this.look()
      this.#o.truth.tick()
    }, refreshMs)
    this.#refresh.unref()
  }

  addWorker(worker: Worker): void {
    this.#o.map.addWorker(worker.slot as WorkerSlot, {
      countsStores: countsStores(worker),
      blockSize: worker.blockSize,
    })
  }

  removeWorker(worker: Worker): void {
    this.#o.stores.removeWorker(worker)
    this.#o.map.removeWorker(worker.slot as WorkerSlot)
  }

  start(worker: Worker, place: EventsPlace, reading: EventReading): WorkerEvents {
    const slot = worker.slot as WorkerSlot
    this.#o.map.addWorker(slot, { countsStores: countsStores(worker), blockSize: worker.blockSize })
    const counters = this.#counters(worker)
    let followed: FollowedEvents | null = null
    const ingest = this.#ingest(worker, reading, counters, {
      batch: (batch) => followed?.heard(batch),
      cleared: (reason) => followed?.forgotten(reason),
    })
    const listen = (): EventSource => this.#source(worker, place, ingest, counters)
    followed = this.#followed(worker, place, ingest, listen)
    const source = followed ?? listen()
    const heard = { worker, ingest, source, isConcealed: false, isLossy: false }
    this.#heard.set(worker, heard)
    this.#bySlot.set(slot, heard)
    if (this.#waiting === null) source.start()
    else this.#waiting.add(heard)
    return {
      status: () => ({ ...source.status(), ...(ingest.isLossy ? { lossy: true } : {}) }),
      workerDown: () => source.workerDown(),
      stop: async () => {
        this.#heard.delete(worker)
        this.#waiting?.delete(heard)
        if (this.#bySlot.get(slot) === heard) this.#bySlot.delete(slot)
        await source.stop()
      },
    }
  }

  /** Those whose events wait to be heard. */
  waiting(): readonly Heard[] {
    return [...(this.#waiting ?? [])]
  }

  /** Hears from now on, those first that were restored from where they stood. */
  open(restored: ReadonlyMap<Heard, StartingPoint>): void {
    const waiting = this.waiting()
    this.#waiting = null
    for (const heard of waiting) {
      const from = restored.get(heard)
      heard.isConcealed = from !== undefined
      if (from === undefined) heard.source.start()
      else heard.source.start(from)
    }
  }

  /** The worker in this place, with its events, if it has any. */
  at(slot: WorkerSlot): Heard | undefined {
    return this.#bySlot.get(slot)
  }

  /** Takes in which workers' events are live. */
  look(): void {
    for (const heard of this.#heard.values()) this.#look(heard)
  }

  /** Another number once something was applied. */
  progress(): number {
    let sum = 0
    for (const { ingest } of this.#heard.values()) sum += 1e6 * ingest.epoch + (ingest.position?.sequence ?? -1)
    return sum
  }

  #look(heard: Heard): void {
    const { worker, ingest, source, isConcealed } = heard
    if (ingest.isLossy !== heard.isLossy) this.#tellLossy(heard)
    worker.exact = source.status().state === 'live' && !heard.isLossy
    if (!worker.exact || !isConcealed) return
    heard.isConcealed = false
    this.#o.map.reveal(worker.slot as WorkerSlot)
  }

  #tellLossy(heard: Heard): void {
    heard.isLossy = !heard.isLossy
    const { log } = this.#o
    const { worker, isLossy } = heard
    if (isLossy)
      log.error(
        { worker: worker.id, gaps: heard.source.status().gaps },
        'KV events keep being lost and cannot be had again; the worker is routed by what it is sent. Give it a replay endpoint, or a larger high-water mark',
      )
    else log.warn({ worker: worker.id }, 'no KV events were lost for a while; they count again')
  }

  /** Whether the worker may hold blocks that were announced before what is known here. */
  isPartial(worker: Worker): boolean {
    return this.#heard.get(worker)?.source.status().partial ?? false
  }

  /** Whether the map has from a worker's events what it holds, or had and may find it confirmed. */
  isAnnounced(slot: WorkerSlot): boolean {
    const heard = this.#bySlot.get(slot)
    const status = heard?.source.status()
    if (status === undefined || status.state === 'absent' || heard?.ingest.isLossy === true) return false
    return status.state !== 'unknown' || status.lastSequence !== null
  }

  async close(): Promise<void> {
    clearInterval(this.#refresh)
    await Promise.all([...this.#listeners.values()].map((listener) => listener.close()))
  }

  /** Null where this router alone hears the worker, or where every replica can read what is written for all. */
  #followed(worker: Worker, place: EventsPlace, ingest: Ingest, listen: () => EventSource): FollowedEvents | null {
    const { plane } = this.#o
    if (plane === null || place.kind === 'stream') return null
    return plane.source({
      ...{ worker: worker.id, ingest, listen },
      // Whoever polls an engine takes the events of all its ranks.
      lease: place.kind === 'poll' ? place.url : worker.id,
      isHeardByMany: place.kind === 'zmq' && place.bind === null,
      // A poll that is broken off may take events with it.
      mayYield: place.kind === 'zmq',
      onRestart: () => delete worker.announcedBlockSize,
    })
  }

  #source(worker: Worker, place: EventsPlace, ingest: Ingest, counters: EventCounters): EventSource {
    switch (place.kind) {
      case 'zmq':
        return this.#zmq(worker, place, ingest, counters)
      case 'poll':
        return this.#polled.source(place.url, worker, ingest, counters)
      case 'stream':
        return this.#stream(worker, place, ingest, counters)
      default:
        return place satisfies never
    }
  }

  #stream(worker: Worker, { name, retainMs }: StreamPlace, ingest: Ingest, counters: EventCounters): EventSource {
    const { log, streams } = this.#o
    if (streams === null)
      throw new RouterError('CONFIG_INVALID', `There is no Redis to read "${name}" from; give redis.url.`)
    return createRedisSource(
      {
        ...{ reader: streams, stream: name, retainMs, counters, log, name: worker.id },
        onRestart: () => delete worker.announcedBlockSize,
      },
      ingest,
    )
  }

  #zmq(worker: Worker, place: ZmqPlace, ingest: Ingest, counters: EventCounters): EventSource {
    const { log, random } = this.#o
    const options = {
      name: worker.id,
      endpoint: place.endpoint,
      ...(place.bind === null ? {} : { listener: { at: this.#listener(place.bind), address: addressOf(worker) } }),
      replayEndpoint: place.replay,
      topic: place.topic,
      clock: systemClock,
      random,
      log,
      counters,
      replayGate: this.#gate,
      onRestart: () => delete worker.announcedBlockSize,
    }
    return createZmqSource(options, ingest)
  }

  #counters(worker: Worker): EventCounters {
    const { metrics, truth } = this.#o
    return {
      event: (kind, count) => metrics.kvEvents.add(count, worker.id, kind),
      blocks: (tier, kind, count) => metrics.kvEventBlocks.add(count, worker.id, tier, kind),
      skipped: (reason, count) => {
        metrics.kvEventsSkipped.add(count, reason)
        truth.skipped(worker, reason, count)
      },
      gap: () => metrics.kvEventGaps.add(1, worker.id),
      restart: () => metrics.kvEventRestarts.add(1, worker.id),
      disconnect: () => metrics.kvEventReconnects.add(1, worker.id),
    }
  }

  /** What brings a worker's events into the map, wherever they come from. */
  #ingest(worker: Worker, { media, forget }: EventReading, counters: EventCounters, sink: IngestSink): Ingest {
    const { map, keys, log, truth, losses } = this.#o
    return new Ingest({
      worker: worker.slot as WorkerSlot,
      map,
      keys,
      model: worker.pool,
      blockSize: worker.blockSize,
      countsStores: countsStores(worker),
      media,
      losses: new Losses(losses, () => systemClock.now()),
      stores: (part) => this.#o.stores.of(worker, part, forget),
      counters,
      sink,
      witness: {
        applied: (stored, removed) => truth.applied(worker, stored, removed),
        cleared: () => truth.cleared(worker),
        root: (block) => truth.root(worker, block),
      },
      onBlockSize: (blockSize) => {
        worker.announcedBlockSize = blockSize
        truth.announced(worker, blockSize)
        if (worker.blockSize === blockSize) return
        log.warn(
          { worker: worker.id, configured: worker.blockSize, announced: blockSize },
          'the block size is the one of the engine’s events',
        )
        worker.blockSize = blockSize
        if (worker.degraded === 'block_size_unknown') worker.degraded = null
      },
    })
  }

  #listener(endpoint: string): PublisherListener {
    let listener = this.#listeners.get(endpoint)
    if (listener === undefined) {
      const { metrics, log, random } = this.#o
      listener = new PublisherListener({
        clock: systemClock,
        random,
        refused: (reason) => metrics.kvEventsSkipped.add(1, reason),
      })
      this.#listeners.set(endpoint, listener)
      listener
        .bind(endpoint)
        .catch((error: unknown) =>
          log.error({ endpoint, error: String(error) }, 'cannot listen for engines that dial in'),
        )
    }
    return listener
  }
}

function countsStores(worker: Worker): boolean {
  return engines[worker.engine]?.countsStores ?? false
}

/** The worker's IP address, by which a publisher without a topic of its own is recognized. */
function addressOf(worker: Worker): string | null {
  const host = new URL(worker.origin).hostname.replace(/^\[|\]$/g, '')
  return isIP(host) === 0 ? null : host
}
