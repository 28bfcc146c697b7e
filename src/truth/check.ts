import type { KeyMaker } from '../kv/keys.ts'
import type { RootBlock } from '../kv/root-block.ts'
import { newPrefixMatch, type MapReader, type PrefixMatch } from '../map/map.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import { agree, type AgreementLimits } from '../workers/agreement.ts'
import type { PrefixCounters } from '../workers/load.ts'
import type { Worker } from '../workers/worker.ts'
import { Diagnosis } from './diagnosis.ts'
import type { Finding } from './findings.ts'
import type { NativeHash } from './native/result.ts'
import { verifyRootBlock } from './native/verify.ts'
import { WorkerRecord } from './record.ts'
import { isHeardAgain, mustTell, noteSilent, watchEvents } from './silence.ts'
import { nameCauses, recentRatio, verdictOf } from './verdict.ts'
import {
  differenceOf,
  isComparable,
  isNone,
  type Answered,
  type Circumstances,
  type Difference,
  type Expected,
  type Sought,
  type Watched,
} from './watched.ts'

export interface TruthTiming {
  /** How long after an answer its events may come. */
  readonly graceMs: number
  /** How long events may be silent while requests store blocks. */
  readonly silentMs: number
  /** Between two verifications of a worker's own block hashes. */
  readonly nativeIntervalMs: number
}

export interface TruthOptions {
  readonly map: MapReader
  readonly keys: KeyMaker
  /** Slots of workers that the map has. */
  readonly slots: number
  readonly agreement: AgreementLimits
  readonly timing: TruthTiming
  /** Monotonic milliseconds. */
  readonly clock: () => number
  readonly wallClock: () => number
  readonly log: Pick<Log, 'warn' | 'error'>
  readonly metrics: Pick<Metrics, 'distrusted' | 'nativeChecks' | 'truthFindings'>
  /** Whether the map may lack blocks that the worker holds: announced before it was listened to, or evicted here. */
  readonly isPartial: (worker: Worker) => boolean
  /** Blocks that the map holds of the worker. */
  readonly heldBlocks: (worker: Worker) => number
}

/** What an engine and its config say about a worker, as it comes up. */
export interface ToldFacts {
  readonly hash: NativeHash
  readonly configuredBlockSize: number | null
  readonly toldBlockSize: number | null
  /** Whether its events are listened to; null: the config wants none. */
  readonly events: boolean | null
}

/** Requests that wait for their events; further ones are not judged. */
const maxPending = 2048
/** Of each worker, those whose blocks are looked for after each batch of its events. */
const maxSought = 8
/** Where nothing excuses a difference. */
const calm: Circumstances = { isWhole: true, heldBlocks: Infinity, removedUnseen: 0 }
/** Without a removal for so long a cache is not full: what it lacks was not evicted just now. */
const notFullMs = 2000
/** Answers without cached tokens until their report is said to be off. */
const leastUnreported = 10

/**
 * Compares what the map says with what requests find and leave behind, one worker at a time, and believes a worker no
 * longer whose predictions fail for no reason that its events tell.
 */
export class TruthCheck {
  readonly #o: TruthOptions
  readonly #records = new Map<Worker, WorkerRecord>()
  readonly #diagnosis: Diagnosis
  readonly #match: PrefixMatch
  #pending: Sought[] = []
  /** By worker, those whose blocks are looked for after each batch of its events. */
  readonly #sought = new Map<Worker, Sought[]>()

  constructor(options: TruthOptions) {
    this.#o = options
    this.#diagnosis = new Diagnosis(options.keys)
    this.#match = newPrefixMatch(options.slots)
  }

  /** A request is about to be sent. Null where nothing can be expected of its worker. */
  watch(worker: Worker, expected: Expected): Watched | null {
    const { blockSize } = worker
    if (blockSize === null) return null
    const record = this.record(worker)
    return {
      ...expected,
      worker,
      record,
      blockSize,
      blocks: Math.floor(Math.max(0, expected.tokens.length - 1) / blockSize),
      sentMs: this.#o.clock(),
      storedBefore: record.storedBlocks,
      removedBefore: record.removedBlocks,
      skipsBefore: record.skips,
      clearsBefore: record.clears,
    }
  }

