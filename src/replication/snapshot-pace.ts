import { setImmediate as turn, setTimeout as wait } from 'node:timers/promises'
import type { SnapshotPace } from '../map/snapshot-export.ts'

/** Beside requests: at most about half of the thread's time, and everything that waits comes in between. */
export function politePace(sliceMs: number, clock: () => number): SnapshotPace {
  return { clock, sliceMs, pause: () => wait(sliceMs) }
}

/** At the start: whatever waits comes in between, and no time is left unused. */
export function eagerPace(sliceMs: number, clock: () => number): SnapshotPace {
  return { clock, sliceMs, pause: () => turn() }
}
