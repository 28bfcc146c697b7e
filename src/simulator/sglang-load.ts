import type { EngineDrive } from './engine-drive.ts'

/** What SGLang tells of a rank's load, in whole numbers. */
export interface LoadFigures {
  readonly running: number
  readonly waiting: number
  /** Tokens in KV pages that running requests hold. */
  readonly usedTokens: number
  readonly capacityTokens: number
  /** Prompt tokens of waiting requests that are not cached. */
  readonly waitingUncachedTokens: number
  /** Used, and those that waiting requests will need. */
  readonly totalTokens: number
  readonly maxRunning: number
  /** Since the start: prompt tokens computed, and how long that took. */
  readonly prefilledTokens: number
  readonly prefillBusyUs: number
}

export function loadFigures({ stats, options, waitingTokens }: EngineDrive): LoadFigures {
  const { blockSize, capacityBlocks, maxRunningRequests, prefillTokensPerSecond } = options
  const capacityTokens = capacityBlocks * blockSize
  const usedTokens = Math.round(stats.kvUsage * capacityTokens)
  const prefilledTokens = stats.prefixQueryTokens - stats.prefixHitTokens
  return {
    running: stats.running,
    waiting: stats.waiting,
    usedTokens,
    capacityTokens,
    waitingUncachedTokens: waitingTokens,
    totalTokens: usedTokens + waitingTokens,
    maxRunning: maxRunningRequests,
    prefilledTokens,
    prefillBusyUs: Math.round((prefilledTokens * 1e6) / prefillTokensPerSecond),
  }
}

/** An entry of GET /v1/loads, fields as SGLang 0.5.23 names them. */
export function loadEntry(rank: number, drive: EngineDrive): object {
  const load = loadFigures(drive)
  const { prefixQueryTokens, prefixHitTokens } = drive.stats
  const usage = round(load.usedTokens / load.capacityTokens)
  return {
    dp_rank: rank,
    num_running_reqs: load.running,
    num_waiting_reqs: load.waiting,
    num_waiting_uncached_tokens: load.waitingUncachedTokens,
    num_used_tokens: load.usedTokens,
    num_total_tokens: load.totalTokens,
    num_active_tokens: load.usedTokens,
    max_total_num_tokens: load.capacityTokens,
    max_running_requests: load.maxRunning,
    token_usage: usage,
    gen_throughput: 0,
    cache_hit_rate: prefixQueryTokens === 0 ? 0 : round(prefixHitTokens / prefixQueryTokens),
    utilization: usage,
  }
}

/** GET /metrics of SGLang started with --enable-metrics: the part that routers and dashboards read. */
export function sglangMetricsText(model: string, ranks: readonly EngineDrive[]): string {
  const gauge = (name: string, help: string, value: (drive: EngineDrive) => number): string[] => [
    `# HELP sglang:${name} ${help}`,
    `# TYPE sglang:${name} gauge`,
    ...ranks.map(
      (drive, rank) => `sglang:${name}{dp_rank="${rank}",model_name=${JSON.stringify(model)}} ${value(drive)}`,
    ),
  ]
  return [
    ...gauge('num_running_reqs', 'Requests being computed.', ({ stats }) => stats.running),
    ...gauge('num_queue_reqs', 'Requests waiting to be computed.', ({ stats }) => stats.waiting),
    ...gauge('token_usage', 'Share of KV tokens in use.', ({ stats }) => stats.kvUsage),
    ...gauge('kv_used_tokens', 'KV tokens in use.', (drive) => loadFigures(drive).usedTokens),
    ...gauge('max_total_num_tokens', 'KV tokens that fit.', (drive) => loadFigures(drive).capacityTokens),
    ...gauge('page_size', 'Tokens in a KV page.', ({ options }) => options.blockSize),
    ...hitCounters(model, ranks),
    '',
  ].join('\n')
}

/**
 * Counted by the server in front of all ranks, so that no rank is named, when a request ends. As Python's client does it, what
 * nothing was counted of is not there.
 */
function hitCounters(model: string, ranks: readonly EngineDrive[]): string[] {
  const sum = (value: (stats: EngineDrive['stats']) => number): number =>
    ranks.reduce((total, { stats }) => total + value(stats), 0)
  const counter = (name: string, help: string, label: string, value: number): string[] => {
    const labels = `engine_type="unified",${label},model_name=${JSON.stringify(model)}`
    const samples = value === 0 ? [] : [`sglang:${name}{${labels}} ${value}`]
    return [`# HELP sglang:${name} ${help}`, `# TYPE sglang:${name} counter`, ...samples]
  }
  return [
    ...counter(
      'prompt_tokens_total',
      'Prompt tokens.',
      'is_streaming="false"',
      sum((s) => s.endedPromptTokens),
    ),
    ...counter(
      'cached_tokens_total',
      'Prompt tokens found.',
      'cache_source="device"',
      sum((s) => s.endedCachedTokens),
    ),
  ]
}

function round(share: number): number {
  return Math.round(share * 1e4) / 1e4
}
