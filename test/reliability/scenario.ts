import type { Rig } from './rig.ts'

/** One fault, what is promised under it, and how to find out whether the promise is kept. */
export interface Scenario {
  /** Its number in the list of docs/reliability.md; `soak` and `overload` stand beside the list. */
  readonly number: string
  readonly fault: string
  /** What must hold, in figures. */
  readonly promise: string
  /** Whether it is part of the test suite at a reduced size: quick, and robust on a busy machine. */
  readonly quick: boolean
  readonly run: (rig: Rig) => Promise<Finding>
}

export interface Finding {
  /** The figures that were seen, in words. */
  readonly measured: string
  readonly holds: boolean
  /** What the figures were made from, where it is a series. */
  readonly samples?: readonly number[]
}

/** A fault of the list that no scenario injects, and why. */
export interface NotRun {
  readonly number: string
  readonly fault: string
  readonly promise: string
  readonly reason: string
}

/** Gathers what was seen; the finding holds if every part of it does. */
export class Verdict {
  readonly #told: string[] = []
  #holds = true

  /** Adds a figure in words, with whether it is within the promise. */
  add(told: string, holds = true): this {
    this.#told.push(holds ? told : `**${told}**`)
    if (!holds) this.#holds = false
    return this
  }

  finding(samples?: readonly number[]): Finding {
    return {
      measured: this.#told.join('; '),
      holds: this.#holds,
      ...(samples === undefined ? {} : { samples: samples.map((sample) => Math.round(sample * 100) / 100) }),
    }
  }
}

/** The nearest-rank percentile; `share` 0.99 is the p99. */
export function percentile(samples: readonly number[], share: number): number {
  const sorted = [...samples].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

/** How often each value occurs: `200 × 96, 502 × 4`. */
export function tally(values: readonly (number | string)[]): string {
  const counts = new Map<string, number>()
  for (const value of values) counts.set(String(value), (counts.get(String(value)) ?? 0) + 1)
  return [...counts]
    .sort(([a], [b]) => a.localeCompare(b))
    .map(([value, count]) => `${value} × ${count}`)
    .join(', ')
}
