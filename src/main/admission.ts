import { Admission, type AdmissionSettings } from '../admission/admission.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { Pools } from '../workers/pool.ts'
import type { PoolRoom } from './pool-room.ts'

export interface AdmissionWiring {
  readonly settings: AdmissionSettings
  readonly room: PoolRoom
  readonly pools: Pools
  readonly clock: () => number
  readonly metrics: Metrics
}

/** Back-pressure, ejections and stale figures end by the clock alone; who waits for them is looked after this often. */
const wakeMs = 100

/** Admission in front of the pools, woken whenever room may have appeared. */
export function createAdmission({ settings, room, pools, clock, metrics }: AdmissionWiring) {
  const admission = new Admission({
    settings,
    hasRoom: (pool, ahead) => room.hasRoom(pool, ahead),
    clock,
    after(delayMs, run) {
      const timer = setTimeout(run, delayMs)
      timer.unref()
      return () => clearTimeout(timer)
    },
    metrics,
  })
  const waking = setInterval(() => {
    for (const { model } of pools.list()) admission.wake(model)
  }, wakeMs)
  waking.unref()
  return { admission, stop: () => clearInterval(waking) }
}
