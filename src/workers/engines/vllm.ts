import { jsonOf } from '../engine-http.ts'
import type { Engine, EngineEvents, EngineFacts, EngineLoad, RankFacts, RankLoad } from '../engine.ts'
import { modelRows } from '../model-rows.ts'
import { samplesOf, type Sample } from '../prometheus-text.ts'

/** vLLM 0.32: GET /v1/models, /kv_event_sources, and /metrics with vllm:cache_config_info. */
export const vllm: Engine = {
  name: 'vllm',
  countsStores: true,

  recognizes: ({ owners, serverInfo, eventSources }) =>
    owners.includes('vllm') || eventSources !== null || (serverInfo !== null && 'vllm_config' in serverInfo),

  async facts(http, baseUrl, headers): Promise<EngineFacts | null> {
    const [models, sources, metrics] = await Promise.all([
      http.ask(`${baseUrl}/v1/models`, { headers }),
      http.ask(`${baseUrl}/kv_event_sources`, { headers }),
      http.ask(`${baseUrl}/metrics`, { headers }),
    ])
    // An engine without this path tells of no models; one that fails to answer is asked again.
    if (models === null || models.status >= 500) return null
    const rows = modelRows(models)
    const samples =
      metrics?.status === 200
        ? samplesOf(metrics.text, ['vllm:cache_config_info', 'process_start_time_seconds'])
        : new Map<string, Sample[]>()
    const caches = samples.get('vllm:cache_config_info') ?? []
    const eventsByRank = eventSources(jsonOf(sources), new URL(baseUrl).hostname)
    const ranks = [...new Set([0, ...eventsByRank.keys(), ...caches.map(rankOf)])].sort((a, b) => a - b)
    return {
      models: rows,
      startedAt: samples.get('process_start_time_seconds')?.[0]?.value ?? null,
      ranks: ranks.map((rank): RankFacts => {
        const cache = caches.find((sample) => rankOf(sample) === rank)?.labels
        return {
          rank,
          blockSize: wholeOrNull(cache?.['block_size']),
          capacityBlocks: wholeOrNull(cache?.['num_gpu_blocks']),
          hashAlgorithm: textOrNull(cache?.['prefix_caching_hash_algo']),
          events: eventsByRank.get(rank) ?? null,
        }
      }),
    }
  },

  async load(http, baseUrl, headers, timeoutMs): Promise<EngineLoad | null> {
    const names = [
      'vllm:num_requests_running',
      'vllm:num_requests_waiting',
      'vllm:kv_cache_usage_perc',
      'process_start_time_seconds',
      'vllm:prefix_cache_queries_total',
      'vllm:prefix_cache_hits_total',
      'vllm:external_prefix_cache_hits_total',
    ] as const
    const answer = await http.ask(`${baseUrl}/metrics`, { headers, timeoutMs })
    if (answer?.status !== 200) return null
    const samples = samplesOf(answer.text, names)
    const load = new Map<number, RankLoad>()
    for (const sample of samples.get(names[0]) ?? []) {
      const rank = rankOf(sample)
      const of = (name: string): number | null =>
        samples.get(name)?.find((other) => rankOf(other) === rank)?.value ?? null
      const waiting = of(names[1])
      const queriedTokens = of(names[4])
      const hitTokens = of(names[5])
      const prefix =
        queriedTokens === null || hitTokens === null
          ? {}
          : { prefix: { queriedTokens, hitTokens: hitTokens + (of(names[6]) ?? 0) } }
      if (waiting !== null) load.set(rank, { running: sample.value, waiting, kvUsage: of(names[2]), ...prefix })
    }
    return { byRank: load, startedAt: samples.get(names[3])?.[0]?.value ?? null }
  },
}

/** The `engine` label is the data-parallel rank. */
function rankOf(sample: Sample): number {
  return wholeOrNull(sample.labels['engine']) ?? 0
}

/** vLLM prints an unknown value as the text None. */
function wholeOrNull(text: string | undefined): number | null {
  const value = Number(text)
  return text !== undefined && text !== '' && Number.isInteger(value) && value >= 0 ? value : null
}

function textOrNull(text: string | undefined): string | null {
  return text === undefined || text === '' || text === 'None' ? null : text
}

/** `/kv_event_sources`: one entry a rank; `*` in an endpoint stands for the worker's own host. */
function eventSources(body: unknown, host: string): Map<number, EngineEvents> {
  const sources = new Map<number, EngineEvents>()
  if (typeof body !== 'object' || body === null) return sources
  for (const [rank, entry] of Object.entries(body)) {
    const source = (entry ?? {}) as Record<string, unknown>
    const { endpoint, replay_endpoint: replay, topic } = source
    if (source['enable_kv_cache_events'] !== true || source['publisher'] !== 'zmq' || typeof endpoint !== 'string')
      continue
    const reachable = (address: string): string => address.replace(/^tcp:\/\/(\*|0\.0\.0\.0|\[::\])/, `tcp://${host}`)
    sources.set(Number(rank), {
      kind: 'zmq',
      endpoint: reachable(endpoint),
      replay: typeof replay === 'string' ? reachable(replay) : null,
      topic: typeof topic === 'string' ? topic : '',
    })
  }
  return sources
}
