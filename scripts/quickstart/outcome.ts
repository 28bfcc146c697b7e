import { percentile } from '../../bench/result.ts'
import type { Sample } from './drive.ts'

/** What a policy made of the workload. */
export interface Outcome {
  readonly policy: string
  /** Cached prompt tokens over all prompt tokens, as the engines' usage tells. */
  readonly hitRatio: number
  readonly ttftMs: { readonly mean: number; readonly p50: number; readonly p95: number }
  /** Most first. */
  readonly requestsPerWorker: readonly number[]
}

export function outcomeOf(policy: string, samples: readonly Sample[]): Outcome {
  const sum = (of: (sample: Sample) => number): number => samples.reduce((total, sample) => total + of(sample), 0)
  const ttftMs = samples.map((sample) => sample.ttftMs)
  const perWorker = Map.groupBy(samples, ({ worker }) => worker)
  return {
    policy,
    hitRatio: sum(({ cachedTokens }) => cachedTokens) / sum(({ promptTokens }) => promptTokens),
    ttftMs: {
      mean: sum((sample) => sample.ttftMs) / samples.length,
      p50: percentile(ttftMs, 0.5),
      p95: percentile(ttftMs, 0.95),
    },
    requestsPerWorker: [...perWorker.values()].map(({ length }) => length).sort((a, b) => b - a),
  }
}

/** Whether the first beats all others in both prefix hits and mean time to first token. */
export function wins(first: Outcome, others: readonly Outcome[]): boolean {
  return others.every((other) => first.hitRatio > other.hitRatio && first.ttftMs.mean < other.ttftMs.mean)
}

export function tableOf(outcomes: readonly Outcome[]): string {
  const ms = (value: number): string => `${value.toFixed(0)} ms`
  const rows = [
    ['policy', 'prefix hits', 'TTFT mean', 'p50', 'p95', 'requests per worker'],
    ...outcomes.map(({ policy, hitRatio, ttftMs, requestsPerWorker }) => [
      policy,
      `${(hitRatio * 100).toFixed(1)} %`,
      ms(ttftMs.mean),
      ms(ttftMs.p50),
      ms(ttftMs.p95),
      requestsPerWorker.join(' '),
    ]),
  ]
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? []
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) =>
        column === 0 || column === row.length - 1
          ? cell.padEnd(widths[column] ?? 0)
          : cell.padStart(widths[column] ?? 0),
      )
      .join('   ')
  return rows.map((row) => `  ${line(row).trimEnd()}`).join('\n')
}
