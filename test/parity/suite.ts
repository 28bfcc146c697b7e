import type { Report } from '../engines/report.ts'

export interface ParityOptions {
  readonly seed: number
  /** How many decisions are compared. */
  readonly states: number
  /** Whether answers are written to test/fixtures/parity/, for the tests that run without the other router. */
  readonly keep: boolean
}

/** One other router: installs it, starts it, compares and tells what was found. Throws where it cannot be run. */
export type ParitySuite = (report: Report, options: ParityOptions) => Promise<void>

/** `seed=N`, `states=N` and `keep`; everything else names a suite. */
export function parityOptions(given: readonly string[]): ParityOptions & { readonly named: readonly string[] } {
  const named: string[] = []
  let seed = 1
  let states = 10_000
  let keep = false
  for (const argument of given) {
    const [key, value] = argument.split('=')
    if (argument === 'keep') keep = true
    else if (value === undefined) named.push(argument)
    else if (key === 'seed' && /^\d+$/.test(value)) seed = Number(value)
    else if (key === 'states' && /^[1-9]\d*$/.test(value)) states = Number(value)
    else throw new Error(`"${argument}" is none of seed=N, states=N, keep or a suite`)
  }
  return { seed, states, keep, named }
}
