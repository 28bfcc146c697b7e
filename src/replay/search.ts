export interface SearchOptions {
  /** Share of requests within the SLO at this load. */
  readonly inSlo: (load: number) => Promise<number>
  readonly goal: number
  /** A load to begin with, and the steps of it; users are whole. */
  readonly start: number
  readonly whole: boolean
  /** How near to the limit, as a share of the load. */
  readonly precision: number
  /** Beyond it is not searched. */
  readonly most: number
}

/** The highest load at which the goal is kept, found by doubling and bisection; 0 where even the least one misses it. */
export async function highestLoad(options: SearchOptions): Promise<number> {
  const { goal, start, whole, precision, most, inSlo } = options
  const fitted = (load: number): number => (whole ? Math.max(1, Math.round(load)) : load)
  const keeps = async (load: number): Promise<boolean> => (await inSlo(load)) >= goal
  let low = 0
  let high = fitted(Math.min(start, most))
  while (await keeps(high)) {
    low = high
    if (high >= most) return high
    high = fitted(Math.min(most, high * 2))
  }
  for (;;) {
    const middle = fitted((low + high) / 2)
    if (high - low <= precision * high || (whole && high - low <= 1) || high < 1e-3) return low
    if (await keeps(middle)) low = middle
    else high = middle
  }
}
