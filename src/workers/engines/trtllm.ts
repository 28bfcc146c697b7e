import { jsonOf, type EngineHttp } from '../engine-http.ts'
import type { Engine, EngineFacts, EngineLoad, RankLoad } from '../engine.ts'
import { modelRows } from '../model-rows.ts'
import { samplesOf } from '../prometheus-text.ts'

/**
 * TensorRT-LLM (`trtllm-serve`), by what its server's source and documentation say: GET /v1/models, Prometheus text at
 * /prometheus/metrics where performance metrics are on, else the JSON iteration statistics at /metrics, and KV events by
 * POST /kv_cache_events. The last two give each record once, to whoever asks first; of them only the statistics are asked
 * for here, and only where there is no Prometheus text. Triton's names for the same figures are understood too.
 */
export const trtllm: Engine = {
  name: 'trtllm',
  countsStores: false,
  recognizes: ({ owners }) => owners.includes('tensorrt_llm'),

  async facts(http, baseUrl, headers): Promise<EngineFacts | null> {
    const [models, figures] = await Promise.all([
      http.ask(`${baseUrl}/v1/models`, { headers }),
      readFigures(http, baseUrl, headers),
    ])
    if (models === null || models.status >= 500) return null
    const [first] = figures?.values() ?? []
    return {
      models: modelRows(models),
      startedAt: null,
      // What it tells does not say how many attention ranks there are; all of them are made alike.
      ranks: [
        {
          rank: null,
          blockSize: wholeOrNull(first?.tokensPerBlock),
          capacityBlocks: wholeOrNull(first?.maxBlocks),
          events: { kind: 'poll', url: `${baseUrl}/kv_cache_events` },
        },
      ],
    }
  },

  async load(http, baseUrl, headers, timeoutMs): Promise<EngineLoad | null> {
    const figures = await readFigures(http, baseUrl, headers, timeoutMs)
    if (figures === null) return null
    const byRank = new Map<number, RankLoad>()
    for (const [rank, { running, waiting, kvUsage }] of figures)
      // What is not told is unknown; nothing is made up for it.
      if (running !== null && waiting !== null && kvUsage !== null) byRank.set(rank, { running, waiting, kvUsage })
    return { byRank, startedAt: null }
  },
}

/** Null where a figure is not told. */
interface Figures {
  readonly running: number | null
  readonly waiting: number | null
  readonly kvUsage: number | null
  readonly tokensPerBlock: number | null
  readonly maxBlocks: number | null
}

/** An idle server waits for the next record before it answers that there is none; cut off, the record would be lost. */
const statisticsTimeoutMs = 5000

/** By rank; null where the engine cannot be asked. */
async function readFigures(
  http: EngineHttp,
  baseUrl: string,
  headers: Readonly<Record<string, string>>,
  timeoutMs?: number,
): Promise<ReadonlyMap<number, Figures> | null> {
  const text = await http.ask(`${baseUrl}/prometheus/metrics`, {
    headers,
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
  })
  if (text === null) return null
  const figures = text.status === 200 ? prometheusFigures(text.text) : null
  if (figures !== null) return new Map([[0, figures]])
  const statistics = await http.ask(`${baseUrl}/metrics`, { headers, timeoutMs: statisticsTimeoutMs })
  return statistics === null ? null : statisticsFigures(jsonOf(statistics))
}

/** Metric names, each with the labels that choose its sample: those of trtllm-serve, then those of Triton's backend. */
const prometheusNames: Readonly<Record<keyof Figures, readonly [name: string, labels: Record<string, string>]>>[] = [
  {
    running: ['trtllm_num_requests_running', {}],
    waiting: ['trtllm_num_requests_waiting', {}],
    kvUsage: ['trtllm_kv_cache_utilization', {}],
    tokensPerBlock: ['trtllm_kv_cache_tokens_per_block', {}],
    maxBlocks: ['trtllm_kv_cache_max_blocks', {}],
  },
  {
    running: ['nv_trt_llm_request_metrics', { request_type: 'scheduled' }],
    waiting: ['nv_trt_llm_request_metrics', { request_type: 'waiting' }],
    kvUsage: ['nv_trt_llm_kv_cache_block_metrics', { kv_cache_block_type: 'fraction' }],
    tokensPerBlock: ['nv_trt_llm_kv_cache_block_metrics', { kv_cache_block_type: 'tokens_per' }],
    maxBlocks: ['nv_trt_llm_kv_cache_block_metrics', { kv_cache_block_type: 'max' }],
  },
]

function prometheusFigures(text: string): Figures | null {
  for (const names of prometheusNames) {
    const samples = samplesOf(text, [...new Set(Object.values(names).map(([name]) => name))])
    if (samples.size === 0) continue
    const of = ([name, labels]: readonly [string, Record<string, string>]): number | null =>
      // Several processes may have written into one directory of metrics; the last one is the youngest.
      samples
        .get(name)
        ?.findLast((sample) => Object.entries(labels).every(([label, value]) => sample.labels[label] === value))
        ?.value ?? null
    return {
      running: of(names.running),
      waiting: of(names.waiting),
      kvUsage: of(names.kvUsage),
      tokensPerBlock: of(names.tokensPerBlock),
      maxBlocks: of(names.maxBlocks),
    }
  }
  return null
}

/** The newest record of each rank; none where nothing was computed since they were read last. */
function statisticsFigures(body: unknown): ReadonlyMap<number, Figures> {
  const newest = new Map<number, { readonly iteration: number; readonly figures: Figures }>()
  for (const record of Array.isArray(body) ? body : []) {
    const { iter, attentionDpRank, numActiveRequests, numQueuedRequests, kvCacheStats } = fieldsOf(record)
    const { maxNumBlocks, usedNumBlocks, tokensPerBlock } = fieldsOf(kvCacheStats)
    const rank = wholeOrNull(attentionDpRank) ?? 0
    const iteration = wholeOrNull(iter) ?? 0
    if (iteration < (newest.get(rank)?.iteration ?? 0)) continue
    const blocks = wholeOrNull(maxNumBlocks)
    const used = wholeOrNull(usedNumBlocks)
    const figures = {
      running: wholeOrNull(numActiveRequests),
      waiting: wholeOrNull(numQueuedRequests),
      kvUsage: blocks === null || used === null || blocks === 0 ? null : used / blocks,
      tokensPerBlock: wholeOrNull(tokensPerBlock),
      maxBlocks: blocks,
    }
    newest.set(rank, { iteration, figures })
  }
  return new Map([...newest].map(([rank, { figures }]) => [rank, figures]))
}

function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
}

function wholeOrNull(value: unknown): number | null {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 ? value : null
}
