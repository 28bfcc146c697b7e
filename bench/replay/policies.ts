import { oraclePolicy } from '../../src/replay/replay.ts'
import type { ProfileChoice } from '../../src/routing/catalogue.ts'

export interface ComparedPolicy {
  readonly name: string
  readonly policy: string | ProfileChoice
}

/** The default, which all others are compared with. */
export const own: ComparedPolicy = { name: 'kv-aware', policy: 'kv-aware' }

/** Sees the engines' true caches and queues. */
export const oracle: ComparedPolicy = { name: 'oracle (greedy)', policy: oraclePolicy }

/**
 * Those that know of caches, at their defaults. What bears another router's name is proven equal to it (docs/parity.md); of llm-d the filters
 * and scorers are, which see more here than its own knowledge of the caches.
 */
export const cacheAware: readonly ComparedPolicy[] = [
  { name: 'dynamo', policy: 'dynamo' },
  { name: 'sglang', policy: 'sglang' },
  { name: 'llm-d’s scores', policy: 'llm-d' },
]

/** What the default is compared with. */
export const others: readonly ComparedPolicy[] = [
  ...cacheAware,
  { name: 'round-robin', policy: 'round-robin' },
  { name: 'least-loaded', policy: 'least-loaded' },
]

/** Rivals at the best settings that `npm run bench knobs` finds for these workloads. */
export const tuned: readonly ComparedPolicy[] = [
  {
    name: 'dynamo, tuned',
    policy: {
      name: 'dynamo',
      filters: [{ type: 'adapter-loaded' }],
      scorers: [{ type: 'dynamo-cost', parameters: { prefill_load_scale: 256 } }],
      picker: { type: 'softmax' },
    },
  },
  {
    name: 'llm-d’s scores, tuned',
    policy: {
      name: 'llm-d',
      scorers: [
        { type: 'queue-scorer', weight: 2 },
        { type: 'kv-cache-utilization-scorer', weight: 0.5 },
        { type: 'prefix-cache-scorer', weight: 6 },
        { type: 'token-load-scorer', weight: 2 },
      ],
      picker: { type: 'max-score-picker' },
    },
  },
]
