import type { Candidates } from './candidates.ts'
import type { Profile } from './profile.ts'

/** The record of one routing choice and its reasons, as /admin/decisions and /admin/explain answer it. */
export interface DecisionRecord {
  readonly requestId: string
  readonly time: string
  readonly pool: string
  readonly model: string
  readonly profile: string
  readonly attempt: number
  readonly promptTokens: number
  readonly blocks: number
  readonly candidates: readonly CandidateRecord[]
  readonly chosen: string
  readonly reason: string
  readonly fallback?: string
  /** The profile that chose in place of the pool's own; absent where that one did. */
  readonly usedProfile?: string
  readonly predictedCachedTokens: number
  readonly actualCachedTokens?: number
  readonly timingsUs: {
    readonly tokenize: number
    readonly keys: number
    readonly match: number
    readonly choose: number
  }
}

export interface CandidateRecord {
  readonly worker: string
  readonly matchedBlocks: {
    readonly gpu: number
    readonly host: number
    readonly disk: number
    readonly shared: number
  }
  /** Blocks directly behind these that a request under way is computing; absent where there are none. */
  readonly comingBlocks?: number
  /** False where the match is concluded from what the worker was sent, not from its events. */
  readonly exact: boolean
  readonly load: {
    readonly requests: number
    readonly prefillTokens: number
    readonly decodeBlocks: number
    readonly running?: number
    readonly waiting?: number
    readonly kvUsage?: number
    /** Running and waiting requests of others than this router; absent where there are none, or none known. */
    readonly foreignRequests?: number
    readonly ageMs?: number
  }
  readonly scores: Readonly<Record<string, number>>
  readonly total: number
  readonly filteredBy?: string
}

/** What a decision was made from, beside the candidates and the profile. */
export interface DecisionFacts {
  readonly requestId: string
  readonly pool: string
  readonly model: string
  readonly attempt: number
  readonly timeMs: number
  readonly promptTokens: number
  readonly blocks: number
  readonly chosen: number
  readonly reason: string
  readonly fallback: string | null
  readonly predictedCachedTokens: number
  readonly tokenizeUs: number
  readonly keysUs: number
  readonly matchUs: number
  readonly chooseUs: number
}

/** Candidates kept of one decision: all up to this many, then the best ones. */
const keptCandidates = 64
const factFields = 12
const scoresKept = 4
const candidateFields = 17 + scoresKept

/**
 * The last decisions, in typed arrays so that keeping them makes no garbage (decision 18); JSON is built when somebody
 * asks. A ticket names a decision until it is overwritten.
 */
