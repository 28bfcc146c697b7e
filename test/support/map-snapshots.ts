import type { WorkerSlot } from '../../src/kv/batch.ts'
import type { FlatMap } from '../../src/map/flat-map.ts'
import { exportSnapshot, type Exported, type ExportOptions } from '../../src/map/snapshot-export.ts'
import { restoreSnapshot, type Restored, type RestoreOptions } from '../../src/map/snapshot-restore.ts'
import type { SnapshotFacts } from '../../src/map/snapshot.ts'

/** A snapshot in memory. */
export interface KeptSnapshot {
  header: Buffer
  readonly chunks: Buffer[]
}

export const fingerprint = 'f1'

/** What a worker of a test says of itself. */
export function factsOf(slot: WorkerSlot, sequence = 0): SnapshotFacts {
  const position = { sequence, timestamp: 1 }
  return { worker: `w${slot}`, part: 'engine', engine: 'vllm', position, partial: false, state: null }
}

/** Each slice is as short as can be, so that `between` runs as often as it can. */
export const shortSlices = (between: () => void = () => undefined): ExportOptions['pace'] => {
  let now = 0
  return {
    clock: () => now++,
    sliceMs: 0,
    pause: () => {
      between()
      return Promise.resolve()
    },
  }
}

export async function snapshotOf(
  map: FlatMap,
  options: Partial<ExportOptions> = {},
): Promise<KeptSnapshot & { exported: Exported }> {
  const kept: KeptSnapshot = { header: Buffer.alloc(0), chunks: [] }
  const exported = await exportSnapshot({
    map,
    sink: {
      chunk(frame) {
        kept.chunks.push(frame)
        return Promise.resolve()
      },
      header(frame) {
        kept.header = frame
        return Promise.resolve()
      },
    },
    fingerprint,
    id: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8),
    wants: () => true,
    factsOf: (slot) => factsOf(slot),
    logPosition: () => null,
    wallClock: () => 1_000,
    pace: shortSlices(),
    ...options,
  })
  return { ...kept, header: kept.header, exported }
}

export function restored(
  map: FlatMap,
  { header, chunks }: KeptSnapshot,
  options: Partial<RestoreOptions> = {},
): Promise<Restored> {
  return restoreSnapshot({
    map,
    frames: {
      header: () => Promise.resolve(header),
      chunk: (number) => Promise.resolve(chunks[number] ?? Buffer.alloc(0)),
    },
    fingerprint,
    slotOf: ({ worker }) => Number(worker.slice(1)) as WorkerSlot,
    pace: shortSlices(),
    ...options,
  })
}
