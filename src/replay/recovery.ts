import type { Timeline } from './summary.ts'

export interface RecoveryOptions {
  /** When it happened, and from when on before it all was well. */
  readonly faultMs: number
  readonly wellFromMs: number
  /** What is looked at ends here. */
  readonly untilMs: number
}

export interface Recovery {
  /** Requests out of SLO after the fault, beyond the share that was before it; over all runs. */
  readonly excessMisses: number
  /** Until the share of misses is back and stays so for a while; Infinity where it does not come back. */
  readonly recoveredMs: number
}

/** By so much more of the requests may miss than before. */
const tolerance = 0.03
const steadyWindows = 3

/** How runs that differ in their seeds alone got over a fault; taken together, as one has few requests in a window. */
export function recovery(timelines: readonly Timeline[], options: RecoveryOptions): Recovery {
  const { faultMs, wellFromMs, untilMs } = options
  const windowMs = timelines[0]?.windowMs ?? 1
  const total = (of: (timeline: Timeline) => readonly number[], from: number, end: number): number =>
    timelines.reduce(
      (sum, timeline) =>
        sum +
        of(timeline)
          .slice(from, end)
          .reduce((all, count) => all + count, 0),
      0,
    )
  const share = (from: number, end: number): number =>
    total(({ misses }) => misses, from, end) /
    Math.max(
      1,
      total(({ requests }) => requests, from, end),
    )
  const [well, fault, until] = [wellFromMs, faultMs, untilMs].map((ms) => Math.floor(ms / windowMs)) as [
    number,
    number,
    number,
  ]
  const usual = share(well, fault)
  const requests = total(({ requests }) => requests, fault, until)
  const excessMisses = total(({ misses }) => misses, fault, until) - usual * requests
  for (let window = fault; window + steadyWindows <= until; window++) {
    const isSteady = Array.from({ length: steadyWindows }, (_, i) => share(window + i, window + i + 1)).every(
      (missed) => missed <= usual + tolerance,
    )
    if (isSteady) return { excessMisses, recoveredMs: (window - fault) * windowMs }
  }
  return { excessMisses, recoveredMs: Infinity }
}
