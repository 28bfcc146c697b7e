import { randomBytes } from 'node:crypto'
import type { SnapshotConfig } from '../config/schema.ts'
import { readLearned } from '../events/learned.ts'
import type { StartingPoint } from '../events/source.ts'
import type { WorkerSlot } from '../kv/batch.ts'
import type { FlatMap } from '../map/flat-map.ts'
import type { SnapshotFacts, SnapshotPart } from '../map/snapshot.ts'
import type { StagedPart } from '../map/staged-part.ts'
import { SnapshotFile } from '../replication/snapshot-file.ts'
import { eagerPace, politePace } from '../replication/snapshot-pace.ts'
import { SnapshotRedis } from '../replication/snapshot-redis.ts'
import type { SnapshotStore } from '../replication/snapshot-store.ts'
import { Snapshots } from '../replication/snapshots.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { EventsWiring, Heard } from './events-wiring.ts'
import type { Replication } from './replication.ts'

export interface WarmStartOptions {
  readonly config: SnapshotConfig
  readonly replication: Replication | null
  readonly events: EventsWiring
  readonly map: FlatMap
  readonly fingerprint: string
  /** Monotonic milliseconds. */
  readonly clock: () => number
  readonly log: Log
  readonly metrics: Metrics
}

/** After the start, before the first snapshot. */
const firstMs = 5_000
/** Beyond the time that making one may take. */
const draftSlackMs = 60_000
/** A fleet that was away for longer has caches of its own by then. */
const keepMs = 24 * 3600 * 1000
/** For a last one as the router stops. */
const lastMs = 10_000

/** Whether a router that has these can start warm. */
export function keepsSnapshots(config: SnapshotConfig, replication: Replication | null): boolean {
  return replication !== null || config.file !== undefined
}

/** Snapshots of the map, joined to the workers' events: what one holds counts once the events go on from there. */
export class WarmStart {
  readonly #o: WarmStartOptions
  readonly #snapshots: Snapshots

  constructor(options: WarmStartOptions) {
    this.#o = options
    const { config, replication, events, map, fingerprint, clock, log, metrics } = options
    this.#snapshots = new Snapshots({
      ...{ map, fingerprint, log, metrics },
      store: storeOf(options),
      wallClock: Date.now,
      newId: () => randomBytes(8),
      wants: (slot) => events.at(slot) !== undefined,
      factsOf: (slot) => this.#factsOf(slot),
      slotOf: (part) => this.#waiting(part)?.slot ?? null,
      logPosition: () => replication?.logPosition ?? null,
      changes: () => events.progress(),
      isOurs: () => replication?.makesSnapshots ?? true,
      limits: { firstMs, intervalMs: config.intervalSeconds * 1000, makeMs: config.makeMs },
      pace: politePace(config.sliceMs, clock),
      readPace: eagerPace(config.sliceMs, clock),
    })
  }

  /**
   * Begins to hear the workers' events, from where the last snapshot left them if there is one. What it holds is not
   * credited before it is proved. Answers where the log goes on; null: nothing was restored.
   */
  async begin(): Promise<string | null> {
    const { events, config } = this.#o
    const from = new Map<Heard, StartingPoint>()
    const restored = await this.#snapshots.restore(config.deadlineMs)
    for (const staged of restored?.parts ?? []) this.#commit(staged, from)
    events.open(from)
    return from.size === 0 ? null : (restored?.header.logPosition ?? null)
  }

  /** Makes snapshots from now on. */
  start(): void {
    this.#snapshots.start()
  }

  /** Before the events end. */
  async stop(): Promise<void> {
    const { replication } = this.#o
    if (replication?.isLast ?? true) {
      const late = new AbortController()
      await Promise.race([this.#snapshots.make(), wait(lastMs, late.signal)])
      late.abort()
    }
    await this.#snapshots.stop()
  }

  /** Stores beside the engine are learned anew: what leaves them by age is not in a snapshot. */
  #waiting({ worker, part }: Pick<SnapshotPart, 'worker' | 'part'>): { heard: Heard; slot: WorkerSlot } | null {
    if (part !== 'engine') return null
    const heard = this.#o.events.waiting().find((other) => other.worker.id === worker)
    return heard === undefined ? null : { heard, slot: heard.worker.slot as WorkerSlot }
  }

  #commit(staged: StagedPart, from: Map<Heard, StartingPoint>): void {
    const { position, partial, state, engine } = staged.part
    const heard = this.#waiting(staged.part)?.heard
    const learned = readLearned(state)
    if (heard === undefined || heard.worker.engine !== engine || position === null || learned === null) {
      staged.discard()
      return
    }
    const { ingest } = heard
    if (!staged.commit({ epoch: ingest.epoch, lastSequence: position.sequence, isConcealed: true })) return
    ingest.resume(position, learned)
    from.set(heard, { position, partial })
  }

  /** Null where a worker's blocks are not as its events left them: they are still proved, or not known to be right. */
  #factsOf(slot: WorkerSlot): SnapshotFacts | null {
    const heard = this.#o.events.at(slot)
    if (heard === undefined) return null
    const { worker, ingest, source } = heard
    const { state, partial } = source.status()
    if (state !== 'live' || ingest.position === null) return null
    const { position, learned } = ingest
    return { worker: worker.id, part: 'engine', engine: worker.engine, position, partial, state: learned }
  }
}

function storeOf({ config, replication, fingerprint }: WarmStartOptions): SnapshotStore {
  const { maxBytes, makeMs, file } = config
  if (replication === null) return new SnapshotFile({ path: file ?? '', maxBytes })
  const { link } = replication
  return new SnapshotRedis({
    commands: link.commands,
    key: (name) => link.key(`${fingerprint}:${name}`),
    newName: () => randomBytes(8).toString('hex'),
    ...{ maxBytes, keepMs, draftMs: makeMs + draftSlackMs },
  })
}

function wait(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms)
    signal.addEventListener('abort', () => {
      clearTimeout(timer)
      resolve()
    })
  })
}
