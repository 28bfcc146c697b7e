export interface RetryLimits {
  /** Further workers that a request may be tried on. */
  readonly attempts: number
  /** Retries that may be under way, as a share of the requests that are. */
  readonly budgetShare: number
  /** Retries that may be under way however few requests are. */
  readonly minimum: number
}

/** Keeps retries from multiplying the load when everything fails. */
export class RetryBudget {
  limits: RetryLimits
  #retrying = 0

  constructor(limits: RetryLimits) {
    this.limits = limits
  }

  /** Takes a retry's place, if there is one; `release` gives it back when the request has ended. */
  tryTake(requestsInFlight: number): boolean {
    const { budgetShare, minimum } = this.limits
    if (this.#retrying >= Math.max(minimum, Math.floor(requestsInFlight * budgetShare))) return false
    this.#retrying++
    return true
  }

  release(): void {
    this.#retrying--
  }
}
