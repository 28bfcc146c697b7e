import { monitorEventLoopDelay } from 'node:perf_hooks'
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client'

/** Observations gathered before prom-client gets them. */
const gatheredObservations = 1024

/**
 * A histogram on the hot path: an observation is one store into an array; prom-client sorts them into its buckets when
 * it is scraped, or a thousand at a time.
 */
export class Timed {
  readonly #gathered = new Float64Array(gatheredObservations)
  #count = 0
  readonly #observed: Histogram.Internal<string>

  constructor(registry: Registry, name: string, help: string, buckets: readonly number[]) {
    const flush = (): void => this.#flush()
    const histogram = new Histogram({
      name,
      help,
      buckets: [...buckets],
      registers: [registry],
      collect: () => flush(),
    })
    this.#observed = histogram.labels()
  }

  observe(seconds: number): void {
    if (this.#count === gatheredObservations) this.#flush()
    this.#gathered[this.#count++] = seconds
  }

  #flush(): void {
    for (let i = 0; i < this.#count; i++) this.#observed.observe(this.#gathered[i] as number)
    this.#count = 0
  }
}

/** One labelled count, held by whoever counts: adding to it is one addition, and the scrape does the rest. */
export interface Cell {
  value: number
}

/** Counts per label values. The hot path keeps its Cell; prom-client sees the sums when it is scraped. */
export class CountedBy<Label extends string> {
  readonly #labels: readonly Label[]
  readonly #counter: Counter
  readonly #cells = new Map<string, { cell: Cell; values: readonly string[]; flushed: number }>()

  constructor(registry: Registry, name: string, help: string, labels: readonly Label[]) {
    this.#labels = labels
    const flush = (counter: Counter): void => {
      for (const entry of this.#cells.values()) {
        const added = entry.cell.value - entry.flushed
        if (added > 0 || entry.flushed === 0) counter.inc(this.#named(entry.values), Math.max(0, added))
        entry.flushed = entry.cell.value
      }
    }
    this.#counter = new Counter({
      name,
      help,
      labelNames: [...labels],
      registers: [registry],
      collect() {
        flush(this)
      },
    })
    if (labels.length === 0) this.cell()
  }

  /** The cell of these label values, in the order in which the labels were declared. */
  cell(...values: readonly string[]): Cell {
    const key = values.length === 1 ? (values[0] ?? '') : values.join('\u0000')
    let entry = this.#cells.get(key)
    if (entry === undefined) {
      entry = { cell: { value: 0 }, values, flushed: 0 }
      this.#cells.set(key, entry)
    }
    return entry.cell
  }

  /** Adds to the cell of these label values. */
  add(amount: number, ...values: readonly string[]): void {
    this.cell(...values).value += amount
  }

  /** Drops every count with this value of a label, once what it names is no more. Who holds a cell counts in vain. */
  forget(label: string, value: string): void {
    const at = (this.#labels as readonly string[]).indexOf(label)
    if (at === -1) return
    for (const [key, { values }] of this.#cells) {
      if (values[at] !== value) continue
      this.#cells.delete(key)
      this.#counter.remove(this.#named(values))
    }
  }

  #named(values: readonly string[]): Record<string, string> {
    return Object.fromEntries(this.#labels.map((label, index) => [label, values[index] ?? '']))
  }
}

/** How long the counts of a worker that is gone can still be scraped and added to. */
const forgetAfterMs = 1000

/** A gauge that is read when scraped: the reader answers rows of [label values, value]. */
export type GaugeReader = () => Iterable<readonly [readonly string[], number]>

const secondsBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300]
const fineSecondsBuckets = [
  0.000005, 0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1,
]

