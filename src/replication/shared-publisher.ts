import { mostPerShare } from '../workers/fleet-load.ts'
import type { InFlightCounters } from '../workers/fleet.ts'
import { encodeShared, mostLoadWorkers, type SharedRecord, type WorkerFigures } from './shared-record.ts'
import type { SharedWorkers } from './shared-workers.ts'

export interface SharedPublisherOptions {
  /** 16 hexadecimal digits. */
  readonly replica: string
  readonly workers: SharedWorkers
  readonly counters: Pick<InFlightCounters, 'requests' | 'sequences' | 'prefillTokens' | 'decodeBlocks'>
  /** Takes the bytes at once, or loses them: there is no answer. */
  readonly append: (message: Buffer) => void
  /** Calls back after so many ms; after none, once what is being done now is done. */
  readonly later: (ms: number, run: () => void) => void
  /** Monotonic milliseconds. */
  readonly clock: () => number
  /** Least time between two messages. Read anew each time. */
  readonly gatherMs: () => number
}

/** Every so often all figures are told anew, so that others can miss some, and know that we are there. */
const fullEveryMs = 500
/** Records that wait for a message to carry them; with more it goes at once. */
const mostRecords = 1024
const figures = ['requests', 'sequences', 'prefillTokens', 'decodeBlocks'] as const

/**
 * Tells other replicas what this one does. The first change after a pause goes out at once, those behind it together, with
 * the figures before the prompts that brought them about. While Redis is away nothing is told and nothing is kept.
 */
export class SharedPublisher {
  readonly #o: SharedPublisherOptions
  readonly #changed = new Set<string>()
  #records: SharedRecord[] = []
  #isUp = false
  #isAwaited = false
  #counter = 0
  #lastMs = -Infinity
  #lastFullMs = -Infinity

  constructor(options: SharedPublisherOptions) {
    this.#o = options
  }

  /** What is in flight on a worker has changed. */
  changed(slot: number): void {
    if (!this.#isUp) return
    const worker = this.#o.workers.at(slot)
    if (worker === undefined) return
    this.#changed.add(worker.id)
    this.#await()
  }

  /** False where nobody can be told now. */
  tell(record: SharedRecord): boolean {
    if (!this.#isUp) return false
    this.#records.push(record)
    if (this.#records.length >= mostRecords) this.#send()
    else this.#await()
    return true
  }

  /** To be called several times a second. */
  beat(): void {
    if (this.#isUp && this.#o.clock() - this.#lastFullMs >= fullEveryMs) this.#sendFull()
  }

  /** Redis can be reached: whoever is there hears all of it at once. */
  up(): void {
    if (this.#isUp) return
    this.#isUp = true
    this.#records = [{ kind: 'anew' }]
    this.#sendFull()
  }

  away(): void {
    this.#isUp = false
    this.#changed.clear()
    this.#records = []
  }

  /** Says goodbye: what is in flight by then ends with the process. */
  stop(): void {
    if (this.#isUp) this.#append([{ kind: 'bye' }])
    this.away()
  }

  #await(): void {
    if (this.#isAwaited) return
    this.#isAwaited = true
    const waitMs = this.#lastMs + this.#o.gatherMs() - this.#o.clock()
    this.#o.later(Math.max(0, waitMs), () => {
      this.#isAwaited = false
      this.#send()
    })
  }

  #send(): void {
    if (this.#changed.size > mostLoadWorkers) this.#sendFull()
    if (this.#changed.size === 0 && this.#records.length === 0) return
    const workers = [...this.#changed].map((id) => this.#figures(id))
    const load: SharedRecord[] = workers.length === 0 ? [] : [{ kind: 'load', full: false, workers }]
    this.#append([...load, ...this.#records])
  }

  #sendFull(): void {
    const workers: WorkerFigures[] = []
    for (const id of this.#o.workers.ids()) {
      const figures = this.#figures(id)
      if (figures.requests > 0 && workers.length < mostLoadWorkers) workers.push(figures)
    }
    this.#lastFullMs = this.#o.clock()
    this.#append([{ kind: 'load', full: true, workers }, ...this.#records])
  }

  #append(records: readonly SharedRecord[]): void {
    this.#changed.clear()
    this.#records = []
    this.#lastMs = this.#o.clock()
    this.#o.append(encodeShared({ replica: this.#o.replica, counter: ++this.#counter, records }))
  }

  #figures(id: string): WorkerFigures {
    const { counters, workers } = this.#o
    const sum = { worker: id, requests: 0, sequences: 0, prefillTokens: 0, decodeBlocks: 0 }
    for (const { slot } of workers.of(id)) {
      sum.requests += counters.requests(slot)
      sum.sequences += counters.sequences(slot)
      sum.prefillTokens += counters.prefillTokens(slot)
      sum.decodeBlocks += counters.decodeBlocks(slot)
    }
    for (const figure of figures) sum[figure] = Math.min(mostPerShare, sum[figure])
    return sum
  }
}
