/** One measured figure, as every benchmark returns it and `bench/results/` keeps it. */
export interface BenchResult {
  readonly name: string
  readonly unit: string
  /** The median of `samples` unless the name says otherwise. */
  readonly value: number
  readonly samples: number[]
  /** The goal in words, where there is one. */
  readonly goal?: string
  readonly met?: boolean
  readonly notes?: Readonly<Record<string, number | string>>
}

/** What a bench that prints and keeps its own results says of them. */
export interface Told {
  readonly missed: number
}

export function median(samples: readonly number[]): number {
  return percentile(samples, 0.5)
}

/** The nearest-rank percentile; `share` 0.99 is the p99. */
export function percentile(samples: readonly number[], share: number): number {
  const sorted = [...samples].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

export function printResults(results: readonly BenchResult[]): void {
  console.table(
    results.map(({ name, unit, value, goal, met, notes }) => ({
      name,
      value: Number(value.toPrecision(4)),
      unit,
      goal: goal ?? '',
      met: met ?? '',
      notes: Object.entries(notes ?? {})
        .map(([key, note]) => `${key} ${typeof note === 'number' ? Number(note.toPrecision(4)) : note}`)
        .join(', '),
    })),
  )
}