/** Every metric of Warmroute, each declared once. `docs/metrics.md` is generated from these declarations. */
export function createMetrics() {
  const registry = new Registry()
  const counters: CountedBy<string>[] = []
  const counted = <Label extends string>(name: string, help: string, labels: readonly Label[] = []) => {
    const counter = new CountedBy(registry, `warmroute_${name}`, help, labels)
    counters.push(counter)
    return counter
  }
  const timed = (name: string, help: string, buckets = secondsBuckets) =>
    new Timed(registry, `warmroute_${name}`, help, buckets)
  const readers = new Map<string, GaugeReader>()
  const gauge = (name: string, help: string, labels: readonly string[] = []): void => {
    new Gauge({
      name: `warmroute_${name}`,
      help,
      labelNames: [...labels],
      registers: [registry],
      collect() {
        this.reset()
        for (const [values, value] of readers.get(name)?.() ?? []) {
          this.set(Object.fromEntries(labels.map((label, index) => [label, values[index] ?? ''])), value)
        }
      },
    })
  }
  /** A counter that another room keeps and that is read when scraped. */
  const kept = (name: string, help: string): void => {
    new Counter({
      name: `warmroute_${name}`,
      help,
      registers: [registry],
      collect() {
        this.reset()
        for (const [, value] of readers.get(name)?.() ?? []) this.inc(value)
      },
    })
  }

  const delay = monitorEventLoopDelay({ resolution: 10 })
  gauge('in_flight_requests', 'Requests sent to a worker and not finished.', ['worker'])
  gauge('in_flight_prefill_tokens', 'Predicted uncached prompt tokens sent to a worker and not prefilled yet.', [
    'worker',
  ])
  gauge('foreign_requests', 'Requests of others than this router that an engine last reported.', ['worker'])
  gauge('queued_requests', 'Requests waiting for a tokenizer thread.')
  gauge('admission_queued_requests', 'Requests waiting for room in a pool whose workers are all saturated.', ['pool'])
  gauge('map_blocks', 'Blocks held in the map, summed over workers.', ['tier'])
  gauge('map_bytes', 'Bytes used by the map: slots, sets, aliases, counts and orphans.')
  kept('log_lines_dropped_total', 'Log lines dropped because their reader was too slow.')
  kept('tokenizer_thread_restarts_total', 'Tokenizer threads that died and were started again.')
  kept('map_evictions_total', 'Blocks evicted from the map to stay within its byte budget.')
  gauge('worker_state', '1 for the state that the worker is in, 0 for the others.', ['worker', 'state'])
  gauge('worker_degraded', '1 while a worker is routed by load only because its cache knowledge is distrusted.', [
    'worker',
    'reason',
  ])
  gauge('worker_agreement_ratio', 'Agreement of predicted and reported cached tokens (1 is perfect).', ['worker'])
  gauge('worker_agreement_recent_ratio', 'The same of the latest requests, without what the worker’s events explain.', [
    'worker',
  ])
  gauge('worker_agreement_coverage', 'Share of a worker’s requests whose prediction could be verified.', ['worker'])
  gauge('worker_agreement_bias', 'Above 0 more cached tokens were predicted than reported, below 0 fewer (−1 to 1).', [
    'worker',
  ])
  gauge('worker_finding', '1 while the truth check names this cause for a worker.', ['worker', 'cause'])
  gauge('request_body_bytes', 'Request bodies of clients held in memory.')
  gauge('config_last_reload_success', '1 if the last reload of the config was taken over, 0 if the old one was kept.')
  gauge('discovery_age_seconds', 'Since the last list of a pool’s engines that was good.', ['pool'])
  gauge('redis_up', '1 while Redis takes writes, 0 while it is away.')
  gauge('snapshot_bytes', 'Of the last snapshot of the map that this process made.')
  gauge('snapshot_age_seconds', 'Since the last snapshot of the map was made that this process made or read.')
  gauge('redis_leases', 'Leases that this replica holds: of workers whose events it writes to the log.')
  gauge('replicas', 'Replicas that were heard of late, this one included.')
  gauge('in_flight_elsewhere_requests', 'Requests that other replicas have in flight, as they told of late.')
  gauge('log_behind_seconds', 'For how long there have been entries of the log of events that were not read yet.')
  gauge('token_cache_bytes', 'Bytes held by the token cache.')
  gauge('event_loop_delay_seconds', 'Event-loop delay since the last scrape, by quantile.', ['quantile'])
  readers.set('event_loop_delay_seconds', () => {
    const rows: [string[], number][] = [50, 99, 100].map((percentile) => {
      const nanoseconds = percentile === 100 ? delay.max : delay.percentile(percentile)
      // The monitor counts its own 10 ms period into each sample.
      return [[String(percentile / 100)], Math.max(0, nanoseconds / 1e9 - 0.01)]
    })
    delay.reset()
    return rows
  })

  return {
    registry,
    requests: counted('requests_total', 'Requests answered, by model, worker and HTTP status.', [
      'model',
      'worker',
      'status',
    ]),
    promptTokens: counted('prompt_tokens_total', 'Prompt tokens of the requests that were routed.'),
    promptsWithMedia: counted(
      'prompts_with_media_total',
      'Requests whose prompt is known up to its first image or sound: credited up to there, and not compared with reports.',
    ),
    predictedCachedTokens: counted(
      'predicted_cached_tokens_total',
      'Prompt tokens predicted to be cached on the chosen worker.',
      ['worker'],
    ),
    actualCachedTokens: counted('actual_cached_tokens_total', 'Prompt tokens that the worker reported as cached.', [
      'worker',
    ]),
    verifiedRequests: counted(
      'verified_requests_total',
      'Answers that reported cached tokens, so that the prediction could be checked.',
      ['worker'],
    ),
    nativeChecks: counted(
      'native_hash_checks_total',
      'First blocks whose own hash was recomputed: verified, mismatch or unverified.',
      ['worker', 'result'],
    ),
    truthFindings: counted('truth_findings_total', 'Faults that the truth check has named, by cause.', [
      'worker',
      'cause',
    ]),
    distrusted: counted('worker_distrusted_total', 'Workers that lost credit since predictions for them failed.', [
      'worker',
    ]),
    decisions: counted('decisions_total', 'Decisions, by why the worker was chosen (docs/routing.md).', ['reason']),
    fallbacks: counted('fallback_total', 'Decisions that could not use the prefix match, by reason.', ['reason']),
    retries: counted('retries_total', 'Requests sent again to another worker, by reason.', ['reason']),
    admissionRefusals: counted(
      'admission_refusals_total',
      'Requests that admission did not let through, by reason; client_gone left the queue by themselves.',
      ['reason'],
    ),
    rateLimited: counted('rate_limited_total', 'Requests refused by a limit of their API key, by key id and limit.', [
      'key',
      'limit',
    ]),
    queueWait: timed(
      'queue_wait_seconds',
      'Waiting for room in a pool, of the requests that had to wait and then got through.',
    ),
    retriesRefused: counted('retries_refused_total', 'Retries that the retry budget did not allow.'),
    ejections: counted('ejections_total', 'Ejections of a worker by outlier detection.', ['worker']),
    panics: counted('panic_decisions_total', 'Decisions that ignored ejections, since too few workers were left.'),
    clientAborts: counted('client_aborts_total', 'Requests whose client left before the answer was complete.'),
    upstreamDied: counted('upstream_died_total', 'Answers cut off by a worker after the first byte.', ['worker']),
    policyErrors: counted(
      'policy_errors_total',
      'Failures and stalls of a policy plugin, whose part was then skipped.',
      ['plugin'],
    ),
    policyPauses: counted('policy_pauses_total', 'Times that a policy plugin was left out for a while.', ['plugin']),
    decisionLogDropped: counted(
      'decision_log_dropped_total',
      'Requests that the decision log did not take: the disk is slow or full.',
      [],
    ),
    policyCalls: counted('policy_calls_total', 'Calls of a policy plugin, those for explanations too.', ['plugin']),
    policySeconds: counted('policy_seconds_total', 'Time spent in a policy plugin.', ['plugin']),
    kvEvents: counted('kv_events_total', 'KV events applied, by worker and kind.', ['worker', 'kind']),
    kvEventBlocks: counted('kv_event_blocks_total', 'Blocks that KV events stored and removed, by worker and tier.', [
      'worker',
      'tier',
      'kind',
    ]),
    chunkLookups: counted('chunk_lookups_total', 'Lookups at a chunk store’s directory, by result.', ['result']),
    kvEventsSkipped: counted('kv_events_skipped_total', 'KV events or parts of them that were skipped, by reason.', [
      'reason',
    ]),
    kvEventGaps: counted('kv_event_gaps_total', 'Gaps in the sequence of a worker.', ['worker']),
    kvEventRestarts: counted('kv_event_restarts_total', 'Engine restarts seen in the sequence of a worker.', [
      'worker',
    ]),
    refusedAtDoor: counted(
      'refused_at_door_total',
      'Requests refused before their body was read, by error code, and connections over the limit.',
      ['reason'],
    ),
    loadFeedMessages: counted('load_feed_messages_total', 'Loads that engines published: used, or why not.', [
      'worker',
      'result',
    ]),
    kvEventReconnects: counted('kv_event_reconnects_total', 'Lost subscriptions to a worker.', ['worker']),
    tokenizerProbes: counted('tokenizer_probes_total', 'Comparisons with a worker’s own /tokenize, by result.', [
      'worker',
      'result',
    ]),
    configReloads: counted('config_reloads_total', 'Reloads of the config: applied, unchanged or failed.', ['result']),
    discoveryErrors: counted('discovery_errors_total', 'Failed discoveries; the engines found last are kept.', [
      'pool',
    ]),
    redisErrors: counted('redis_errors_total', 'Commands and connections that failed, by reason.', ['reason']),
    redisStateChanges: counted('redis_state_changes_total', 'Changes of the state of Redis, by what it became.', [
      'state',
    ]),
    streamFrames: counted('stream_frames_total', 'Frames appended to a stream in Redis.', ['stream']),
    streamFramesDropped: counted(
      'stream_frames_dropped_total',
      'Frames that a stream in Redis did not get, by reason; broken came before the writer began anew.',
      ['stream', 'reason'],
    ),
    streamEntriesRead: counted('stream_entries_read_total', 'Entries read from a stream in Redis.', ['stream']),
    streamFramesUnread: counted(
      'stream_frames_unread_total',
      'Frames in a stream in Redis that could not be read: of another version, or damaged.',
      ['stream'],
    ),
    streamGaps: counted(
      'stream_gaps_total',
      'Times that entries may have been missed: cut off before they were read, or begun anew.',
      ['stream', 'gap'],
    ),
    kvEventsApart: counted(
      'kv_events_apart_total',
      'Times that the log of events did not continue what this replica knew of a worker.',
      ['worker'],
    ),
    redisLatency: timed('redis_latency_seconds', 'Round trip of a heartbeat to Redis.', fineSecondsBuckets),
    snapshotSeconds: counted('snapshot_seconds_total', 'Spent on snapshots of the map that were made, and read.', [
      'what',
    ]),
    snapshotFailures: counted(
      'snapshot_failures_total',
      'Snapshots of the map that could not be made or read, by reason.',
      ['reason'],
    ),
    timeToFirstToken: timed(
      'time_to_first_token_seconds',
      'From the request’s arrival to the first body byte of its answer.',
    ),
    requestDuration: timed('request_duration_seconds', 'From the request’s arrival to the end of its answer.'),
    decision: timed('decision_seconds', 'Block keys, map lookup and choice of one request.', fineSecondsBuckets),
    tokenize: timed(
      'tokenize_seconds',
      'Rendering and tokenizing one request, waiting for a thread included.',
      fineSecondsBuckets,
    ),
    /** Gives a declared gauge its reader. */
    read(name: string, reader: GaugeReader): void {
      readers.set(name, reader)
    },
    /**
     * Drops the counts of a worker that is gone: their number would grow with every worker that ever was. A moment later,
     * since the end of its last request is still to be counted, and only if none of its name has come back by then.
     */
    forgetWorker(id: string, isGone: () => boolean): void {
      setTimeout(() => {
        if (isGone()) for (const counter of counters) counter.forget('worker', id)
      }, forgetAfterMs).unref()
    },
    /** Starts what costs something while it runs: the event-loop monitor and the process's own figures. */
    start(): void {
      delay.enable()
      collectDefaultMetrics({ register: registry, prefix: 'warmroute_' })
    },
    stop(): void {
      delay.disable()
    },
  }
}

export type Metrics = ReturnType<typeof createMetrics>
