import type { EventCounters } from '../events/counters.ts'
import type { Ingest } from '../events/ingest.ts'
import type { EventSource } from '../events/source.ts'
import { TrtllmEvents, type PollTiming } from '../events/sources/trtllm.ts'
import type { Log } from '../telemetry/log.ts'
import type { EngineExchange } from '../workers/engine-http.ts'
import type { Worker } from '../workers/worker.ts'
import { systemClock } from '../zmtp/clock.ts'

export interface PolledEventsOptions {
  readonly http: EngineExchange
  /** Read anew for each poll. */
  readonly timing: () => PollTiming
  readonly random: () => number
  readonly log: Log
  /** Whether this process is the one that polls an engine; omitted: it always is. */
  readonly mayPoll?: (url: string) => boolean
}

/**
 * KV events that engines give out by HTTP, each once. So a URL is polled by one object of the process, whichever workers
 * want its events; which of several processes polls it, `mayPoll` says.
 */
export class PolledEvents {
  readonly #o: PolledEventsOptions
  readonly #engines = new Map<string, TrtllmEvents>()

  constructor(options: PolledEventsOptions) {
    this.#o = options
  }

  /** The source of a worker's part of the events at a URL. */
  source(url: string, worker: Worker, ingest: Ingest, counters: EventCounters): EventSource {
    let engine = this.#engines.get(url)
    if (engine === undefined) {
      engine = this.#engine(url, worker)
      this.#engines.set(url, engine)
    }
    // Capacity that the engine's own figures tell comes before that of its events.
    let learnedBlocks: number | null = null
    return engine.worker({
      ingest,
      counters,
      blockSize: worker.blockSize,
      rank: worker.rank,
      name: worker.id,
      onRestart: () => undefined,
      onCapacity: (blocks) => {
        if (worker.capacityBlocks !== null && worker.capacityBlocks !== learnedBlocks) return
        worker.capacityBlocks = blocks
        learnedBlocks = blocks
      },
    })
  }

  #engine(url: string, worker: Worker): TrtllmEvents {
    const { http, timing, random, log, mayPoll } = this.#o
    const engine: TrtllmEvents = new TrtllmEvents({
      poll: (method, limits) => http.exchange(url, { ...limits, method, headers: headersFor(url, worker) }),
      mayPoll: () => mayPoll?.(url) ?? true,
      timing,
      clock: systemClock,
      random,
      turn: () => new Promise((resolve) => setImmediate(resolve)),
      log,
      name: worker.id.replace(/#\d+$/, ''),
      onEnd: () => {
        if (this.#engines.get(url) === engine) this.#engines.delete(url)
      },
    })
    return engine
  }
}

/** The engine's credentials are for the engine: somebody else who offers its events gets none. */
function headersFor(url: string, worker: Worker): Readonly<Record<string, string>> {
  return new URL(url).origin === new URL(worker.origin).origin ? worker.headers : {}
}
