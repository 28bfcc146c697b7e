import type {
  Dispatch,
  Filter,
  Picker,
  PolicyFleet,
  PolicyHooks,
  PolicyMatch,
  PolicyRequest,
  Scorer,
} from './policy.ts'

export interface ProfileParts {
  readonly name: string
  readonly filters: readonly { readonly type: string; readonly filter: Filter }[]
  readonly scorers: readonly { readonly type: string; readonly scorer: Scorer; readonly weight: number }[]
  readonly picker: { readonly type: string; readonly picker: Picker }
}

/** Counts what a plugin did wrong; the request goes on without it. */
export type PluginFault = (plugin: string, error: unknown) => void

/**
 * A routing profile: filters, then weighted scorers, then a picker. One instance per pool and request thread.
 * The results of the last `choose` stay readable in `totals`, `scores`, `keep` and `filteredBy` until the next call.
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
  readonly #parts: ProfileParts
  readonly #hooks: readonly (readonly [string, PolicyHooks])[]
  readonly #fault: PluginFault

  constructor(parts: ProfileParts, workers: number, fault: PluginFault) {
    this.name = parts.name
    this.#parts = parts
    this.#fault = fault
    this.scorerTypes = parts.scorers.map(({ type }) => type)
    this.filterTypes = parts.filters.map(({ type }) => type)
    this.totals = new Float64Array(workers)
    this.scores = parts.scorers.map(() => new Float64Array(workers))
    this.keep = new Uint8Array(workers)
    this.filteredBy = new Int8Array(workers)
    const hooked: (readonly [string, PolicyHooks])[] = [
      ...parts.filters.map(({ type, filter }) => [type, filter] as const),
      ...parts.scorers.map(({ type, scorer }) => [type, scorer] as const),
      [parts.picker.type, parts.picker.picker] as const,
    ]
    this.#hooks = hooked.filter(
      ([, hooks]) => 'onDispatched' in hooks || 'onFirstByte' in hooks || 'onFinished' in hooks,
    )
  }

  /** Index of the chosen candidate; `fleet.count` is at least 1. */
  choose(request: PolicyRequest, fleet: PolicyFleet, match: PolicyMatch): number {
    const { totals, keep, filteredBy } = this
    keep.fill(1, 0, fleet.count)
    filteredBy.fill(-1, 0, fleet.count)
    totals.fill(0, 0, fleet.count)
    this.#filter(request, fleet, match)
    const { scorers } = this.#parts
    for (let index = 0; index < scorers.length; index++) {
      const { type, scorer, weight } = scorers[index] as (typeof scorers)[number]
      const out = this.scores[index] as Float64Array
      out.fill(0, 0, fleet.count)
      try {
        scorer.score(request, fleet, match, out)
      } catch (error) {
        this.#fault(type, error)
        out.fill(0, 0, fleet.count)
      }
      for (let i = 0; i < fleet.count; i++) {
        const score = out[i] as number
        // A plugin that answers NaN must not make a worker unbeatable or unusable.
        totals[i] = (totals[i] as number) + (Number.isNaN(score) ? 0 : score * weight)
      }
    }
    return this.#pick(request, fleet, match)
  }

  dispatched(dispatch: Dispatch): void {
    this.#each((hooks) => hooks.onDispatched?.(dispatch))
  }

  firstByte(dispatch: Dispatch, ttftMs: number): void {
    this.#each((hooks) => hooks.onFirstByte?.(dispatch, ttftMs))
  }

  finished(dispatch: Dispatch): void {
    this.#each((hooks) => hooks.onFinished?.(dispatch))
  }

  #filter(request: PolicyRequest, fleet: PolicyFleet, match: PolicyMatch): void {
    const { keep, filteredBy } = this
    for (const [index, { type, filter }] of this.#parts.filters.entries()) {
      try {
        filter.filter(request, fleet, match, keep)
      } catch (error) {
        this.#fault(type, error)
      }
      let kept = 0
      for (let i = 0; i < fleet.count; i++) {
        if (keep[i] === 1) kept++
        else if (filteredBy[i] === -1) filteredBy[i] = index
      }
      if (kept > 0) continue
      // A filter that refuses everyone would turn a busy fleet into an outage; its verdict is dropped instead.
      for (let i = 0; i < fleet.count; i++) {
        if (filteredBy[i] !== index) continue
        keep[i] = 1
        filteredBy[i] = -1
      }
    }
  }

  #pick(request: PolicyRequest, fleet: PolicyFleet, match: PolicyMatch): number {
    try {
      const picked = this.#parts.picker.picker.pick(request, fleet, match, this.totals, this.keep)
      if (Number.isInteger(picked) && picked >= 0 && picked < fleet.count && this.keep[picked] === 1) return picked
      this.#fault(this.#parts.picker.type, new Error(`picked ${picked} of ${fleet.count}`))
    } catch (error) {
      this.#fault(this.#parts.picker.type, error)
    }
    return bestOf(this.totals, this.keep, fleet.count)
  }

  #each(call: (hooks: PolicyHooks) => void): void {
    for (const [type, hooks] of this.#hooks) {
      try {
        call(hooks)
      } catch (error) {
        this.#fault(type, error)
      }
    }
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
