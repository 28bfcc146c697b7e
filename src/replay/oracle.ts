import type { Engine } from '../simulator/engine.ts'
import type { Tiers } from './tiers.ts'
import type { Choice, Chooser, VirtualRequest } from './chooser.ts'

const noTokens = new Uint32Array(0)

/**
 * Sees the engines' true caches and queues and takes the least estimated time to first token. Greedy, thus no bound: it
 * moves a conversation for a few milliseconds of queue and pays with a colder cache later. But hard to beat.
 */
export class Oracle implements Chooser {
  /** Those that are there now. */
  readonly #engines: readonly Engine[]
  readonly #away = new Set<number>()

  readonly #tiers: Tiers | null

  constructor(engines: readonly Engine[], tiers: Tiers | null = null) {
    this.#engines = engines
    this.#tiers = tiers
  }

  choose({ id, prompt }: VirtualRequest): Choice {
    let best: Choice = { worker: 0, predictedCachedTokens: 0, comingTokens: 0 }
    let leastMs = Infinity
    for (const [worker, engine] of this.#engines.entries()) {
      if (this.#away.has(worker)) continue
      const { maxBatchedTokens, prefillTokensPerSecond, stepBaseMs, decodeMsPerRequest } = engine.options
      const { prefillTokens, decoding, stepLeftMs } = engine.backlog()
      const request = { id, tokens: noTokens, outputTokens: 1, given: prompt }
      const predictedCachedTokens = engine.cachedTokens(request)
      const loadMs = this.#tiers === null ? 0 : this.#tiers.idleLoadMs(engine.trueMatch(request))
      const tokensToDo = prefillTokens + prompt.promptTokens - predictedCachedTokens
      const steps = Math.ceil(tokensToDo / maxBatchedTokens)
      const stepsMs = steps * (stepBaseMs + decoding * decodeMsPerRequest)
      const ms = loadMs + stepLeftMs + (tokensToDo / prefillTokensPerSecond) * 1000 + stepsMs
      if (ms >= leastMs) continue
      leastMs = ms
      best = { worker, predictedCachedTokens, comingTokens: 0 }
    }
    return best
  }

  firstToken(): void {
    return
  }

  generated(): void {
    return
  }

  finished(): void {
    return
  }

  aborted(): void {
    return
  }

  measured(): void {
    return
  }

  applyEvents(): void {
    return
  }

  left(worker: number): void {
    this.#away.add(worker)
  }

  joined(worker: number): void {
    this.#away.delete(worker)
  }

  forget(): void {
    return
  }
}
