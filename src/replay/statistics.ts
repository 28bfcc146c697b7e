/** A mean with the half of its 95 % confidence interval; infinite where one sample says nothing of its spread. */
export interface Estimate {
  readonly mean: number
  readonly halfWidth: number
  readonly samples: readonly number[]
}

/** Two-sided 95 % quantiles of Student's t by degrees of freedom, 1 to 30. */
const studentT = [
  12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131, 2.12, 2.11,
  2.101, 2.093, 2.086, 2.08, 2.074, 2.069, 2.064, 2.06, 2.056, 2.052, 2.048, 2.045, 2.042,
]
const normalQuantile = 1.96

export function estimate(samples: readonly number[]): Estimate {
  const count = samples.length
  const mean = meanOf(samples)
  const squares = samples.reduce((sum, sample) => sum + (sample - mean) ** 2, 0)
  const t = studentT[count - 2] ?? (count > 1 ? normalQuantile : Infinity)
  return { mean, halfWidth: count > 1 ? t * Math.sqrt(squares / (count - 1) / count) : Infinity, samples }
}

/** How much larger one is than the other on average, seed by seed: what both have of a seed falls out. */
export function pairedDifference(one: readonly number[], other: readonly number[]): Estimate {
  return estimate(one.map((sample, index) => sample - (other[index] ?? NaN)))
}

export function meanOf(samples: readonly number[]): number {
  return samples.reduce((sum, sample) => sum + sample, 0) / samples.length
}

export interface Distribution {
  readonly mean: number
  readonly p50: number
  readonly p90: number
  readonly p99: number
}

/** Nearest-rank percentiles; of nothing, zeros. */
export function distribution(values: readonly number[]): Distribution {
  if (values.length === 0) return { mean: 0, p50: 0, p90: 0, p99: 0 }
  const sorted = Float64Array.from(values).sort()
  const at = (share: number): number => sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] as number
  return { mean: meanOf(values), p50: at(0.5), p90: at(0.9), p99: at(0.99) }
}
