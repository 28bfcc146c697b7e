import type { Approximate } from '../map/approximate.ts'
import type { CacheMap } from '../map/map.ts'
import { tiers } from '../kv/tier.ts'
import type { WorkerSlot } from '../kv/batch.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { PromptService } from '../tokenize/service.ts'
import type { Fleet } from '../workers/fleet.ts'
import type { TruthCheck } from '../truth/check.ts'
import { recentRatio } from '../truth/verdict.ts'
import { truthView } from '../truth/view.ts'
import { agreementBias, agreementCoverage, agreementRatio } from '../workers/agreement.ts'
import type { StoreRef, Worker } from '../workers/worker.ts'
import type { FleetKeeper } from './keeper.ts'

export interface ViewedParts {
  readonly fleet: Fleet
  readonly map: CacheMap
  readonly keeper: FleetKeeper
  readonly metrics: Metrics
  readonly prompts: PromptService
  /** Sources of stores that no worker owns. */
  readonly shared: () => readonly object[]
  /** What is shared with other replicas; null where there are none. */
  readonly replication: () => object | null
  readonly truth: TruthCheck
  readonly approximate: Approximate
}

const states = ['healthy', 'unhealthy', 'ejected', 'draining'] as const

/** What /admin/workers, /admin/map and /metrics show of the running parts. */
export function adminViews(parts: ViewedParts) {
  const { fleet, map, keeper, metrics, prompts, truth, approximate, shared, replication } = parts
  const perWorker = (value: (worker: Worker) => number) => () =>
    [...fleet.workers()].map((worker) => [[worker.id], value(worker)] as const)
  /** A worker that leaves and the one that takes its place have one name between them. */
  const summed = (value: (worker: Worker) => number) => () => {
    const sums = new Map<string, number>()
    for (const worker of fleet.workers()) sums.set(worker.id, (sums.get(worker.id) ?? 0) + value(worker))
    return [...sums].map(([id, sum]) => [[id], sum] as const)
  }

  metrics.read(
    'in_flight_requests',
    summed(({ slot }) => fleet.counters.requests(slot)),
  )
  metrics.read(
    'in_flight_prefill_tokens',
    summed(({ slot }) => fleet.counters.prefillTokens(slot)),
  )
  metrics.read(
    'foreign_requests',
    summed(({ load }) => load?.foreignRequests ?? 0),
  )
  metrics.read(
    'worker_agreement_ratio',
    perWorker(({ agreement }) => agreementRatio(agreement)),
  )
  metrics.read(
    'worker_agreement_recent_ratio',
    perWorker((worker) => recentRatio(truth.record(worker))),
  )
  metrics.read(
    'worker_agreement_coverage',
    perWorker(({ agreement }) => agreementCoverage(agreement)),
  )
  metrics.read(
    'worker_agreement_bias',
    perWorker(({ agreement }) => agreementBias(agreement)),
  )
  metrics.read('worker_finding', () =>
    truth.findings().map(({ worker, finding }) => [[worker.id, finding.cause], 1] as const),
  )
  metrics.read('worker_state', () =>
    [...fleet.workers()].flatMap((worker) =>
      states.map((state) => [[worker.id, state], worker.standing.state === state ? 1 : 0] as const),
    ),
  )
  metrics.read('worker_degraded', () =>
    [...fleet.workers()].flatMap((worker) =>
      worker.degraded === null ? [] : [[[worker.id, worker.degraded], 1] as const],
    ),
  )
  metrics.read('map_blocks', () =>
    map.stats().blocksByTier.map((blocks, index) => [[tiers[index] ?? ''], blocks] as const),
  )
  metrics.read('map_bytes', () => [[[], map.stats().bytes]])
  metrics.read('map_evictions_total', () => [[[], map.stats().evictions]])
  metrics.read('queued_requests', () => [[[], prompts.stats().queued]])
  metrics.read('tokenizer_thread_restarts_total', () => [[[], prompts.stats().restarts]])
  metrics.read('token_cache_bytes', () => [[[], prompts.stats().cacheBytes]])

  return {
    metrics: async () => ({ contentType: metrics.registry.contentType, text: await metrics.registry.metrics() }),
    map: () => ({ ...map.stats(), shared: shared(), replication: replication() }),
    workers: () => [...fleet.workers()].map((worker) => workerView(worker)),
    workerView,
  }

  function chunksView({ slot, blockSize }: StoreRef): object {
    const { host, disk } = map.workerBlocks(slot as WorkerSlot)
    return { tokens: blockSize, host, disk }
  }

  function workerView(worker: Worker): object {
    const assumedBlocks = approximate.capacityOf(worker.slot as WorkerSlot, worker.capacityBlocks)
    const { slot, load, agreement } = worker
    return {
      id: worker.id,
      url: worker.origin + worker.basePath,
      pool: worker.pool,
      engine: worker.engine,
      rank: worker.rank,
      source: keeper.sourceOf(worker),
      state: worker.standing.state,
      ...(keeper.isLeaving(worker) ? { leaving: true } : {}),
      labels: worker.labels,
      blockSize: worker.blockSize,
      capacityBlocks: worker.capacityBlocks,
      events: keeper.eventsOf(worker),
      map: {
        blocks: map.workerBlocks(slot as WorkerSlot),
        ...(worker.chunks === null ? {} : { chunks: chunksView(worker.chunks) }),
      },
      ...(assumedBlocks === null ? {} : { approximate: { capacityBlocks: assumedBlocks } }),
      inFlight: {
        requests: fleet.counters.requests(slot),
        prefillTokens: fleet.counters.prefillTokens(slot),
        decodeBlocks: fleet.counters.decodeBlocks(slot),
      },
      load:
        load === null
          ? null
          : {
              running: load.running,
              waiting: load.waiting,
              kvUsage: load.kvUsage,
              source: load.source,
              foreignRequests: load.foreignRequests ?? 0,
              ageMs: Math.round(performance.now() - load.atMs),
            },
      agreement: {
        predicted: agreement.predicted,
        actual: agreement.actual,
        ratio: agreementRatio(agreement),
        recentRatio: recentRatio(truth.record(worker)),
        coverage: agreementCoverage(agreement),
        bias: agreementBias(agreement),
        verified: agreement.verified,
        requests: agreement.requests,
      },
      ...truthView(truth.record(worker)),
      ...(worker.degraded === null ? {} : { degraded: worker.degraded }),
    }
  }
}
