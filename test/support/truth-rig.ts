import { Ingest } from '../../src/events/ingest.ts'
import type { WorkerSlot } from '../../src/kv/batch.ts'
import type { KeyMaker } from '../../src/kv/keys.ts'
import { PromptKeys } from '../../src/kv/prompt-keys.ts'
import { FlatMap } from '../../src/map/flat-map.ts'
import type { PrefixMatch } from '../../src/map/map.ts'
import type { EngineOptions } from '../../src/simulator/engine-options.ts'
import { Engine } from '../../src/simulator/engine.ts'
import { encodeBatch } from '../../src/simulator/event-encoding.ts'
import { takenAs, toldAs, type Misreport } from '../../src/simulator/misreport.ts'
import type { KvEvent } from '../../src/simulator/kv-event.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import { TruthCheck } from '../../src/truth/check.ts'
import type { Watched } from '../../src/truth/watched.ts'
import type { Worker } from '../../src/workers/worker.ts'
import { countingCounters } from '../events/counting.ts'
import { collectingLog, type LogLine } from './fleet.ts'
import { aWorker } from './routing.ts'

export interface TruthRigOptions {
  readonly keys: KeyMaker
  readonly random: () => number
  readonly engine?: Partial<EngineOptions>
  readonly misreport?: readonly Misreport[]
  /** Whether answers report cached tokens. */
  readonly reports?: boolean
  /** What the engine's template makes of our tokens of a chat. */
  readonly template?: (tokens: Uint32Array) => Uint32Array
  /** Nothing that the engine tells before is heard, as by a router that comes later and can have nothing repeated. */
  readonly heardFromMs?: number
  /** Longest time that events take to come. */
  readonly eventDelayMs?: number
}

export interface RigRequest {
  readonly tokens: Uint32Array
  readonly outputTokens?: number
  readonly salt?: string
  readonly adapter?: string
  readonly chat?: boolean
  readonly stream?: boolean
  readonly choices?: number
  /** The client leaves after so long. */
  readonly leavesAfterMs?: number
}

/** A simulated engine, its events on their way, the map and the truth check, in virtual time. */
export class TruthRig {
  readonly worker: Worker = aWorker(0, { pool: 'model' })
  readonly log: LogLine[] = []
  readonly truth: TruthCheck
  readonly metrics = createMetrics()
  nowMs = 0
  answered = 0
  readonly #o: TruthRigOptions
  readonly #map = new FlatMap({ budgetBytes: 256 * 1024 * 1024, maxWorkers: 1 })
  readonly #promptKeys: PromptKeys
  readonly #match: PrefixMatch
  readonly #ingest: Ingest
  readonly #onAnswer = new Map<string, { watched: Watched | null; request: RigRequest; left: number }>()
  /** What happens later, ordered by time. */
  #later: { readonly atMs: number; readonly act: () => void }[] = []
  #engine: Engine
  #requests = 0
  #sequence = 0
  #eventsAtMs = 0

