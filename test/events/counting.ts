import type { EventCounters } from '../../src/events/counters.ts'

/** Counters that remember. */
export function countingCounters() {
  const skipped: Record<string, number> = {}
  const events: Record<string, number> = {}
  const blocks: Record<string, number> = {}
  const totals = { gaps: 0, restarts: 0, disconnects: 0 }
  const counters: EventCounters = {
    event: (kind, count) => (events[kind] = (events[kind] ?? 0) + count),
    blocks: (tier, kind, count) => (blocks[`${tier} ${kind}`] = (blocks[`${tier} ${kind}`] ?? 0) + count),
    skipped: (reason, count) => (skipped[reason] = (skipped[reason] ?? 0) + count),
    gap: () => totals.gaps++,
    restart: () => totals.restarts++,
    disconnect: () => totals.disconnects++,
  }
  return { counters, totals, skipped: () => skipped, events: () => events, blocks: () => blocks }
}
