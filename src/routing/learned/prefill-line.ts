/**
 * Time to first token as a straight line over the tokens before it, fitted by least squares with exponential forgetting,
 * from a prior that two made-up samples hold until real ones outweigh them.
 */
export class PrefillLine {
  msPerToken: number
  baseMs = 0
  readonly #keep: number
  readonly #least: number
  readonly #most: number
  #weight = 0
  #x = 0
  #y = 0
  #xx = 0
  #xy = 0

  constructor(tokensPerSecond: number, samples: number) {
    this.#keep = 1 - 1 / samples
    this.msPerToken = 1000 / tokensPerSecond
    // A line learned from odd samples must not make a worker look free or lost.
    this.#least = this.msPerToken / 20
    this.#most = this.msPerToken * 1000
    // Light and close together, so that real samples bend the line soon wherever they lie.
    const slope = this.msPerToken
    this.#add(0, 0, 0.25)
    this.#add(1024, 1024 * slope, 0.25)
  }

  /** A sample with much queued before it says little, since how far that had come is a guess: it weighs its own share. */
  observe(ownTokens: number, tokensAhead: number, ms: number): void {
    const tokens = ownTokens + tokensAhead
    if (!(ms > 0) || !Number.isFinite(ms)) return
    this.#add(tokens, ms, tokensAhead === 0 ? 1 : ownTokens / tokens)
  }

  #add(tokens: number, ms: number, weight: number): void {
    const keep = 1 - (1 - this.#keep) * weight
    this.#weight = this.#weight * keep + weight
    this.#x = this.#x * keep + weight * tokens
    this.#y = this.#y * keep + weight * ms
    this.#xx = this.#xx * keep + weight * tokens * tokens
    this.#xy = this.#xy * keep + weight * tokens * ms
    const spread = this.#weight * this.#xx - this.#x * this.#x
    if (spread <= 0) return
    const slope = (this.#weight * this.#xy - this.#x * this.#y) / spread
    this.msPerToken = Math.min(this.#most, Math.max(this.#least, slope))
    this.baseMs = Math.max(0, (this.#y - this.msPerToken * this.#x) / this.#weight)
  }
}