  constructor(options: TruthRigOptions) {
    this.#o = options
    this.#promptKeys = new PromptKeys(options.keys)
    const row = (): Uint32Array => new Uint32Array(1)
    this.#match = { gpu: row(), host: row(), disk: row(), shared: row() }
    const slot = 0 as WorkerSlot
    this.#map.addWorker(slot, { countsStores: true, blockSize: 16 })
    this.truth = new TruthCheck({
      map: this.#map,
      keys: options.keys,
      slots: 1,
      agreement: { requests: 30, leastRatio: 0.3, recoveredRatio: 0.6 },
      timing: { graceMs: 1000, silentMs: 5000, nativeIntervalMs: 600_000 },
      clock: () => this.nowMs,
      wallClock: () => this.nowMs,
      log: collectingLog(this.log),
      metrics: this.metrics,
      isPartial: () => options.heardFromMs !== undefined,
      heldBlocks: () => this.#map.workerBlocks(slot).gpu,
    })
    this.#ingest = new Ingest({
      worker: slot,
      map: this.#map,
      keys: options.keys,
      model: 'model',
      blockSize: 16,
      countsStores: true,
      counters: {
        ...countingCounters().counters,
        skipped: (reason, count) => this.truth.skipped(this.worker, reason, count),
      },
      onBlockSize: () => undefined,
      witness: {
        applied: (stored, removed) => this.truth.applied(this.worker, stored, removed),
        cleared: () => this.truth.cleared(this.worker),
        root: (block) => this.truth.root(this.worker, block),
      },
    })
    this.#ingest.clear('distrust')
    this.#engine = this.#newEngine()
  }

  /** Causes that are named now. */
  get causes(): readonly string[] {
    return this.truth
      .record(this.worker)
      .findings.list()
      .map(({ cause }) => cause)
  }

  /** Sends a request now. */
  send(request: RigRequest): void {
    const { tokens, salt = null, adapter = null, chat = false, choices = 1, outputTokens = 8 } = request
    const keys = this.#promptKeys.of(tokens, { model: 'model', adapter, blockSize: 16, cacheSalt: salt })
    this.#map.match([{ blockSize: 16, keys }], this.#match)
    const watched = this.truth.watch(this.worker, {
      keys,
      tokens,
      runBlocks: this.#match.gpu[0] as number,
      sharedBlocks: 0,
      comingBlocks: 0,
      adapter,
      salt,
      chat,
      generates: true,
      reports: choices === 1,
    })
    if (watched !== null) this.truth.sent(watched)
    const id = String(this.#requests++)
    this.#onAnswer.set(id, { watched, request, left: choices })
    for (let choice = 0; choice < choices; choice++) {
      this.#engine.add(
        takenAs(
          {
            id: `${id} ${choice}`,
            tokens: chat ? (this.#o.template?.(tokens) ?? tokens) : tokens,
            outputTokens,
            choice,
            ...(salt === null ? {} : { cacheSalt: salt }),
            ...(adapter === null ? {} : { lora: { name: adapter, id: 1, path: `/adapters/${adapter}` } }),
          },
          this.#o.misreport ?? [],
        ),
        this.nowMs,
      )
    }
    if (request.leavesAfterMs !== undefined) {
      this.#after(request.leavesAfterMs, () => {
        if (!this.#onAnswer.delete(id)) return
        if (watched !== null) this.truth.ended(watched, false)
        for (let choice = 0; choice < choices; choice++) this.#engine.abort(`${id} ${choice}`, this.nowMs)
      })
    }
  }

  /** A request that others send straight to the engine. */
  foreign(tokens: Uint32Array): void {
    this.#engine.add({ id: `foreign ${this.#requests++}`, tokens, outputTokens: 4 }, this.nowMs)
  }

  /** Lets time pass. */
  run(durationMs: number): void {
    const endMs = this.nowMs + durationMs
    for (;;) {
      const engineMs = this.#engine.nextEventMs() ?? Infinity
      const laterMs = this.#later[0]?.atMs ?? Infinity
      const nextMs = Math.min(engineMs, laterMs)
      if (nextMs > endMs) break
      this.nowMs = Math.max(this.nowMs, nextMs)
      if (engineMs <= laterMs) this.#engine.advanceTo(this.nowMs)
      else this.#later.shift()?.act()
    }
    this.nowMs = endMs
    this.#engine.advanceTo(endMs)
    this.truth.tick()
    this.#readLoad()
  }

  /** The engine's process is another one from now on; running requests are lost, and what it had told is forgotten. */
  restart(): void {
    for (const { watched } of this.#onAnswer.values()) if (watched !== null) this.truth.ended(watched, false)
    this.#onAnswer.clear()
    this.#later = []
    this.#engine = this.#newEngine()
    this.#ingest.clear('distrust')
  }

  /** As POST /reset_prefix_cache: false while requests run. */
  reset(): boolean {
    return this.#engine.resetPrefixCache(this.nowMs)
  }

  /** Its hit counters, as the router reads them with the load. */
  #readLoad(): void {
    const { running, waiting, kvUsage, prefixQueryTokens, prefixHitTokens } = this.#engine.stats
    const prefix = { queriedTokens: prefixQueryTokens, hitTokens: prefixHitTokens }
    this.worker.load = { running, waiting, kvUsage, prefix, source: 'poll', atMs: this.nowMs }
    this.truth.hitsCounted(this.worker, prefix)
  }

  #newEngine(): Engine {
    const engine: Engine = new Engine({
      ...this.#o.engine,
      onEvents: (events) => engine === this.#engine && this.#publish(toldAs(events, this.#o.misreport ?? [])),
      onFinished: ({ id, cachedTokens }) => this.#finished(id.split(' ')[0] ?? '', cachedTokens),
    })
    engine.advanceTo(this.nowMs)
    return engine
  }

  /** Events come in order, each batch after a while of its own. */
  #publish(events: readonly KvEvent[]): void {
    if (events.length === 0 || this.nowMs < (this.#o.heardFromMs ?? 0)) return
    const payload = encodeBatch(events, this.nowMs / 1000, { hashes: 'int', rank: 0 })
    this.#eventsAtMs = Math.max(this.#eventsAtMs, this.nowMs + this.#o.random() * (this.#o.eventDelayMs ?? 0))
    const sequence = this.#sequence++
    this.#after(this.#eventsAtMs - this.nowMs, () => this.#ingest.apply(sequence, 0, payload))
  }

  #finished(id: string, cachedTokens: number): void {
    const pending = this.#onAnswer.get(id)
    if (pending === undefined || --pending.left > 0) return
    this.#onAnswer.delete(id)
    this.#after(this.#o.random(), () => {
      this.answered++
      if (pending.watched === null) return
      this.truth.ended(pending.watched, true)
      const reports = this.#o.reports ?? true
      this.truth.answered(pending.watched, {
        cachedTokens: reports ? cachedTokens : null,
        stream: pending.request.stream ?? false,
      })
    })
  }

  #after(delayMs: number, act: () => void): void {
    const atMs = this.nowMs + delayMs
    let at = this.#later.length
    while (at > 0 && (this.#later[at - 1]?.atMs ?? 0) > atMs) at--
    this.#later.splice(at, 0, { atMs, act })
  }
}