  /** It is on its way. */
  sent(watched: Watched): void {
    watched.record.hits.sent(watched)
  }

  /** Nothing more comes of it; called also for those that are answered. */
  ended(watched: Watched, answered: boolean): void {
    watched.record.hits.ended(watched, answered)
  }

  /** Whether the worker's hit counters would tell something by now. */
  wantsHits(worker: Worker): boolean {
    return worker.exact && this.record(worker).hits.isDue
  }

  /** The worker's hit counters have just been read. */
  hitsCounted(worker: Worker, counters: PrefixCounters): void {
    const { blockSize } = worker
    if (blockSize === null || !worker.exact) return
    const record = this.record(worker)
    if (record.hits.read(record, counters, blockSize, () => !this.#o.isPartial(worker))) this.#decide(record)
  }

  /** Its answer is complete. */
  answered(watched: Watched, { cachedTokens, stream }: Answered): void {
    const { worker, record } = watched
    const reported = cachedTokens ?? (isUnsaidZero(watched, stream) ? 0 : null)
    const found = reported === null || !watched.reports ? null : Math.floor(reported / watched.blockSize)
    this.#noteReport(watched, cachedTokens, stream)
    const looksUp = watched.generates && record.stratum(watched).isDue && isComparable(watched)
    this.#count(watched, found, looksUp)
    record.hits.answered(watched, found === null ? null : found * watched.blockSize, looksUp)
    if (!isComparable(watched)) return
    const run = looksUp ? this.#run(watched) : null
    const difference = this.#differenceOf(watched, run, found)
    const nowMs = this.#o.clock()
    const isPlain = difference.missing === 0 && difference.over > 0 && nowMs - record.removedMs >= notFullMs
    if (isNone(difference) || isPlain) this.#judge(watched, difference, run, found)
    else if (this.#pending.length < maxPending) {
      const sought = this.#sought.get(worker) ?? []
      const isSought = difference.missing > 0 && sought.length < maxSought
      const removedUnseen = isSought ? record.removedBlocks - watched.removedBefore : null
      const pending = { watched, found, run, answeredMs: nowMs, removedUnseen }
      this.#pending.push(pending)
      if (isSought) this.#sought.set(worker, [...sought, pending])
    }
  }

  /** Judges what had to wait for its events; to be called about ten times a second. */
  tick(): void {
    const nowMs = this.#o.clock()
    const { graceMs, silentMs, nativeIntervalMs } = this.#o.timing
    let due = 0
    for (const pending of this.#pending) {
      if (pending.answeredMs + graceMs > nowMs) break
      due++
      this.#seekNoMore(pending)
      if (isComparable(pending.watched)) this.#judgeLate(pending)
    }
    if (due > 0) this.#pending = this.#pending.slice(due)
    for (const [worker, record] of this.#records) {
      if (nowMs - record.nativeAtMs >= nativeIntervalMs) record.nativeDue = true
      const text = watchEvents(record, nowMs, silentMs)
      if (text !== null) this.#distrust(worker, text, { requests: record.silent })
      else if (isHeardAgain(record)) this.#o.log.warn({ worker: worker.id }, 'KV events of this worker come again')
    }
  }

  /** What a worker's events did. */
  applied(worker: Worker, storedBlocks: number, removedBlocks: number): void {
    const record = this.record(worker)
    record.heard(this.#o.clock(), storedBlocks, removedBlocks)
    // Between the batch that stores its blocks and the one that evicts them, a prompt is there as a whole.
    for (const pending of this.#sought.get(worker) ?? []) if (isComparable(pending.watched)) this.#seek(pending)
  }

  /** The first block of a chain was announced: now and then it is verified by recomputing the engine's name for it. */
  root(worker: Worker, block: RootBlock): void {
    const record = this.record(worker)
    record.roots.add(block)
    if (!record.nativeDue) return
    record.nativeDue = false
    record.nativeAtMs = this.#o.clock()
    const before = record.native
    const result = verifyRootBlock(worker.engine, block, record.nativeHash)
    record.native = result
    this.#o.metrics.nativeChecks.add(1, worker.id, result.kind)
    if (before.kind === 'mismatch') record.findings.remove(before.cause)
    if (result.kind === 'mismatch') record.findings.add(result.cause, { detail: result.found })
  }

  /** The engine tells about itself. */
  told(worker: Worker, { hash, configuredBlockSize, toldBlockSize, events }: ToldFacts): void {
    const record = this.record(worker)
    record.nativeHash = hash
    record.nativeDue = true
    record.listens = events === true
    record.configuredBlockSize = configuredBlockSize
    record.findings.remove('block_size')
    const blockSize = worker.announcedBlockSize ?? toldBlockSize
    if (blockSize !== null) this.announced(worker, blockSize)
    if (events === false) record.findings.add('events_off')
    else record.findings.remove('events_off')
  }

  /** Tokenizing was compared with the engine's own (decision 11), and what differs. */
  probed(worker: Worker, difference: 'template' | 'tokenizer' | null): void {
    const { findings } = this.record(worker)
    for (const cause of ['template', 'tokenizer'] as const) if (cause !== difference) findings.remove(cause)
    if (difference !== null) findings.add(difference, { detail: 'its own /tokenize gives other tokens' })
  }

  /** The size of the blocks that it announces. */
  announced(worker: Worker, blockSize: number): void {
    const record = this.record(worker)
    const { configuredBlockSize: configured } = record
    if (configured === null || configured === blockSize) return
    record.findings.add('block_size', { detail: `configured: ${configured} tokens, the engine’s: ${blockSize}` })
  }

  skipped(worker: Worker, reason: string, count: number): void {
    this.record(worker).skipped(reason, count)
  }

  cleared(worker: Worker): void {
    this.record(worker).cleared()
  }

  forget(worker: Worker): void {
    this.#records.delete(worker)
    this.#sought.delete(worker)
    this.#pending = this.#pending.filter(({ watched }) => watched.worker !== worker)
  }

  record(worker: Worker): WorkerRecord {
    let record = this.#records.get(worker)
    if (record === undefined) {
      record = new WorkerRecord(worker, this.#o.clock(), this.#o.agreement, this.#o)
      this.#records.set(worker, record)
    }
    return record
  }

  /** Findings of all workers. */
  findings(): readonly { readonly worker: Worker; readonly finding: Finding }[] {
    return [...this.#records].flatMap(([worker, { findings }]) =>
      findings.list().map((finding) => ({ worker, finding })),
    )
  }

  #run({ keys, blocks, blockSize, worker }: Watched): number {
    this.#o.map.match([{ blockSize, keys: keys.subarray(0, 2 * blocks) }], this.#match)
    const { gpu, host, disk } = this.#match
    return (gpu[worker.slot] as number) + (host[worker.slot] as number) + (disk[worker.slot] as number)
  }

  #differenceOf(
    watched: Watched,
    run: number | null,
    found: number | null,
    removedUnseen: number | null = null,
  ): Difference {
    const difference = differenceOf(watched, run, found, calm)
    // Asked only where it matters: nearly always nothing is left to explain.
    if (isNone(difference)) return difference
    const { isPartial, heldBlocks } = this.#o
    const { worker, record, removedBefore } = watched
    return differenceOf(watched, run, found, {
      isWhole: !isPartial(worker),
      heldBlocks: heldBlocks(worker),
      removedUnseen: removedUnseen ?? record.removedBlocks - removedBefore,
    })
  }

  #seekNoMore(pending: Sought): void {
    const { worker } = pending.watched
    const left = this.#sought.get(worker)?.filter((other) => other !== pending)
    if (left === undefined) return
    if (left.length > 0) this.#sought.set(worker, left)
    else this.#sought.delete(worker)
  }

  #seek(pending: Sought): void {
    const { watched, run } = pending
    if (run !== null && run >= watched.blocks) return
    pending.run = Math.max(run ?? 0, this.#run(watched))
  }

  #judgeLate(pending: Sought): void {
    const { watched, found, answeredMs } = pending
    if (watched.generates) this.#seek(pending)
    const { run, removedUnseen } = pending
    const difference = this.#differenceOf(watched, run, found, removedUnseen)
    const { record } = watched
    if (difference.missing > 0 && record.heardMs < watched.sentMs && mustTell(watched, found))
      noteSilent(record, answeredMs)
    else this.#judge(watched, difference, run, found)
  }

  #judge(watched: Watched, difference: Difference, run: number | null, found: number | null): void {
    const { worker, record, blocks } = watched
    const stratum = record.stratum(watched)
    if (run !== null && blocks > 0) {
      stratum.stored.add(blocks, difference.missing)
      record.stored.add(blocks, difference.missing)
    }
    const larger = Math.max(Math.min(watched.runBlocks, blocks), found ?? 0)
    // Two zeros agree whatever is wrong.
    if (found !== null && larger > 0) {
      const wrong = Math.max(difference.over, difference.under)
      stratum.cached.add(larger, wrong)
      record.cached.add(larger, wrong)
      record.lean = record.lean * 0.9 + difference.over - difference.under
    }
    const good = isNone(difference)
    const cause = good ? null : this.#diagnosis.causeOf(watched, difference, run)
    if (cause !== null) stratum.blame(cause)
    // While all is well there is nothing to name or to take back.
    if (good && record.findings.size === 0 && worker.degraded === null) return
    nameCauses(record)
    this.#decide(record)
  }

