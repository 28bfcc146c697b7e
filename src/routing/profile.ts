import type {
  Dispatch,
  Fallback,
  Filter,
  Picker,
  PolicyFleet,
  PolicyHooks,
  PolicyMatch,
  PolicyRequest,
  Scorer,
} from './policy.ts'
import type { PluginGuard } from './plugin-guard.ts'

export interface ProfileParts {
  readonly name: string
  readonly filters: readonly { readonly guard: PluginGuard; readonly filter: Filter; readonly reason: string | null }[]
  readonly fallbacks: readonly {
    readonly guard: PluginGuard
    readonly fallback: Fallback
    readonly reason: string
    /** Chooses where the fallback applies. */
    readonly use: Profile
  }[]
  readonly scorers: readonly { readonly guard: PluginGuard; readonly scorer: Scorer; readonly weight: number }[]
  readonly picker: { readonly guard: PluginGuard; readonly picker: Picker }
}

/**
 * A routing profile: filters, then fallbacks, of which the first that applies hands the choice to another profile, then
 * weighted scorers, then a picker. One instance per pool and request thread. The results of the last `choose` stay readable
 * in `used` until the next call.
 */
export class Profile {
  readonly name: string
  readonly scorerTypes: readonly string[]
  readonly totals: Float64Array
  /** By scorer, then candidate. */
  readonly scores: readonly Float64Array[]
  readonly keep: Uint8Array
  /** Index of the filter that refused the candidate, −1 where none did. */
  readonly filteredBy: Int8Array
  readonly filterTypes: readonly string[]
  /** The profile that made the last choice: this one, or that of a fallback. */
  used: Profile = this
  /** Why the last choice did not go by the longest match, where a plugin says so. */
  fallback: string | null = null
  /** The filter that left no candidate, where the last choice was none. */
  refusedBy: string | null = null
  readonly #parts: ProfileParts
  readonly #hooks: readonly (readonly [PluginGuard, PolicyHooks])[]
  readonly #onDispatched: readonly (readonly [PluginGuard, PolicyHooks])[]
  readonly #onFirstByte: readonly (readonly [PluginGuard, PolicyHooks])[]
  readonly #onFinished: readonly (readonly [PluginGuard, PolicyHooks])[]

  constructor(parts: ProfileParts, workers: number) {
    this.name = parts.name
    this.#parts = parts
    this.scorerTypes = parts.scorers.map(({ guard }) => guard.type)
    this.filterTypes = parts.filters.map(({ guard }) => guard.type)
    this.totals = new Float64Array(workers)
    this.scores = parts.scorers.map(() => new Float64Array(workers))
    this.keep = new Uint8Array(workers)
    this.filteredBy = new Int8Array(workers)
    this.#hooks = [
      ...parts.filters.map(({ guard, filter }) => [guard, filter] as const),
      ...parts.fallbacks.map(({ guard, fallback }) => [guard, fallback] as const),
      ...parts.fallbacks.flatMap(({ use }) => use.#hooks),
      ...parts.scorers.map(({ guard, scorer }) => [guard, scorer] as const),
      [parts.picker.guard, parts.picker.picker] as const,
    ]
    this.#onDispatched = this.#hooks.filter(([, hooks]) => hooks.onDispatched !== undefined)
    this.#onFirstByte = this.#hooks.filter(([, hooks]) => hooks.onFirstByte !== undefined)
    this.#onFinished = this.#hooks.filter(([, hooks]) => hooks.onFinished !== undefined)
  }

  /** Index of the chosen candidate, or −1 where a required filter leaves none; `fleet.count` is at least 1. */
  choose(request: PolicyRequest, fleet: PolicyFleet, match: PolicyMatch): number {
    this.keep.fill(1, 0, fleet.count)
    return this.#choose(request, fleet, match)
  }

  /** The time to first token that the last choice expects of a candidate; null where nothing predicts one. */
  predictedMs(candidate: number): number | null {
    for (const { guard, scorer } of this.used.#parts.scorers) {
      if (scorer.predictedMs === undefined) continue
      try {
        const ms = scorer.predictedMs(candidate)
        return ms >= 0 ? ms : null
      } catch (error) {
        guard.failed(error)
      }
    }
    return null
  }

  dispatched(dispatch: Dispatch): void {
    for (const [guard, hooks] of this.#onDispatched) {
      const startMs = guard.enter()
      if (Number.isNaN(startMs)) continue
      try {
        hooks.onDispatched?.(dispatch)
        guard.done(startMs)
      } catch (error) {
        guard.failed(error)
      }
    }
  }

  firstByte(dispatch: Dispatch, ttftMs: number): void {
    for (const [guard, hooks] of this.#onFirstByte) {
      const startMs = guard.enter()
      if (Number.isNaN(startMs)) continue
      try {
        hooks.onFirstByte?.(dispatch, ttftMs)
        guard.done(startMs)
      } catch (error) {
        guard.failed(error)
      }
    }
  }

