import { distribution, meanOf } from '../../src/replay/statistics.ts'

/** One answered request as the client and the engine saw it. */
export interface Answered {
  readonly ttftMs: number
  readonly worker: string
  readonly promptTokens: number
  readonly predictedTokens: number
  /** Null where the engine did not report it. */
  readonly cachedTokens: number | null
}

/** All requests of one log under one policy. */
export interface Lap {
  readonly policy: string
  readonly round: number
  readonly answered: readonly Answered[]
  readonly failed: number
  readonly seconds: number
  /** The machine's load average when it ended. */
  readonly load: number
}

export interface Standing {
  readonly meanMs: number
  readonly p50Ms: number
  readonly p90Ms: number
  /** Cached over all prompt tokens, as the engines reported. */
  readonly hitRatio: number
  /** 1 − Σ|predicted − reported| / Σ max(predicted, reported), and the share of requests that it is known of. */
  readonly agreement: number
  readonly coverage: number
  /** Of each worker, most first. */
  readonly requests: readonly number[]
}

/** The figures of requests under one policy, of one lap or of several. */
export function standing(answered: readonly Answered[]): Standing {
  const { mean, p50, p90 } = distribution(answered.map(({ ttftMs }) => ttftMs))
  const known = answered.flatMap(({ predictedTokens, cachedTokens }) =>
    cachedTokens === null ? [] : [{ predicted: predictedTokens, cached: cachedTokens }],
  )
  const off = sum(known.map(({ predicted, cached }) => Math.abs(predicted - cached)))
  const most = sum(known.map(({ predicted, cached }) => Math.max(predicted, cached)))
  const byWorker = new Map<string, number>()
  for (const { worker } of answered) byWorker.set(worker, (byWorker.get(worker) ?? 0) + 1)
  return {
    ...{ meanMs: mean, p50Ms: p50, p90Ms: p90 },
    hitRatio: sum(known.map(({ cached }) => cached)) / Math.max(1, sum(answered.map((one) => one.promptTokens))),
    agreement: most === 0 ? 1 : 1 - off / most,
    coverage: known.length / Math.max(1, answered.length),
    requests: [...byWorker.values()].sort((a, b) => b - a),
  }
}

/** Mean time to first token of one policy over another's, round by round: what a round's other load does to both. */
export function ratios(laps: readonly Lap[], policy: string, base: string): number[] {
  const meanMs = (round: number, name: string): number =>
    meanOf(laps.filter((lap) => lap.round === round && lap.policy === name).flatMap(timesOf))
  const rounds = [...new Set(laps.map(({ round }) => round))]
  return rounds.map((round) => meanMs(round, policy) / meanMs(round, base))
}

/** A row for each policy over all rounds, the quickest first. */
export function standingsTable(laps: readonly Lap[], base: string): string[] {
  const policies = [...new Set(laps.map(({ policy }) => policy))]
  const rows = policies
    .map((policy) => ({
      policy,
      ...standing(laps.filter((lap) => lap.policy === policy).flatMap((lap) => lap.answered)),
    }))
    .sort((a, b) => a.meanMs - b.meanMs)
    .map(({ policy, meanMs, p50Ms, p90Ms, hitRatio, agreement, coverage, requests }) => [
      policy,
      ...[meanMs, p50Ms, p90Ms].map((ms) => ms.toFixed(0)),
      ratios(laps, policy, base)
        .map((ratio) => ratio.toFixed(2))
        .join(' '),
      ...[hitRatio, agreement, coverage].map((share) => `${(100 * share).toFixed(1)} %`),
      requests.join(' '),
    ])
  const head = ['policy', 'TTFT mean', 'p50', 'p90 ms', `over ${base}, by round`, 'cached', 'agreement', 'coverage']
  return aligned([[...head, 'requests per worker'], ...rows])
}

function aligned(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  )
}

function timesOf({ answered }: Lap): number[] {
  return answered.map(({ ttftMs }) => ttftMs)
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}
