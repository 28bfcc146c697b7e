import type { NotRun } from './scenario.ts'

/** Faults of the list that nothing injects yet, each with its reason. */
export const notRun: readonly NotRun[] = []
