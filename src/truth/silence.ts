import { causeTexts } from './causes.ts'
import type { WorkerRecord } from './record.ts'
import type { Watched } from './watched.ts'

/** Requests in a row that must have told something until silence is believed. */
const leastSilent = 3

/**
 * Whether the engine must have stored new blocks for a request, and so announced something. Where it does not report what
 * it found, it may have had a prompt of which the map knows nothing only if something else is amiss.
 */
export function mustTell({ record, blocks }: Watched, foundBlocks: number | null): boolean {
  return foundBlocks === null ? record.skips === 0 && record.stored.wrongs < 0.05 : foundBlocks < blocks
}

/** A request must have left blocks behind, and nothing has been heard since it was sent. */
export function noteSilent(record: WorkerRecord, answeredMs: number): void {
  if (record.silent++ === 0) record.silentSinceMs = answeredMs
}

/**
 * What no single request shows: events that are silent while blocks are stored, and a subscription that does not stand.
 * Answers the text of a worker that loses its credit now.
 */
export function watchEvents(record: WorkerRecord, nowMs: number, silentMs: number): string | null {
  const { worker, findings } = record
  if (worker.exact) {
    record.liveMs = nowMs
    record.answeredBlind = 0
    findings.remove('events_unreachable')
  } else if (
    record.listens &&
    record.answeredBlind >= leastSilent &&
    // A long replay is heard all the time.
    nowMs - Math.max(record.liveMs, record.heardMs) >= silentMs
  )
    findings.add('events_unreachable')
  if (record.silent >= leastSilent && nowMs - record.silentSinceMs >= silentMs) {
    findings.add('events_silent')
    if (worker.degraded !== null) return null
    worker.degraded = 'events_silent'
    return `${causeTexts.events_silent}; it is routed by load only`
  }
  if (record.silent === 0) findings.remove('events_silent')
  return null
}

/** Whether a worker that was silent is heard again, and believed with that. */
export function isHeardAgain({ worker, silent }: WorkerRecord): boolean {
  if (worker.degraded !== 'events_silent' || silent > 0) return false
  worker.degraded = null
  return true
}
