import type { Dispatch, PolicyFleet, PolicyMatch } from '../policy.ts'

export interface CacheWeights {
  readonly overlap_score_credit: number
  readonly host_cache_hit_weight: number
  readonly disk_cache_hit_weight: number
  readonly shared_cache_multiplier: number
}

/** What a candidate's leading blocks of a prompt are worth; filled anew for each candidate. */
export class CacheCredit {
  readonly #weights: CacheWeights
  #gpu = 0
  #lower = 0
  #shared = 0

  constructor(weights: CacheWeights) {
    this.#weights = weights
  }

  /** Takes the match of a candidate; nothing is worth anything on a degraded worker. */
  take(promptTokens: number, fleet: PolicyFleet, match: PolicyMatch, candidate: number): void {
    const gpu = match.gpu[candidate] as number
    const host = match.host[candidate] as number
    const disk = match.disk[candidate] as number
    const shared = match.shared[candidate] as number
    // Of a full match the last block does not show among the cached tokens, but counts.
    const shown = Math.min(gpu + host + disk + shared, (promptTokens - 1) / (fleet.blockSize[candidate] as number))
    const isBelieved = match.cachedTokens[candidate] !== 0 || shown < 1
    this.#gpu = isBelieved ? gpu : 0
    this.#lower = isBelieved ? this.#lowerTiers(host, disk) : 0
    this.#shared = isBelieved ? shared : 0
  }

  /** In blocks; `decay` scales what is on the GPU. */
  blocks(decay: number): number {
    const { overlap_score_credit, shared_cache_multiplier } = this.#weights
    return overlap_score_credit * decay * this.#gpu + this.#lower + shared_cache_multiplier * this.#shared
  }

  /** Prompt tokens that count as cached for as long as the request is prefilled. */
  tokens(blockSize: number): number {
    return Math.round((this.#gpu + this.#lower) * blockSize)
  }

  /** What is left of a prompt once those are taken off. */
  uncachedTokens({ promptTokens, uncachedTokens, held }: Dispatch): number {
    if (held === undefined) return uncachedTokens
    const cached = Math.round((held.gpu + this.#lowerTiers(held.host, held.disk)) * held.blockSize)
    return Math.max(0, promptTokens - cached)
  }

  #lowerTiers(host: number, disk: number): number {
    return this.#weights.host_cache_hit_weight * host + this.#weights.disk_cache_hit_weight * disk
  }
}
