import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import { Outliers, type OutlierLimits } from '../workers/outliers.ts'

export interface OutlierWiring {
  readonly limits: OutlierLimits
  readonly clock: () => number
  readonly random: () => number
  readonly metrics: Metrics
  readonly log: Log
}

/** Outlier detection that counts and tells what it does. */
export function createOutliers({ limits, clock, random, metrics, log }: OutlierWiring): Outliers {
  return new Outliers({
    limits,
    clock,
    random,
    onEjected(worker, forMs) {
      metrics.ejections.add(1, worker.id)
      log.warn({ worker: worker.id, forMs: Math.round(forMs) }, 'worker ejected: it failed too many requests in a row')
    },
    onReturned: (worker) => log.info({ worker: worker.id }, 'worker is back: a request on it succeeded'),
    onPanic: () => metrics.panics.add(1),
  })
}
