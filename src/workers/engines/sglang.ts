import { jsonOf, type EngineAnswer, type EngineHttp } from '../engine-http.ts'
import type { Engine, EngineFacts, EngineLoad, LoadFeedPlace, RankFacts, RankLoad } from '../engine.ts'
import type { PrefixCounters } from '../load.ts'
import { modelRows } from '../model-rows.ts'
import { samplesOf, type Sample } from '../prometheus-text.ts'

/**
 * SGLang 0.5.23: GET /v1/models and /server_info, whose `kv_events` tells where events and load are published; load by GET
 * /v1/loads, else by /metrics, which only --enable-metrics opens; hit counters stand in /metrics alone.
 */
export const sglang: Engine = {
  name: 'sglang',
  countsStores: false,
  // Its /health computes a token where nothing else runs, and takes a second for that.
  healthPath: '/ping',

  recognizes: ({ owners, serverInfo }) =>
    owners.includes('sglang') ||
    (serverInfo !== null &&
      'served_model_name' in serverInfo &&
      ('kv_events' in serverInfo || 'page_size' in serverInfo)),

  async facts(http, baseUrl, headers): Promise<EngineFacts | null> {
    const [models, info] = await Promise.all([
      http.ask(`${baseUrl}/v1/models`, { headers }),
      serverInfo(http, baseUrl, headers),
    ])
    if (models === null || models.status >= 500 || info === null) return null
    const { random_seed: seed } = info
    return {
      models: modelRows(models),
      // Drawn anew by each process unless it was set.
      startedAt: typeof seed === 'number' ? seed : null,
      omitsMisses: info['enable_cache_report'] === true,
      countsHits: info['enable_metrics'] === true,
      ranks: ranksOf(info, new URL(baseUrl).hostname),
    }
  },

  async load(http, baseUrl, headers, timeoutMs): Promise<EngineLoad | null> {
    const loads = await http.ask(`${baseUrl}/v1/loads?include=core`, { headers, timeoutMs })
    if (loads === null) return null
    if (loads.status === 200) return { byRank: loadsOf(jsonOf(loads)), startedAt: null }
    const metrics = await http.ask(`${baseUrl}/metrics`, { headers, timeoutMs })
    return metrics?.status === 200 ? { byRank: scrapedLoads(metrics.text), startedAt: null } : null
  },

  async hitCounters(http, baseUrl, headers, timeoutMs): Promise<PrefixCounters | null> {
    const metrics = await http.ask(`${baseUrl}/metrics`, { headers, timeoutMs })
    return metrics?.status === 200 ? countedHits(metrics.text) : null
  },
}

/** More ranks, or larger pages, than any engine has are a fault of what it says. */
const maxRanks = 1024
const maxPageTokens = 65_536

type Fields = Readonly<Record<string, unknown>>

/** The path had another name before. Where neither is there, as behind a gateway, the engine tells nothing: the config may. */
async function serverInfo(
  http: EngineHttp,
  baseUrl: string,
  headers: Readonly<Record<string, string>>,
): Promise<Fields | null> {
  for (const path of ['/server_info', '/get_server_info']) {
    const answer: EngineAnswer | null = await http.ask(baseUrl + path, { headers })
    if (answer?.status === 200) return fieldsOf(jsonOf(answer))
    if (answer?.status !== 404) return null
  }
  return {}
}

function ranksOf(info: Fields, workerHost: string): RankFacts[] {
  const events = publisherOf(info, workerHost)
  const ranks = events?.ranks ?? wholeOf(info['dp_size']) ?? 1
  const pageTokens = wholeOf(info['page_size'])
  const told = events?.blockSize ?? (pageTokens === null ? null : pageTokens * (wholeOf(info['dcp_size']) ?? 1))
  const blockSize = told === null || told === 0 || told > maxPageTokens ? null : told
  const capacityTokens = wholeOf(info['max_total_num_tokens'])
  return Array.from({ length: Math.min(maxRanks, Math.max(1, ranks)) }, (_, rank) => ({
    rank,
    blockSize,
    capacityBlocks:
      blockSize === null || capacityTokens === null ? null : Math.floor(capacityTokens / blockSize) || null,
    events: events?.of(rank) ?? null,
    loadFeed: events?.loadOf(rank) ?? null,
  }))
}

interface Publisher {
  readonly ranks: number
  readonly blockSize: number | null
  of(rank: number): RankFacts['events']
  loadOf(rank: number): LoadFeedPlace | null
}

