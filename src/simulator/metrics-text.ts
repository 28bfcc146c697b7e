import type { EngineStats } from './engine.ts'

export interface MetricsSource {
  readonly model: string
  readonly blockSize: number
  readonly capacityBlocks: number
  readonly hashAlgorithm: string
  readonly startedSeconds: number
  /** Per data-parallel rank, in order. */
  readonly ranks: readonly EngineStats[]
}

/** vLLM's /metrics in the Prometheus text format 0.0.4: the part that routers, dashboards and autoscalers read. */
export function metricsText({
  model,
  blockSize,
  capacityBlocks,
  hashAlgorithm,
  startedSeconds,
  ranks,
}: MetricsSource): string {
  const lines: string[] = []
  const metric = (name: string, type: 'gauge' | 'counter', help: string, samples: readonly string[]): void => {
    lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...samples)
  }
  // Python's client sorts labels by name.
  const labels = (rank: number, more: Readonly<Record<string, string>>): string =>
    Object.entries({ engine: String(rank), model_name: model, ...more })
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([label, value]) => `${label}="${escaped(value)}"`)
      .join(',')
  const perRank = (
    name: string,
    type: 'gauge' | 'counter',
    help: string,
    value: (stats: EngineStats) => number,
    more: Readonly<Record<string, string>> = {},
  ): void => {
    const samples = ranks.map((stats, rank) => `${name}{${labels(rank, more)}} ${float(value(stats))}`)
    metric(name, type, help, samples)
  }
  metric('process_start_time_seconds', 'gauge', 'Start time of the process since unix epoch in seconds.', [
    `process_start_time_seconds ${float(startedSeconds)}`,
  ])
  perRank('vllm:num_requests_running', 'gauge', 'Number of requests being computed.', ({ running }) => running)
  perRank('vllm:num_requests_waiting', 'gauge', 'Number of requests waiting to be computed.', ({ waiting }) => waiting)
  perRank(
    'vllm:num_requests_waiting_by_reason',
    'gauge',
    'Number of waiting requests by reason.',
    ({ waiting }) => waiting,
    { reason: 'capacity' },
  )
  perRank('vllm:engine_sleep_state', 'gauge', 'Whether the engine is awake.', () => 1, { sleep_state: 'awake' })
  perRank('vllm:kv_cache_usage_perc', 'gauge', 'KV cache usage, 1 is 100 percent.', ({ kvUsage }) => kvUsage)
  perRank('vllm:prefix_cache_queries_total', 'counter', 'Prompt tokens looked up.', (s) => s.prefixQueryTokens)
  perRank('vllm:prefix_cache_hits_total', 'counter', 'Prompt tokens found cached.', (s) => s.prefixHitTokens)
  perRank('vllm:num_preemptions_total', 'counter', 'Number of preemptions.', () => 0)
  perRank('vllm:prompt_tokens_total', 'counter', 'Number of prefill tokens.', (s) => s.promptTokens)
  perRank('vllm:generation_tokens_total', 'counter', 'Number of generated tokens.', (s) => s.generatedTokens)
  perRank('vllm:request_success_total', 'counter', 'Number of finished requests.', ({ finished }) => finished, {
    finished_reason: 'length',
  })
  metric(
    'vllm:cache_config_info',
    'gauge',
    'Information of the LLMEngine CacheConfig',
    ranks.map(
      (_, rank) => `vllm:cache_config_info{${cacheConfig(blockSize, capacityBlocks, hashAlgorithm, rank)}} 1.0`,
    ),
  )
  return lines.join('\n') + '\n'
}

/** Unknown values print as the text None, as in vLLM. */
function cacheConfig(blockSize: number, capacityBlocks: number, hashAlgorithm: string, rank: number): string {
  return Object.entries({
    _block_size_resolved: 'True',
    block_size: blockSize,
    cache_dtype: 'auto',
    enable_prefix_caching: 'True',
    engine: rank,
    gpu_memory_utilization: 0.92,
    hash_block_size: 'None',
    kv_cache_size_tokens: blockSize * capacityBlocks,
    num_cpu_blocks: 'None',
    num_gpu_blocks: capacityBlocks,
    num_gpu_blocks_override: 'None',
    prefix_caching_hash_algo: hashAlgorithm,
    sliding_window: 'None',
    user_specified_block_size: 'True',
  })
    .map(([label, value]) => `${label}="${value}"`)
    .join(',')
}

/** Python prints whole floats with a decimal. */
function float(value: number): string {
  return Number.isInteger(value) ? `${value}.0` : String(value)
}

function escaped(text: string): string {
  return text.replace(/\\/g, '\\\\').replace(/"/g, '\\"').replace(/\n/g, '\\n')
}
