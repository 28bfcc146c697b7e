/** Below this a difference in speed is not worth acting on: it is noise among equal machines. */
const leastDifference = Math.log(1.25)
const leastSamples = 12

/**
 * How much slower (above 1) or faster than the pool's line a worker is: the mean logarithm of observed over predicted
 * time with exponential forgetting, and 1 until the difference is both large and certain (two standard errors).
 */
export class SpeedFactor {
  factor = 1
  readonly #keep: number
  #weight = 0
  #mean = 0
  #squares = 0

  constructor(samples: number) {
    this.#keep = 1 - 1 / samples
  }

  /** `ratio`: logarithm of observed over predicted time. */
  observe(ratio: number): void {
    this.#weight = this.#weight * this.#keep + 1
    const step = (ratio - this.#mean) / this.#weight
    this.#squares = this.#squares * this.#keep + (ratio - this.#mean) * (ratio - this.#mean - step)
    this.#mean += step
    const error = Math.sqrt(this.#squares) / this.#weight
    const certain = this.#weight >= leastSamples && Math.abs(this.#mean) > Math.max(leastDifference, 2 * error)
    this.factor = certain ? Math.exp(this.#mean) : 1
  }
}
