import {
  exportSnapshot,
  type Exported,
  type ExportOptions,
  type SnapshotPace,
  type SnapshotSink,
} from '../map/snapshot-export.ts'
import { restoreSnapshot, type Restored, type RestoreOptions } from '../map/snapshot-restore.ts'
import { SnapshotError } from '../map/snapshot.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import { RedisFault } from './redis-fault.ts'
import type { KeptSnapshot, SnapshotStore } from './snapshot-store.ts'

export interface SnapshotsOptions
  extends
    Pick<ExportOptions, 'map' | 'fingerprint' | 'wants' | 'factsOf' | 'logPosition' | 'wallClock'>,
    Pick<RestoreOptions, 'slotOf'> {
  readonly store: SnapshotStore
  /** Eight random bytes each time. */
  readonly newId: () => Uint8Array
  /** A number that is another one once the map has changed. */
  readonly changes: () => number
  /** Whether it is on us to make them: of several replicas one does. */
  readonly isOurs: () => boolean
  readonly limits: SnapshotsLimits
  /** Of making them, beside requests. */
  readonly pace: SnapshotPace
  /** Of reading one at the start, when few requests are served yet. */
  readonly readPace: SnapshotPace
  readonly log: Log
  readonly metrics: Pick<Metrics, 'snapshotSeconds' | 'snapshotFailures' | 'read'>
}

export interface SnapshotsLimits {
  /** After `start`, before the first. */
  readonly firstMs: number
  /** From the end of one to the beginning of the next. */
  readonly intervalMs: number
  /** One that takes longer is given up. */
  readonly makeMs: number
}

/** Waits beside the clock of the work, and lets the process end. */
const checkEveryMs = 1000

/**
 * Makes a snapshot of the map now and then, one at a time and only when something has changed, and reads the last one at
 * the start. Nothing waits for it, and no failure of it is anybody else's: it is counted, told once, and tried again.
 */
export class Snapshots {
  readonly #o: SnapshotsOptions
  #timer: NodeJS.Timeout | undefined
  #making: Promise<Exported | null> | null = null
  #isStopped = false
  #nextMs = Infinity
  /** State of the map that the last snapshot has. */
  #madeOf: number | null = null
  #last: { readonly bytes: number; readonly tookMs: number } | null = null
  /** By the wall clock, since it may have been made by another process. */
  #lastCreatedMs: number | null = null
  /** Reason of the last failure, told once until something succeeds. */
  #failure: string | null = null

  constructor(options: SnapshotsOptions) {
    this.#o = options
    const { metrics } = options
    metrics.read('snapshot_bytes', () => (this.#last === null ? [] : [[[], this.#last.bytes]]))
    metrics.read('snapshot_age_seconds', () => {
      const { ageMs } = this
      return ageMs === null ? [] : [[[], ageMs / 1000]]
    })
  }

  /** Since the snapshot was made that was made or read last; null: none was. */
  get ageMs(): number | null {
    return this.#lastCreatedMs === null ? null : Math.max(0, this.#o.wallClock() - this.#lastCreatedMs)
  }

  get isMaking(): boolean {
    return this.#making !== null
  }

  /** Begins to make snapshots; to be called once the map is warm, or will not be. */
  start(): void {
    const { limits, pace } = this.#o
    this.#nextMs = pace.clock() + limits.firstMs
    const every = Math.min(checkEveryMs, limits.firstMs || checkEveryMs, limits.intervalMs)
    this.#timer = setInterval(() => this.#tick(), every)
    this.#timer.unref()
  }

  /** Ends; one that is being made is given up. */
  async stop(): Promise<void> {
    this.#isStopped = true
    clearInterval(this.#timer)
    await this.#making
  }

  /** Makes one now; null where it failed, or where another is being made. For a last one before the end, too. */
  async make(): Promise<Exported | null> {
    if (this.#making !== null || this.#isStopped) return null
    this.#making = this.#make()
    try {
      return await this.#making
    } finally {
      this.#making = null
      this.#nextMs = this.#o.pace.clock() + this.#o.limits.intervalMs
    }
  }

  /**
   * Reads the last snapshot into the map; its parts are the caller's to commit. Null where there is none that can be used,
   * or it was not read until the deadline: then nothing of it is left in the map.
   */
  async restore(deadlineMs: number): Promise<Restored | null> {
    const { store, readPace: pace, log, metrics, map, fingerprint, slotOf } = this.#o
    const startMs = pace.clock()
    let kept: KeptSnapshot | null = null
    try {
      kept = await store.read()
      if (kept === null) return null
      const check = (): void => this.#check(startMs, deadlineMs)
      const restored = await restoreSnapshot({ map, frames: kept, fingerprint, slotOf, pace, check })
      const tookMs = pace.clock() - startMs
      metrics.snapshotSeconds.cell('read').value += tookMs / 1000
      this.#lastCreatedMs = restored.header.createdMs
      const { parts, refused } = restored
      const { entries, records } = restored.header
      log.info({ parts: parts.length, entries, records, refused, tookMs: Math.round(tookMs) }, 'snapshot read')
      return restored
    } catch (error) {
      this.#failed(error, 'snapshot not read')
      return null
    } finally {
      await kept?.close()
    }
  }

  #tick(): void {
    const { pace, isOurs, changes } = this.#o
    if (pace.clock() < this.#nextMs || this.#making !== null || !isOurs() || changes() === this.#madeOf) return
    void this.make()
  }

  async #make(): Promise<Exported | null> {
    const { store, pace, log, metrics, limits } = this.#o
    const startMs = pace.clock()
    const madeOf = this.#o.changes()
    try {
      const draft = await store.write()
      try {
        const check = (): void => this.#check(startMs, limits.makeMs)
        const exported = await exportSnapshot(this.#exportOptions(draft, check))
        const tookMs = pace.clock() - startMs
        metrics.snapshotSeconds.cell('made').value += tookMs / 1000
        this.#last = { bytes: exported.bytes, tookMs }
        this.#lastCreatedMs = exported.header.createdMs
        this.#madeOf = madeOf
        this.#failure = null
        const { entries, records, parts } = exported.header
        const { bytes } = exported
        log.debug({ parts: parts.length, entries, records, bytes, tookMs: Math.round(tookMs) }, 'snapshot made')
        return exported
      } finally {
        await draft.abort()
      }
    } catch (error) {
      this.#failed(error, 'snapshot not made')
      return null
    }
  }

  #exportOptions(sink: SnapshotSink, check: () => void): ExportOptions {
    const { map, fingerprint, wants, factsOf, logPosition, wallClock, pace } = this.#o
    return { map, fingerprint, wants, factsOf, logPosition, wallClock, pace, sink, check, id: this.#o.newId() }
  }

  #check(startMs: number, limitMs: number): void {
    if (this.#isStopped) throw new SnapshotError('stopped', 'The router stops')
    if (this.#o.pace.clock() - startMs > limitMs)
      throw new SnapshotError('deadline', `The snapshot took longer than ${limitMs} ms`)
  }

  #failed(error: unknown, message: string): void {
    const reason = error instanceof SnapshotError ? error.reason : error instanceof RedisFault ? 'redis' : 'storage'
    this.#o.metrics.snapshotFailures.cell(reason).value++
    if (reason === 'stopped' || this.#failure === reason) return
    this.#failure = reason
    this.#o.log.warn({ reason, error: error instanceof Error ? error.message : String(error) }, message)
  }
}
