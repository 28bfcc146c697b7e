/** Agreement of predicted and reported cached tokens (decision 12): over all requests, and over the latest. */
export interface Agreement {
  requests: number
  verified: number
  predicted: number
  actual: number
  difference: number
  larger: number
  /** Of the latest requests in which either count was above zero; older ones fade. */
  readonly recent: { requests: number; predicted: number; actual: number; difference: number; larger: number }
}

export interface AgreementLimits {
  /** Requests with something to compare until a worker is judged; also how slowly older ones fade. */
  readonly requests: number
  /** Below this recent ratio the predictions for a worker are no longer believed. */
  readonly leastRatio: number
  /** From this recent ratio on they are believed again. */
  readonly recoveredRatio: number
}

export function newAgreement(): Agreement {
  return { requests: 0, verified: 0, predicted: 0, actual: 0, difference: 0, larger: 0, recent: newRecent() }
}

/** Takes one answer into account; `actual` is null where the engine did not report cached tokens. */
export function agree(agreement: Agreement, predicted: number, actual: number | null, limits: AgreementLimits): void {
  agreement.requests++
  if (actual === null) return
  const difference = Math.abs(predicted - actual)
  const larger = Math.max(predicted, actual)
  agreement.verified++
  agreement.predicted += predicted
  agreement.actual += actual
  agreement.difference += difference
  agreement.larger += larger
  // Two zeros agree whatever is wrong.
  if (larger === 0) return
  const { recent } = agreement
  const kept = 1 - 1 / limits.requests
  recent.requests++
  recent.predicted = recent.predicted * kept + predicted
  recent.actual = recent.actual * kept + actual
  recent.difference = recent.difference * kept + difference
  recent.larger = recent.larger * kept + larger
}

/** 1 − Σ|predicted − actual| / Σ max(predicted, actual); 1 before anything was verified. */
export function agreementRatio({ difference, larger }: { difference: number; larger: number }): number {
  return larger === 0 ? 1 : 1 - difference / larger
}

/** What the latest requests say of the predictions; null while they say neither. */
export function verdictOf({ recent }: Agreement, limits: AgreementLimits): 'wrong' | 'right' | null {
  if (recent.requests < limits.requests) return null
  const ratio = agreementRatio(recent)
  if (ratio < limits.leastRatio) return 'wrong'
  return ratio >= limits.recoveredRatio ? 'right' : null
}

/** What most likely makes predictions fail in this way. */
export function likelyCause({ recent: { predicted, actual } }: Agreement): string {
  return predicted < actual
    ? 'the engine finds more cached than its events tell: check block size, tokenizer, chat template and KV events'
    : 'the engine finds less cached than its events tell: check LoRA and salt settings, the hash seed, and lost events'
}

/** Begins the latest requests anew, after the verdict has changed what is done. */
export function forgetRecent({ recent }: Agreement): void {
  Object.assign(recent, newRecent())
}

function newRecent(): Agreement['recent'] {
  return { requests: 0, predicted: 0, actual: 0, difference: 0, larger: 0 }
}
