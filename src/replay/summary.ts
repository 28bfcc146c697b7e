import type { ReplayRow, ReplayRun } from './replay.ts'
import type { HitBounds } from './bounds.ts'
import type { BytesMoved } from './tiers.ts'
import { distribution, type Distribution } from './statistics.ts'

/** What a request must keep to count as served well. */
export interface Slo {
  /** First token within so much, and so much more for each 1,000 tokens of its prompt. */
  readonly ttftMs: number
  readonly ttftMsPer1kTokens: number
  /** Mean time between its tokens. */
  readonly itlMs: number
}

export const defaultSlo: Slo = { ttftMs: 500, ttftMsPer1kTokens: 0, itlMs: 50 }

/** One run in figures. Requests that were sent in the warm-up are left out. */
export interface ReplayResult {
  readonly requests: number
  readonly timedOut: number
  /** Answered with a refusal for want of room, and with any other fault or half; none in virtual time. */
  readonly refused: number
  readonly failed: number
  /** Cached prompt tokens over all prompt tokens of what was answered. */
  readonly hitRatio: number
  /** Those that timed out count with the time that they waited; what was refused or failed has none. */
  readonly ttftMs: Distribution
  /** Of requests: the mean time between the tokens of each. */
  readonly itlMs: Distribution
  /** Requests within the SLO, over all; only what was answered can be. */
  readonly inSlo: number
  readonly requestsPerSecond: number
  readonly goodRequestsPerSecond: number
  /** Output tokens per second that the average user gets while an answer comes. */
  readonly tokensPerSecondPerUser: number
  /** Time that the busiest worker computed, over the mean; NaN where that is not known. */
  readonly balance: number
  /** Share of the time that the workers computed; NaN where that is not known. */
  readonly busy: number
  /** 1 − Σ|predicted − actual| / Σ max(predicted, actual) cached tokens (decision 12), coming ones where they came. */
  readonly agreement: number
  readonly complete: boolean
  /** What single caches would have found in the whole run, where that was asked for. */
  readonly bounds?: HitBounds
  /** In the whole run; absent where there is nothing beside the GPUs. */
  readonly moved?: BytesMoved
  /** Of the whole run, the warm-up included. */
  readonly timeline: Timeline
}

/** How many requests were sent in each window of time, and how many of them missed the SLO. */
export interface Timeline {
  readonly windowMs: number
  readonly requests: readonly number[]
  readonly misses: readonly number[]
}

export interface SummaryOptions {
  readonly moved?: BytesMoved
  readonly bounds?: HitBounds
  readonly slo?: Slo
  readonly warmUpMs?: number
}

export function summary(
  run: ReplayRun,
  { slo = defaultSlo, warmUpMs = 0, moved, bounds }: SummaryOptions = {},
): ReplayResult {
  const rows = run.rows.filter(({ sentMs }) => sentMs >= warmUpMs)
  const those = (which: ReplayRow['outcome']): ReplayRow[] => rows.filter(({ outcome }) => outcome === which)
  const answered = those('answered')
  const waited = rows.filter(({ outcome }) => outcome === 'answered' || outcome === 'timed out')
  const seconds = Math.max(1e-9, (run.endedMs - warmUpMs) / 1000)
  const good = rows.filter((row) => keepsSlo(row, slo)).length
  const total = (of: (row: ReplayRow) => number): number => answered.reduce((sum, row) => sum + of(row), 0)
  const off = total((row) => Math.abs(predictedOf(row) - row.cachedTokens))
  const most = total((row) => Math.max(predictedOf(row), row.cachedTokens))
  const streamed = answered.filter(({ itlMs }) => itlMs > 0)
  const busyMs = run.busyMs.reduce((sum, ms) => sum + ms, 0)
  const isKnown = run.busyMs.length > 0
  return {
    requests: rows.length,
    timedOut: those('timed out').length,
    refused: those('refused').length,
    failed: those('failed').length,
    hitRatio:
      total((row) => row.cachedTokens) /
      Math.max(
        1,
        total((row) => row.promptTokens),
      ),
    ttftMs: distribution(waited.map((row) => row.ttftMs)),
    itlMs: distribution(streamed.map((row) => row.itlMs)),
    inSlo: rows.length === 0 ? 1 : good / rows.length,
    requestsPerSecond: rows.length / seconds,
    goodRequestsPerSecond: good / seconds,
    tokensPerSecondPerUser: distribution(streamed.map((row) => 1000 / row.itlMs)).mean,
    balance: isKnown ? (Math.max(...run.busyMs) * run.busyMs.length) / Math.max(1e-9, busyMs) : NaN,
    busy: isKnown ? busyMs / Math.max(1e-9, run.endedMs * run.busyMs.length) : NaN,
    agreement: most === 0 ? 1 : 1 - off / most,
    complete: run.complete,
    ...(moved === undefined ? {} : { moved }),
    ...(bounds === undefined ? {} : { bounds }),
    timeline: timelineOf(run, slo),
  }
}

const windowMs = 10_000

function timelineOf({ rows, endedMs }: ReplayRun, slo: Slo): Timeline {
  const windows = Math.floor(endedMs / windowMs) + 1
  const requests = new Array<number>(windows).fill(0)
  const misses = new Array<number>(windows).fill(0)
  for (const row of rows) {
    const window = Math.floor(row.sentMs / windowMs)
    requests[window] = (requests[window] ?? 0) + 1
    if (!keepsSlo(row, slo)) misses[window] = (misses[window] ?? 0) + 1
  }
  return { windowMs, requests, misses }
}

export function keepsSlo({ outcome, ttftMs, itlMs, promptTokens }: ReplayRow, slo: Slo): boolean {
  const mostMs = slo.ttftMs + (slo.ttftMsPer1kTokens * promptTokens) / 1000
  return outcome === 'answered' && ttftMs <= mostMs && itlMs <= slo.itlMs
}

function predictedOf({ predictedCachedTokens, comingTokens, cachedTokens }: ReplayRow): number {
  return Math.max(predictedCachedTokens, Math.min(cachedTokens, predictedCachedTokens + comingTokens))
}