  /** Credits a worker whose predictions fail no longer, loudly, and one whose predictions come true again. */
  #decide(record: WorkerRecord): void {
    const { worker, findings } = record
    const verdict = verdictOf(record, this.#o.agreement)
    if (verdict === 'wrong' && worker.degraded === null) {
      worker.degraded = 'predictions_fail'
      if (findings.grave().length === 0) findings.add(record.lean < 0 ? 'finds_more' : 'finds_less', { judged: true })
      const causes = findings.grave()
      this.#distrust(
        worker,
        `predictions for this worker fail, it is routed by load only; ${causes.map(({ text }) => text).join('; ')}`,
        { recentRatio: Math.round(recentRatio(record) * 100) / 100, causes: causes.map(({ cause }) => cause) },
      )
    } else if (verdict === 'right' && worker.degraded === 'predictions_fail') {
      worker.degraded = null
      this.#o.log.warn({ worker: worker.id }, 'predictions for this worker come true again')
    } else return
    record.forgetJudgements()
  }

  #distrust(worker: Worker, text: string, fields: object): void {
    this.#o.metrics.distrusted.add(1, worker.id)
    this.#o.log.error({ worker: worker.id, ...fields }, text)
  }

  #count(
    { worker, record, runBlocks, sharedBlocks, comingBlocks, blocks, blockSize }: Watched,
    found: number | null,
    looksUp: boolean,
  ) {
    const { agreement } = worker
    agreement.requests++
    if (!worker.exact) record.answeredBlind++
    if (looksUp || found !== null) agreement.verified++
    if (found === null) return
    const reach = Math.min(runBlocks + sharedBlocks, blocks)
    // What was on its way is a prediction as far as it came, and else no fault of the map.
    const predicted = Math.max(reach, Math.min(found, reach + comingBlocks))
    agree(agreement, predicted * blockSize, found * blockSize)
  }

  #noteReport(
    { record, generates, reports, runBlocks, blocks }: Watched,
    cachedTokens: number | null,
    stream: boolean,
  ) {
    if (cachedTokens !== null) {
      if (record.unreported >= leastUnreported) record.findings.remove('details_off')
      record.unreported = 0
      if (cachedTokens > 0) record.reportsHits = true
    } else if (generates && reports && !stream && Math.min(runBlocks, blocks) > 0) {
      // An engine that is expected to have found something says how much, if it ever says it.
      if (++record.unreported === leastUnreported && !record.reportsHits) record.findings.add('details_off')
    }
  }
}

/** SGLang tells of cached tokens only where there are any; that it does so at all it must have shown. */
function isUnsaidZero({ worker, record, generates }: Watched, stream: boolean): boolean {
  return worker.engine === 'sglang' && record.reportsHits && generates && !stream
}
