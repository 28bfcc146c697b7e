import type { AgreementLimits } from '../workers/agreement.ts'
import type { Cause } from './causes.ts'
import type { WorkerRecord } from './record.ts'

/** Causes that only say which way predictions are wrong: not named beside one that says why. */
const vague: ReadonlySet<Cause> = new Set(['finds_less', 'finds_more'])

/** Names what a worker's requests agree on, and takes back what none of them shows any more. */
export function nameCauses({ worker, strata, findings }: WorkerRecord): void {
  const said = new Set<Cause>()
  let undecided = false
  for (const stratum of strata) {
    const { verdict } = stratum
    if (verdict === null) undecided ||= stratum.stored.wrongs + stratum.cached.wrongs > 0.5
    else if (verdict !== 'none') said.add(verdict)
  }
  for (const cause of said) if (!vague.has(cause)) findings.add(cause, { judged: true })
  const isSharp = findings.grave().some(({ cause }) => !vague.has(cause))
  for (const cause of vague) {
    if (isSharp) findings.remove(cause)
    else if (said.has(cause)) findings.add(cause, { judged: true })
  }
  // Why a worker lost its credit is told until it has it again.
  if (!undecided && worker.degraded !== 'predictions_fail') findings.removeJudged(said)
}

/** The share of what was predicted, or must have been stored, that came true or is explained; of the latest requests. */
export function recentRatio({ stored, cached }: WorkerRecord): number {
  return 1 - Math.max(stored.wrongShare, cached.wrongShare)
}

/** What the latest requests say of the predictions; null while they say neither. */
export function verdictOf({ stored, cached }: WorkerRecord, limits: AgreementLimits): 'wrong' | 'right' | null {
  const shares = [stored, cached].filter(({ observed }) => observed >= limits.requests)
  if (shares.length === 0) return null
  const ratio = 1 - Math.max(...shares.map(({ wrongShare }) => wrongShare))
  if (ratio < limits.leastRatio) return 'wrong'
  return ratio >= limits.recoveredRatio ? 'right' : null
}
