/**
 * How long a request waits until those before it leave room for it in a worker's KV cache. Engines take a request in only
 * where its whole prompt fits beside what running requests hold, so that with long prompts a worker is full long before it
 * is busy. Requests are taken to hold equal shares and to end evenly over a mean answer's time, which is learned: of n the
 * k-th is gone after k / (n + 1) of it.
 */
export class KvRoom {
  #answerMs: number
  #answers = 0
  readonly #samples: number
  readonly #sinceMs = new Map<object, number>()

  /** @param answerMs from the first token to the end, until it is learned */
  constructor(answerMs: number, samples: number) {
    this.#answerMs = answerMs
    this.#samples = samples
  }

  /**
   * @param capacityBlocks 0 where it is not known
   * @param usedBlocks held by requests that are under way
   * @param requests how many these are
   */
  waitMs(capacityBlocks: number, usedBlocks: number, requests: number, neededBlocks: number): number {
    const lacking = usedBlocks + neededBlocks - capacityBlocks
    if (capacityBlocks === 0 || lacking <= 0 || requests <= 0 || usedBlocks <= 0) return 0
    const leaving = Math.min(requests, Math.ceil((lacking * requests) / usedBlocks))
    return (this.#answerMs * leaving) / (requests + 1)
  }

  began(request: object, nowMs: number): void {
    this.#sinceMs.set(request, nowMs)
  }

  ended(request: object, nowMs: number): void {
    const sinceMs = this.#sinceMs.get(request)
    if (sinceMs === undefined) return
    this.#sinceMs.delete(request)
    this.#answerMs += (nowMs - sinceMs - this.#answerMs) / Math.min(this.#samples, ++this.#answers)
  }
}