  finished(dispatch: Dispatch): void {
    for (const [guard, hooks] of this.#onFinished) {
      const startMs = guard.enter()
      if (Number.isNaN(startMs)) continue
      try {
        hooks.onFinished?.(dispatch)
        guard.done(startMs)
      } catch (error) {
        guard.failed(error)
      }
    }
  }

  /** Among the candidates that `keep` names. */
  #choose(request: PolicyRequest, fleet: PolicyFleet, match: PolicyMatch): number {
    this.used = this
    this.fallback = null
    this.refusedBy = null
    this.totals.fill(0, 0, fleet.count)
    this.filteredBy.fill(-1, 0, fleet.count)
    if (!this.#filter(request, fleet, match)) return -1
    for (const { guard, fallback, reason, use } of this.#parts.fallbacks) {
      const startMs = guard.enter()
      if (Number.isNaN(startMs)) continue
      try {
        const applies = fallback.applies(request, fleet, match, this.keep)
        guard.done(startMs)
        if (!applies) continue
      } catch (error) {
        guard.failed(error)
        continue
      }
      use.keep.set(this.keep.subarray(0, fleet.count))
      const chosen = use.#choose(request, fleet, match)
      this.used = use.used
      this.fallback = use.fallback ?? reason
      this.refusedBy = use.refusedBy
      return chosen
    }
    this.#score(request, fleet, match)
    return this.#pick(request, fleet, match)
  }

  /** False where a required filter leaves no candidate: it is the one that `refusedBy` names. */
  #filter(request: PolicyRequest, fleet: PolicyFleet, match: PolicyMatch): boolean {
    const { keep, filteredBy } = this
    const { filters } = this.#parts
    if (filters.length === 0) return true
    for (let index = 0; index < filters.length; index++) {
      const { guard, filter } = filters[index] as (typeof filters)[number]
      const startMs = guard.enter()
      if (Number.isNaN(startMs)) continue
      try {
        filter.filter(request, fleet, match, keep)
        guard.done(startMs)
      } catch (error) {
        guard.failed(error)
      }
      let kept = 0
      for (let i = 0; i < fleet.count; i++) {
        if (keep[i] === 1) kept++
        else if (filteredBy[i] === -1) filteredBy[i] = index
      }
      if (kept > 0) continue
      if (filter.required === true) {
        this.refusedBy = guard.type
        return false
      }
      // A filter that refuses everyone would turn a busy fleet into an outage; its verdict is dropped instead.
      for (let i = 0; i < fleet.count; i++) {
        if (filteredBy[i] !== index) continue
        keep[i] = 1
        filteredBy[i] = -1
      }
    }
    this.fallback = this.#filteredMatch(fleet, match)
    return true
  }

  /** Why a worker with a longer match than all that are left was left out; null where none was. */
  #filteredMatch({ count }: PolicyFleet, { cachedTokens }: PolicyMatch): string | null {
    let left = 0
    let longest = 0
    let by = -1
    for (let i = 0; i < count; i++) {
      const cached = cachedTokens[i] as number
      if (this.keep[i] === 1) left = Math.max(left, cached)
      else if (cached > longest) {
        longest = cached
        by = this.filteredBy[i] as number
      }
    }
    return longest > left ? (this.#parts.filters[by]?.reason ?? null) : null
  }

  #score(request: PolicyRequest, fleet: PolicyFleet, match: PolicyMatch): void {
    const { totals } = this
    const { scorers } = this.#parts
    for (let index = 0; index < scorers.length; index++) {
      const { guard, scorer, weight } = scorers[index] as (typeof scorers)[number]
      const out = this.scores[index] as Float64Array
      out.fill(0, 0, fleet.count)
      const startMs = guard.enter()
      if (Number.isNaN(startMs)) continue
      try {
        scorer.score(request, fleet, match, out, this.keep)
        guard.done(startMs)
      } catch (error) {
        guard.failed(error)
        out.fill(0, 0, fleet.count)
      }
      for (let i = 0; i < fleet.count; i++) {
        const score = out[i] as number
        // A plugin that answers NaN must not make a worker unbeatable or unusable.
        totals[i] = (totals[i] as number) + (Number.isNaN(score) ? 0 : score * weight)
      }
    }
  }

  #pick(request: PolicyRequest, fleet: PolicyFleet, match: PolicyMatch): number {
    const { guard, picker } = this.#parts.picker
    const startMs = guard.enter()
    if (!Number.isNaN(startMs)) {
      try {
        const picked = picker.pick(request, fleet, match, this.totals, this.keep)
        guard.done(startMs)
        if (Number.isInteger(picked) && picked >= 0 && picked < fleet.count && this.keep[picked] === 1) return picked
        guard.failed(new Error(`picked ${picked} of ${fleet.count}`))
      } catch (error) {
        guard.failed(error)
      }
    }
    return bestOf(this.totals, this.keep, fleet.count)
  }
}

/** First kept candidate with the highest total. */
function bestOf(totals: Float64Array, keep: Uint8Array, count: number): number {
  let best = -1
  for (let i = 0; i < count; i++) {
    if (keep[i] === 1 && (best === -1 || (totals[i] as number) > (totals[best] as number))) best = i
  }
  return best
}