export class DecisionLog {
  readonly #capacity: number
  readonly #facts: Float64Array
  readonly #candidates: Float64Array
  readonly #text: {
    requestId: string
    pool: string
    model: string
    reason: string
    fallback: string | null
    profile: Profile | null
    /** Of the profile, or of the one that chose in its place. */
    used: Profile | null
  }[]
  /** Names by serial; a worker that is long gone may lose its name before its last decisions do. */
  readonly #names = new Map<number, string>()
  readonly #order: Uint32Array
  #next = 0

  constructor(capacity: number, workers: number) {
    this.#capacity = capacity
    this.#facts = new Float64Array(capacity * factFields)
    this.#candidates = new Float64Array(capacity * keptCandidates * candidateFields)
    this.#order = new Uint32Array(workers)
    this.#text = Array.from({ length: capacity }, () => ({
      requestId: '',
      pool: '',
      model: '',
      reason: '',
      fallback: null,
      profile: null,
      used: null,
    }))
  }

  /** Keeps a decision; the answer is its ticket for `actual`. */
  keep(facts: DecisionFacts, candidates: Candidates, profile: Profile): number {
    const ticket = this.#next++
    const at = ticket % this.#capacity
    const text = this.#text[at]
    if (text === undefined) throw new RangeError('decision log index')
    text.requestId = facts.requestId
    text.pool = facts.pool
    text.model = facts.model
    text.reason = facts.reason
    text.fallback = facts.fallback
    text.profile = profile
    text.used = profile.used
    const kept = this.#keepCandidates(at, facts.chosen, candidates, profile)
    this.#facts.set(
      [
        facts.timeMs,
        facts.attempt,
        facts.promptTokens,
        facts.blocks,
        kept,
        facts.predictedCachedTokens,
        -1,
        candidates.serials[facts.chosen] as number,
        facts.tokenizeUs,
        facts.keysUs,
        facts.matchUs,
        facts.chooseUs,
      ],
      at * factFields,
    )
    return ticket
  }

  /** Adds what the worker reported, unless the decision has been overwritten. */
  actual(ticket: number, cachedTokens: number): void {
    if (ticket >= this.#next - this.#capacity) this.#facts[(ticket % this.#capacity) * factFields + 6] = cachedTokens
  }

  /** The newest first. */
  latest(limit: number): DecisionRecord[] {
    const records: DecisionRecord[] = []
    for (
      let ticket = this.#next - 1;
      ticket >= Math.max(0, this.#next - this.#capacity) && records.length < limit;
      ticket--
    ) {
      records.push(this.#record(ticket))
    }
    return records
  }

  /** The last attempt of a request. */
  find(requestId: string): DecisionRecord | null {
    for (let ticket = this.#next - 1; ticket >= Math.max(0, this.#next - this.#capacity); ticket--) {
      if (this.#text[ticket % this.#capacity]?.requestId === requestId) return this.#record(ticket)
    }
    return null
  }

  #keepCandidates(at: number, chosen: number, candidates: Candidates, profile: Profile): number {
    const { totals, filteredBy, scores } = profile.used
    const order = this.#order
    for (let i = 0; i < candidates.count; i++) order[i] = i
    if (candidates.count > keptCandidates) {
      const all = order.subarray(0, candidates.count)
      all.sort((a, b) => (totals[b] as number) - (totals[a] as number))
      if (all.indexOf(chosen) >= keptCandidates) order[keptCandidates - 1] = chosen
    }
    const kept = Math.min(candidates.count, keptCandidates)
    const out = this.#candidates
    for (let row = 0; row < kept; row++) {
      const i = order[row] as number
      let field = (at * keptCandidates + row) * candidateFields
      const serial = candidates.serials[i] as number
      if (this.#names.get(serial) === undefined) this.#remember(serial, candidates.ids[i] ?? '')
      out[field++] = serial
      out[field++] = candidates.gpu[i] as number
      out[field++] = candidates.host[i] as number
      out[field++] = candidates.disk[i] as number
      out[field++] = candidates.shared[i] as number
      out[field++] = candidates.exact[i] as number
      out[field++] = candidates.requests[i] as number
      out[field++] = candidates.prefillTokens[i] as number
      out[field++] = candidates.decodeBlocks[i] as number
      out[field++] = candidates.running[i] as number
      out[field++] = candidates.waiting[i] as number
      out[field++] = candidates.kvUsage[i] as number
      out[field++] = candidates.loadAgeMs[i] as number
      out[field++] = totals[i] as number
      const own = profile.filteredBy[i] as number
      const further = filteredBy[i] as number
      out[field++] = own >= 0 || further < 0 ? own : further + profile.filterTypes.length
      out[field++] = candidates.coming[i] as number
      out[field++] = candidates.foreignRequests[i] as number
      for (let scorer = 0; scorer < scoresKept; scorer++) out[field++] = scores[scorer]?.[i] ?? NaN
    }
    return kept
  }

  #remember(serial: number, id: string): void {
    if (this.#names.size >= 16_384) this.#names.delete(this.#names.keys().next().value ?? 0)
    this.#names.set(serial, id)
  }

  #record(ticket: number): DecisionRecord {
    const at = ticket % this.#capacity
    const text = this.#text[at]
    const profile = text?.profile ?? null
    const used = text?.used ?? null
    if (text === undefined || profile === null || used === null) throw new RangeError('decision log index')
    const facts = this.#facts.subarray(at * factFields, (at + 1) * factFields)
    const fact = (index: number): number => facts[index] as number
    const name = (serial: number): string => this.#names.get(serial) ?? `worker ${serial}`
    const candidates = Array.from({ length: fact(4) }, (_, row) => {
      const start = (at * keptCandidates + row) * candidateFields
      return candidateRecord(this.#candidates.subarray(start, start + candidateFields), profile, used, name)
    })
    return {
      requestId: text.requestId,
      time: new Date(fact(0)).toISOString(),
      pool: text.pool,
      model: text.model,
      profile: profile.name,
      attempt: fact(1),
      promptTokens: fact(2),
      blocks: fact(3),
      candidates,
      chosen: name(fact(7)),
      reason: text.reason,
      ...(text.fallback === null ? {} : { fallback: text.fallback }),
      ...(used === profile ? {} : { usedProfile: used.name }),
      predictedCachedTokens: fact(5),
      ...(fact(6) < 0 ? {} : { actualCachedTokens: fact(6) }),
      timingsUs: {
        tokenize: rounded(fact(8)),
        keys: rounded(fact(9)),
        match: rounded(fact(10)),
        choose: rounded(fact(11)),
      },
    }
  }
}

function candidateRecord(
  row: Float64Array,
  profile: Profile,
  used: Profile,
  name: (serial: number) => string,
): CandidateRecord {
  const at = (index: number): number => row[index] as number
  const known = (key: string, index: number): object => (Number.isNaN(at(index)) ? {} : { [key]: rounded(at(index)) })
  const filteredBy = [...profile.filterTypes, ...used.filterTypes][at(14)]
  return {
    worker: name(at(0)),
    matchedBlocks: { gpu: at(1), host: at(2), disk: at(3), shared: at(4) },
    ...(at(15) === 0 ? {} : { comingBlocks: at(15) }),
    exact: at(5) === 1,
    load: {
      requests: at(6),
      prefillTokens: at(7),
      decodeBlocks: at(8),
      ...known('running', 9),
      ...known('waiting', 10),
      ...known('kvUsage', 11),
      ...(at(16) === 0 ? {} : { foreignRequests: at(16) }),
      ...known('ageMs', 12),
    },
    scores: Object.fromEntries(
      used.scorerTypes.slice(0, scoresKept).map((type, index) => [type, rounded(at(17 + index))]),
    ),
    total: rounded(at(13)),
    ...(filteredBy === undefined ? {} : { filteredBy }),
  }
}

function rounded(value: number): number {
  return Math.round(value * 1000) / 1000
}
