import { blocksOf } from '../kv/tier.ts'
import { freshLoad, type InFlightFigures } from '../workers/fleet-load.ts'
import type { StoreRef, Worker } from '../workers/worker.ts'
import { heldBlocks, type HeldBlocks } from './held-blocks.ts'
import { TierCredit } from './tier-credit.ts'
import type { HeldOnWorker, PolicyFleet, PolicyMatch } from './policy.ts'

/** The prefix match of every worker by slot, as the map fills it. */
export interface MatchBySlot {
  readonly gpu: Uint32Array
  readonly host: Uint32Array
  readonly disk: Uint32Array
  readonly shared: Uint32Array
  /** Blocks directly behind these that are on their way to the worker. */
  readonly coming: Uint32Array
}

export interface GatherOptions {
  readonly nowMs: number
  /** Age beyond which an engine's load figure is not used. */
  readonly staleLoadMs: number
  /** 0 where the prompt was not tokenized: nobody gets credit then. */
  readonly promptTokens: number
  /** The one that the request asks for. */
  readonly adapter?: string | null
  /** Stores that every worker of the pool reaches. */
  readonly stores?: readonly StoreRef[]
}

const noStores: readonly StoreRef[] = []

/**
 * The candidates of one decision in the arrays that policies read. Allocated once per pool and filled anew for each
 * decision: no garbage on the hot path.
 */
export class Candidates implements PolicyFleet, PolicyMatch {
  count = 0
  readonly workers: Worker[] = []
  readonly ids: string[] = []
  readonly labels: Readonly<Record<string, string>>[] = []
  readonly serials: Int32Array
  readonly requests: Int32Array
  readonly prefillTokens: Int32Array
  readonly decodeBlocks: Int32Array
  readonly running: Float64Array
  readonly waiting: Float64Array
  readonly kvUsage: Float64Array
  readonly foreignRequests: Float64Array
  readonly foreignWaiting: Float64Array
  readonly loadAgeMs: Float64Array
  readonly capacityBlocks: Float64Array
  readonly blockSize: Float64Array
  readonly hasAdapter: Uint8Array
  readonly gpu: Uint32Array
  readonly host: Uint32Array
  readonly disk: Uint32Array
  readonly shared: Uint32Array
  readonly coming: Uint32Array
  readonly cachedTokens: Float64Array
  readonly comingTokens: Float64Array
  /** What `cachedTokens` would be if every worker were believed. */
  readonly matchedTokens: Float64Array
  readonly exact: Uint8Array
  /** Reused. */
  readonly #held: HeldBlocks = { gpu: 0, host: 0, disk: 0, shared: 0, toldRun: 0 }

  readonly #credit: TierCredit

  constructor(limit: number, credit: TierCredit = new TierCredit()) {
    this.#credit = credit
    this.serials = new Int32Array(limit)
    this.requests = new Int32Array(limit)
    this.prefillTokens = new Int32Array(limit)
    this.decodeBlocks = new Int32Array(limit)
    this.running = new Float64Array(limit)
    this.waiting = new Float64Array(limit)
    this.kvUsage = new Float64Array(limit)
    this.foreignRequests = new Float64Array(limit)
    this.foreignWaiting = new Float64Array(limit)
    this.loadAgeMs = new Float64Array(limit)
    this.capacityBlocks = new Float64Array(limit)
    this.blockSize = new Float64Array(limit)
    this.hasAdapter = new Uint8Array(limit)
    this.gpu = new Uint32Array(limit)
    this.host = new Uint32Array(limit)
    this.disk = new Uint32Array(limit)
    this.shared = new Uint32Array(limit)
    this.coming = new Uint32Array(limit)
    this.cachedTokens = new Float64Array(limit)
    this.comingTokens = new Float64Array(limit)
    this.matchedTokens = new Float64Array(limit)
    this.exact = new Uint8Array(limit)
  }

