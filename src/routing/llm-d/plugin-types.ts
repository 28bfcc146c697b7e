/** Types of llm-d's whose work the router does itself, and where that is configured here. */
export const handledTypes: Readonly<Record<string, string>> = {
  'single-profile-handler': 'one profile is what there is',
  'data-parallel-profile-handler': 'each rank is a worker of its own (`ranks`)',
  'approx-prefix-cache-producer': 'workers without KV events are credited with what they were sent (`approximate`)',
  'precise-prefix-cache-producer': 'the map of the engines’ KV events (`workers[].events`)',
  'token-producer': 'prompts are tokenized here (`tokenizer`)',
  tokenizer: 'prompts are tokenized here (`tokenizer`)',
  'inflight-load-producer': 'what is in flight is counted by the router and its replicas',
  'session-id-producer': 'the session is read from the request',
  'metrics-data-source': 'engines are asked for their load (`load`)',
  'core-metrics-extractor': 'engines are asked for their load (`load`)',
  'models-data-source': 'engines are asked for their models',
  'models-data-extractor': 'engines are asked for their models',
  'endpoint-notification-source': 'workers come from the config and from `discovery`',
  'k8s-notification-source': 'workers come from the config and from `discovery`',
  'file-discovery': 'workers come from the config and from `discovery.file`',
  'topology-extractor': 'topology is in the labels of workers',
  'openai-parser': 'these paths are served anyway',
  'anthropic-parser': 'these paths are served anyway',
  'vllmhttp-parser': 'these paths are served anyway',
  'sglanghttp-parser': 'these paths are served anyway',
  'passthrough-parser': 'what has no path here is refused',
  'global-strict-fairness-policy': 'who waits and who goes first: `admission`',
  'round-robin-fairness-policy': 'who waits and who goes first: `admission`',
  'fcfs-ordering-policy': 'who waits and who goes first: `admission`',
  'static-usage-limit-policy': 'who waits and who goes first: `admission`',
  'utilization-detector': 'when workers are saturated: `admission.saturation`',
  'concurrency-detector': 'when workers are saturated: `admission.saturation`',
}

const disaggregation = 'requests are not split into prefill and decode here'
const prediction = 'llm-d’s trained latency predictor has no counterpart; `kv-aware` learns each worker’s rates itself'
const clusters = 'pools of other clusters are not known here'
const attributes = 'figures of engines beyond queue, running requests and KV cache are not read here'

/** Types of llm-d's that have no counterpart, and why. */
export const absentTypes: Readonly<Record<string, string>> = {
  'disagg-profile-handler': disaggregation,
  'pd-profile-handler': disaggregation,
  'prefix-based-pd-decider': disaggregation,
  'always-disagg-pd-decider': disaggregation,
  'always-disagg-multimodal-decider': disaggregation,
  'disagg-headers-handler': disaggregation,
  'prefill-header-handler': disaggregation,
  'p2p-source-producer': disaggregation,
  'header-profile-handler': 'a pool has one profile; give each its pool',
  'predicted-latency-producer': prediction,
  'latency-scorer': prediction,
  'slo-headroom-tier-filter': prediction,
  'latency-slo-admitter': prediction,
  'slo-deadline-ordering-policy': prediction,
  'endpoint-attribute-filter': attributes,
  'endpoint-attribute-scorer': attributes,
  'dcgm-data-source': attributes,
  'dcgm-extractor': attributes,
  'request-attribute-reporter': 'the log line and the metrics tell what a request was',
  'topology-affinity-filter': 'use the filter `label` or the scorer `label-preference` on the label of a zone or rack',
  'topology-affinity-scorer': 'use the scorer `label-preference` on the label of a zone or rack',
  'mm-embeddings-cache-scorer': 'caches of image embeddings are not tracked',
  'mm-embeddings-cache-producer': 'caches of image embeddings are not tracked',
  'burst-prefix-cache-producer': 'prompts on their way are credited anyway (`coming`); take it out',
  'multicluster-session-affinity-filter': clusters,
  'multicluster-prefix-cache-scorer': clusters,
  'multicluster-queue-scorer': clusters,
  'multicluster-kv-cache-utilization-scorer': clusters,
  'multicluster-approx-prefix-cache-producer': clusters,
  'multicluster-file-discovery': clusters,
  'multicluster-metrics-data-source': clusters,
  'multicluster-metrics-extractor': clusters,
  'probabilistic-admitter': 'requests are admitted by `admission`, not by chance',
  'program-aware-fairness': 'requests wait in turn by key and priority (`admission`)',
  'edf-ordering-policy': 'requests have no deadlines here',
  'priority-holdback-policy': 'requests wait by priority (`admission`), nothing is held back',
  'soft-reflective-ceiling-policy': 'requests wait by priority (`admission`), nothing is held back',
  'priority-then-time-eviction-order-policy': 'running requests are never evicted',
  'sheddable-eviction-filter': 'running requests are never evicted',
  'disaggregatedset-rollout-screener': disaggregation,
  'agent-identity': 'sessions are told by headers',
  'local-syncer': 'replicas share what they know by Redis (`redis`)',
  'cross-replica-publisher': 'replicas share what they know by Redis (`redis`)',
  'vllmgrpc-parser': 'engines are spoken to by HTTP',
  'vertexai-parser': 'its paths are not served',
}

/** Types that llm-d is giving up, with what it has instead. */
export const deprecatedTypes: Readonly<Record<string, string>> = {
  'by-label': 'label-selector-filter',
  'by-label-selector': 'label-selector-filter',
  'precise-prefix-cache-scorer': 'prefix-cache-scorer with precise-prefix-cache-producer',
  tokenizer: 'token-producer',
  'data-parallel-profile-handler': 'one endpoint a rank',
}

/** Types that stand for another one here. */
export const sameTypes: Readonly<Record<string, string>> = { 'precise-prefix-cache-scorer': 'prefix-cache-scorer' }

/** Parameters by which plugins find each other, or that llm-d ignores; there is nothing to set here. */
export const needlessParameters: ReadonlySet<string> = new Set([
  'prefixMatchInfoProducerName',
  'inFlightLoadProducerName',
  'latencyPredictionInfoProducerName',
  'prefixPluginType',
  'prefixPluginName',
  'requestTimeout',
  'profileName',
])
