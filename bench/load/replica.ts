import { checkConfig } from '../../src/config/load.ts'
import type { NamedBatch, WorkerSlot } from '../../src/kv/batch.ts'
import { createKeyMaker } from '../../src/kv/keys.ts'
import { Ingest } from '../../src/events/ingest.ts'
import type { EventSource } from '../../src/events/source.ts'
import type { FollowedEvents } from '../../src/main/followed-events.ts'
import { Replication } from '../../src/main/replication.ts'
import { FlatMap } from '../../src/map/flat-map.ts'
import { createLog } from '../../src/telemetry/log.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import { Fleet } from '../../src/workers/fleet.ts'
import { fail } from 'node:assert/strict'

/** What one replica knows of one engine. */
export interface ReplicaWorker {
  readonly ingest: Ingest
  readonly events: FollowedEvents
}

export interface Replica {
  readonly replication: Replication
  readonly map: FlatMap
  readonly workers: readonly ReplicaWorker[]
}

export interface ReplicaOptions {
  /** Of Redis. */
  readonly url: string
  /** Events of an engine, where this replica is the one that hears it. */
  readonly listen: () => EventSource
  /** The batch is in the map. */
  readonly applied: (timestamp: number) => void
}

export const workerCount = 8
export const blockSize = 16

/** Milliseconds of a clock that all processes of the machine share. */
export function machineMs(): number {
  return Number(process.hrtime.bigint()) / 1e6
}

/** A router without its doors and engines: what it shares with its replicas, as `serve` wires it, and its map. */
export async function openReplica({ url, listen, applied }: ReplicaOptions): Promise<Replica> {
  const { redis, limits } = checkConfig({ redis: { url }, workerUrls: ['http://engine-0:8000'] })
  if (redis === undefined) fail('the config has a Redis')
  const map = new FlatMap({ budgetBytes: 512 * 1024 * 1024, maxWorkers: limits.workers })
  const keys = await createKeyMaker(Buffer.from('bench'))
  const replication = new Replication({
    ...{ redis, fingerprint: 'bench', secret: Buffer.from('bench'), responsesKept: limits.responsesKept },
    ...{ slots: limits.workers, counters: new Fleet(limits.workers).counters },
    ...{ clock: () => performance.now(), random: Math.random, log: createLog('warn', 2), metrics: createMetrics() },
    isAnnounced: () => true,
    foreignPrompts: () => fail('no prompts are sent'),
    policyOf: () => null,
  })
  const workers = Array.from({ length: workerCount }, (_, slot): ReplicaWorker => {
    const worker = slot as WorkerSlot
    map.addWorker(worker, { countsStores: true, blockSize })
    const ingest: Ingest = new Ingest({
      ...{ worker, map, keys, model: 'model', blockSize, countsStores: true, counters },
      witness: {
        applied: () => applied(ingest.position?.timestamp ?? NaN),
        cleared: () => undefined,
        root: () => undefined,
      },
      sink: { batch: (batch: NamedBatch) => events.heard(batch), cleared: (reason) => events.forgotten(reason) },
      onBlockSize: () => fail('it is known'),
    })
    const id = `http://engine-${slot}:8000`
    const followed = { worker: id, lease: id, ingest, listen, isHeardByMany: true, mayYield: false }
    const events: FollowedEvents = replication.plane.source({ ...followed, onRestart: () => undefined })
    events.start()
    return { ingest, events }
  })
  await replication.start()
  await replication.open(null)
  return { replication, map, workers }
}

const counters = {
  event: () => undefined,
  blocks: () => undefined,
  skipped: () => undefined,
  gap: () => undefined,
  restart: () => undefined,
  disconnect: () => undefined,
}