  /** Takes the workers that may be chosen now, as `Outliers.eligible` names them. */
  gather(workers: readonly Worker[], inFlight: InFlightFigures, match: MatchBySlot, options: GatherOptions): void {
    const { adapter = null } = options
    let i = 0
    for (const worker of workers) {
      const { slot } = worker
      this.workers[i] = worker
      this.ids[i] = worker.id
      this.labels[i] = worker.labels
      this.serials[i] = worker.serial
      this.requests[i] = inFlight.requests(slot)
      this.prefillTokens[i] = inFlight.prefillTokens(slot)
      this.decodeBlocks[i] = inFlight.decodeBlocks(slot)
      const ageMs = worker.load === null ? NaN : options.nowMs - worker.load.atMs
      const load = freshLoad(worker, options.nowMs, options.staleLoadMs)
      this.loadAgeMs[i] = ageMs
      this.running[i] = load?.running ?? NaN
      this.waiting[i] = load?.waiting ?? NaN
      this.kvUsage[i] = load?.kvUsage ?? NaN
      this.foreignRequests[i] = load?.foreignRequests ?? 0
      this.foreignWaiting[i] = load?.foreignWaiting ?? 0
      this.capacityBlocks[i] = worker.capacityBlocks ?? 0
      this.blockSize[i] = worker.blockSize ?? 0
      this.hasAdapter[i] = adapter === null || worker.models?.has(adapter) === true ? 1 : 0
      const held = heldBlocks(worker, options.stores ?? noStores, match, this.#held)
      this.gpu[i] = held.gpu
      this.host[i] = held.host
      this.disk[i] = held.disk
      this.shared[i] = held.shared
      this.exact[i] = worker.exact && held.gpu + held.host + held.disk === held.toldRun ? 1 : 0
      const { gpu, host, disk, shared } = held
      const blocks = gpu + host + disk + shared
      // What is coming follows what the map alone knows; stores may already reach further.
      this.coming[i] = Math.max(0, blocksOf(match, slot) + (match.coming[slot] as number) - blocks)
      const matchedTokens = cappedTokens(worker, blocks, options.promptTokens)
      const soonTokens = cappedTokens(worker, blocks + (this.coming[i] as number), options.promptTokens)
      this.matchedTokens[i] = matchedTokens
      this.cachedTokens[i] = worker.degraded === null ? matchedTokens : 0
      this.comingTokens[i] = worker.degraded === null ? soonTokens - matchedTokens : 0
      i++
    }
    this.count = i
    this.workers.length = i
  }

  /** What is believed of a candidate's own tiers, as a record that may be kept. */
  held(candidate: number): HeldOnWorker {
    const isBelieved = this.workers[candidate]?.degraded === null
    return {
      blockSize: this.blockSize[candidate] as number,
      gpu: isBelieved ? (this.gpu[candidate] as number) : 0,
      host: isBelieved ? (this.host[candidate] as number) : 0,
      disk: isBelieved ? (this.disk[candidate] as number) : 0,
    }
  }

  creditTokens(candidate: number, prefillMsPerToken?: number): number {
    const blockSize = this.blockSize[candidate] as number
    const tokens = this.#held
    tokens.gpu = (this.gpu[candidate] as number) * blockSize
    tokens.host = (this.host[candidate] as number) * blockSize
    tokens.disk = (this.disk[candidate] as number) * blockSize
    tokens.shared = (this.shared[candidate] as number) * blockSize
    return this.#credit.worth(tokens, this.cachedTokens[candidate] as number, prefillMsPerToken)
  }
}

/**
 * Tokens that the worker is predicted to find cached of a prompt. Engines always compute the last token, so the last block
 * that would hold it never counts (vLLM: floor((tokens − 1) / blockSize) blocks).
 */
function cappedTokens({ blockSize }: Worker, blocks: number, promptTokens: number): number {
  if (blockSize === null || promptTokens === 0) return 0
  return Math.min(blocks, Math.floor((promptTokens - 1) / blockSize)) * blockSize
}
