import type { AgreementLimits } from '../workers/agreement.ts'
import type { Worker } from '../workers/worker.ts'
import { Findings, type FindingsParts } from './findings.ts'
import { HitCounters } from './hit-counters.ts'
import type { NativeHash, NativeResult } from './native/result.ts'
import { RecentRoots } from './roots.ts'
import { Share } from './share.ts'
import { Stratum } from './stratum.ts'

/** Reasons of skipped events that are kept of a worker. */
const maxReasons = 32

/** What the check knows of one worker. */
export class WorkerRecord {
  readonly worker: Worker
  readonly findings: Findings
  /** Blocks that its events stored and removed, ever. */
  storedBlocks = 0
  removedBlocks = 0
  /** Times that all that was known of it was dropped. */
  clears = 0
  /** When its events were last heard, and when they last removed something; in the router's monotonic milliseconds. */
  heardMs = -Infinity
  removedMs = -Infinity
  /** Events that had to be passed over, and for which reasons. */
  skips = 0
  readonly skipReasons = new Set<string>()
  readonly roots = new RecentRoots()

  configuredBlockSize: number | null = null
  native: NativeResult | { readonly kind: 'pending' } = { kind: 'pending' }
  /** Whether the next first block is to be verified. */
  nativeDue = true
  nativeAtMs = -Infinity
  nativeHash: NativeHash = { algorithm: null, seed: null, adapterPaths: new Map() }

  readonly #strata: readonly Stratum[] = Array.from({ length: 8 }, () => new Stratum())
  /** All of its requests together, which decide whether it is believed. */
  readonly stored: Share
  readonly cached: Share
  readonly hits = new HitCounters()
  /** Which way the latest predictions were wrong: above 0, more was predicted than found. */
  lean = 0
  /** Requests in a row that must have stored blocks while its events told nothing, and since when. */
  silent = 0
  silentSinceMs = 0
  /** Whether its events are subscribed to, when they were last known to be live, and answers since. */
  listens = false
  liveMs: number
  answeredBlind = 0
  /** Answers in a row that could have reported cached tokens and did not. */
  unreported = 0
  /** Whether an answer ever reported some. */
  reportsHits = false

  constructor(worker: Worker, nowMs: number, { requests }: AgreementLimits, parts: FindingsParts) {
    this.worker = worker
    this.findings = new Findings(worker, parts)
    this.liveMs = nowMs
    this.stored = new Share(requests)
    this.cached = new Share(requests)
  }

  heard(nowMs: number, storedBlocks: number, removedBlocks: number): void {
    this.heardMs = nowMs
    this.silent = 0
    this.storedBlocks += storedBlocks
    if (removedBlocks === 0) return
    this.removedBlocks += removedBlocks
    this.removedMs = nowMs
  }

  skipped(reason: string, count: number): void {
    this.skips += count
    if (this.skipReasons.size < maxReasons) this.skipReasons.add(reason)
  }

  /** What was told says nothing about what there is now. */
  cleared(): void {
    this.clears++
    this.silent = 0
    this.reportsHits = false
    this.nativeDue = true
    this.roots.clear()
  }

  get strata(): readonly Stratum[] {
    return this.#strata
  }

  /** The requests of one sort: a fault of salted ones, say, must not drown in the others' health. */
  stratum({ adapter, salt, chat }: { adapter: string | null; salt: string | null; chat: boolean }): Stratum {
    return this.#strata[(adapter === null ? 0 : 1) | (salt === null ? 0 : 2) | (chat ? 4 : 0)] as Stratum
  }

  forgetJudgements(): void {
    for (const stratum of this.#strata) stratum.forget()
    this.stored.forget()
    this.cached.forget()
    this.lean = 0
  }
}
