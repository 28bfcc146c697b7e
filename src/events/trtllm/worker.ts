import type { Log } from '../../telemetry/log.ts'
import type { Clock } from '../../zmtp/clock.ts'
import type { EventCounters } from '../counters.ts'
import type { Ingest } from '../ingest.ts'
import type { EventSourceState, StartingPoint } from '../source.ts'
import type { TrtllmEvent } from './decode.ts'
import { TrtllmRank } from './rank.ts'

export interface TrtllmWorkerOptions {
  readonly ingest: Ingest
  readonly counters: EventCounters
  /** Tokens a block, where it is known before the first event. */
  readonly blockSize: number | null
  /** Null: the worker is all of the engine, which then must not have several ranks. */
  readonly rank: number | null
  readonly name: string
  readonly onRestart: () => void
  /** Blocks that the GPU's pool holds. */
  readonly onCapacity: (blocks: number) => void
}

/** Between two complaints about lost events. */
const complaintMs = 60_000
/** Left-out blocks that are remembered, 16 bytes each at most. */
const maxLeftOut = 1_000_000

/** What one rank's worker makes of its part of the answers. */
export class TrtllmWorker {
  readonly #o: TrtllmWorkerOptions
  readonly #rank: TrtllmRank
  #state: 'absent' | 'unknown' | 'live' = 'absent'
  #unusable = false
  #stopped = false
  #gaps = 0
  #restarts = 0
  #complainedAtMs = -Infinity

  constructor(options: TrtllmWorkerOptions, { clock, log }: { readonly clock: Clock; readonly log: Log }) {
    this.#o = options
    const { counters, name, ingest } = options
    this.#rank = new TrtllmRank(
      { blockSize: options.blockSize, maxLeftOut },
      {
        apply: (id, events) => {
          // Events carry no time; one of the poll's own tells the batches of two processes apart.
          if (!this.#stopped) ingest.applyEvents(id, clock.now(), events)
        },
        clear: (reason) => {
          if (this.#stopped) return
          ingest.clear(reason)
          log.debug({ worker: name, reason, epoch: ingest.epoch }, 'KV events: cleared')
        },
        gap: () => {
          this.#gaps++
          counters.gap()
          if (clock.now() - this.#complainedAtMs < complaintMs) return
          this.#complainedAtMs = clock.now()
          log.warn(
            { worker: name, gaps: this.#gaps },
            'KV events: some were lost: somebody else polls /kv_cache_events too, or event_buffer_max_size is too small',
          )
        },
        restart: () => {
          this.#restarts++
          counters.restart()
          log.warn({ worker: name }, 'KV events: the engine was restarted')
          options.onRestart()
        },
        skipped: (reason, count) => counters.skipped(reason, count),
        capacity: ([blocks]) => {
          if (blocks !== undefined && blocks > 0) options.onCapacity(blocks)
        },
      },
    )
  }

  start(from?: StartingPoint): void {
    this.#state = 'unknown'
    if (from === undefined) this.#o.ingest.clear('start')
    else this.#rank.resume(from.position?.sequence ?? null, from.partial)
  }

  stop(): void {
    this.#stopped = true
    this.#state = 'absent'
  }

  status(): EventSourceState {
    return {
      // An engine that was never heard may have its events turned off: it answers that there are none.
      state: this.#state === 'live' && this.#rank.last === null ? 'unknown' : this.#state,
      lastSequence: this.#rank.last,
      gaps: this.#gaps,
      restarts: this.#restarts,
      partial: this.#rank.partial,
      epoch: this.#o.ingest.epoch,
    }
  }

  /** The worker's part of an answer; none at all proves that the process still answers. */
  async take(events: readonly TrtllmEvent[], turn: () => Promise<void>): Promise<void> {
    if (this.#unusable) return
    await this.#rank.take(events, turn)
    if (!this.#stopped) this.#state = 'live'
  }

  /** Contact was lost. Ids will tell whether what is known still holds: an engine keeps its events until they are polled. */
  doubt(): void {
    if (this.#state === 'live') this.#state = 'unknown'
  }

  lose(): void {
    if (this.#rank.last === null) return
    this.#gaps++
    this.#o.counters.gap()
    this.#rank.lose('gap')
  }

  gone(): void {
    if (this.#rank.last !== null) this.#rank.forget()
  }

  /** The engine has no events to offer. */
  absent(): void {
    this.lose()
    this.#state = 'absent'
  }

  /** Whether its events are of no use: of several caches, one of which a request will meet, or too late. */
  get isUnusable(): boolean {
    return this.#unusable
  }

  giveUp(): void {
    this.gone()
    this.#state = 'absent'
    this.#unusable = true
  }

  reopen(): void {
    this.#unusable = false
    this.#state = 'unknown'
  }

  skipped(reason: string, count: number): void {
    this.#o.counters.skipped(reason, count)
  }

  disconnect(): void {
    this.#o.counters.disconnect()
  }
}
