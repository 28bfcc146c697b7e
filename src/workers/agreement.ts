/** Agreement of predicted and reported cached tokens (decision 12), over all requests. */
export interface Agreement {
  /** Answers whose prediction could in principle be checked. */
  requests: number
  /** Those of them that were: by the answer, by what the engine stored, or by its hit counters. */
  verified: number
  predicted: number
  actual: number
  difference: number
  larger: number
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
  return { requests: 0, verified: 0, predicted: 0, actual: 0, difference: 0, larger: 0 }
}

/** Takes into account what was predicted and what an engine said of it, for one request or several together. */
export function agree(agreement: Agreement, predicted: number, actual: number): void {
  agreement.predicted += predicted
  agreement.actual += actual
  agreement.difference += Math.abs(predicted - actual)
  agreement.larger += Math.max(predicted, actual)
}

/** 1 − Σ|predicted − actual| / Σ max(predicted, actual); 1 before anything was verified. */
export function agreementRatio({ difference, larger }: Agreement): number {
  return larger === 0 ? 1 : 1 - difference / larger
}

/** From −1, where all that engines found was not predicted, to 1, where nothing of what was predicted was found. */
export function agreementBias({ predicted, actual, larger }: Agreement): number {
  return larger === 0 ? 0 : (predicted - actual) / larger
}

/** Share of the requests that could be verified; 1 before there was any. */
export function agreementCoverage({ requests, verified }: Agreement): number {
  return requests === 0 ? 1 : Math.min(1, verified / requests)
}