/**
 * `kv_events`: ports of rank 0, each further rank on the next one. Null where nothing is published, or only pairs of tokens
 * (EAGLE), of which no prompt's blocks can be told.
 */
function publisherOf(info: Fields, workerHost: string): Publisher | null {
  if (typeof info['kv_events'] !== 'object' || info['kv_events'] === null) return null
  const events = fieldsOf(info['kv_events'])
  const base = portOf(events['endpoint_port_base'])
  if (events['publisher'] !== 'zmq' || base === null) return null
  const replay = portOf(events['replay_endpoint_port_base'])
  const load = portOf(events['load_endpoint_port_base'])
  const host = hostOf(events['endpoint_host'], workerHost)
  const at = (port: number, rank: number): string => `tcp://${host}:${port + rank}`
  const inPairs = /^eagle/i.test(textOf(info['speculative_algorithm']))
  return {
    ranks: wholeOf(events['dp_size']) ?? 1,
    blockSize: wholeOf(events['block_size']),
    of: (rank) =>
      inPairs
        ? null
        : {
            kind: 'zmq',
            endpoint: at(base, rank),
            replay: replay === null ? null : at(replay, rank),
            topic: textOf(events['topic']),
          },
    loadOf: (rank) => (load === null ? null : { endpoint: at(load, rank), topic: textOf(events['load_topic']) }),
  }
}

/** A wildcard stands for the worker's own host. */
function hostOf(value: unknown, workerHost: string): string {
  const host = textOf(value)
  if (['', '*', '0.0.0.0', '::', '[::]'].includes(host)) return workerHost
  return host.includes(':') && !host.startsWith('[') ? `[${host}]` : host
}

function loadsOf(body: unknown): Map<number, RankLoad> {
  const { loads } = fieldsOf(body)
  const byRank = new Map<number, RankLoad>()
  for (const entry of Array.isArray(loads) ? loads : []) {
    const fields = fieldsOf(entry)
    const running = wholeOf(fields['num_running_reqs'])
    const waiting = wholeOf(fields['num_waiting_reqs'])
    if (running === null || waiting === null) continue
    const waitingTokens = wholeOf(fields['num_waiting_uncached_tokens'])
    byRank.set(wholeOf(fields['dp_rank']) ?? 0, {
      running,
      waiting,
      kvUsage: shareOf(fields['token_usage']),
      ...(waitingTokens === null ? {} : { waitingTokens }),
    })
  }
  return byRank
}

const scraped = ['sglang:num_running_reqs', 'sglang:num_queue_reqs', 'sglang:token_usage'] as const

/** Without data-parallel ranks samples name none. */
function scrapedLoads(text: string): Map<number, RankLoad> {
  const samples = samplesOf(text, scraped)
  const [runningName, waitingName, usageName] = scraped
  const byRank = new Map<number, RankLoad>()
  for (const { labels, value: running } of samples.get(runningName) ?? []) {
    const rank = labels['dp_rank']
    const of = (name: string): number | null =>
      samples.get(name)?.find((sample) => sample.labels['dp_rank'] === rank)?.value ?? null
    const waiting = of(waitingName)
    if (waiting !== null) byRank.set(Number(rank ?? 0), { running, waiting, kvUsage: shareOf(of(usageName)) })
  }
  return byRank
}

const promptTokens = 'sglang:prompt_tokens_total'
const cachedTokens = 'sglang:cached_tokens_total'

/**
 * Both are counted when a request ends, before its answer does, and once for each, retracted or computed in chunks. Samples are
 * apart by streaming, priority and labels of the operator's own, the cached ones by the tier that they were found in; those
 * of which nothing was counted yet are not there.
 */
function countedHits(text: string): PrefixCounters {
  const samples = samplesOf(text, [promptTokens, cachedTokens])
  return { queriedTokens: sumOf(samples.get(promptTokens)), hitTokens: sumOf(samples.get(cachedTokens)) }
}

function sumOf(samples: readonly Sample[] = []): number {
  return samples.reduce((sum, { value }) => sum + value, 0)
}

function fieldsOf(value: unknown): Fields {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

function wholeOf(value: unknown): number | null {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 ? value : null
}

function portOf(value: unknown): number | null {
  const port = wholeOf(value)
  return port !== null && port > 0 && port < 65_536 ? port : null
}

function shareOf(value: unknown): number | null {
  return typeof value === 'number' && value >= 0 && value <= 1 ? value : null
}
