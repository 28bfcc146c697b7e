/**
 * Dynamo's, sglang-router's and llm-d's policies at other settings than their defaults, beside the default of this router at its own, in
 * the same virtual time: whoever tunes them for a workload gets the best of these.
 */
import { printResults, type BenchResult } from '../result.ts'
import { compareVariants, oneByOne, settings, type Variant } from './variants.ts'

const dynamo: Readonly<Record<string, readonly number[]>> = {
  prefill_load_scale: [1, 4, 16, 64, 256],
  overlap_score_credit: [1.5, 3],
}
/** What it calls a prefix match, and an imbalance; by its defaults 0.3 and 64 requests. */
const sglang: Readonly<Record<string, readonly number[]>> = {
  cacheThreshold: [0.3, 0.5, 0.8],
  balanceAbsThreshold: [2, 4, 8, 16],
}

/** Weights of its scorers. */
const llmdDefault = { 'queue-scorer': 2, 'kv-cache-utilization-scorer': 2, 'prefix-cache-scorer': 3 }
const llmd: readonly Readonly<Record<string, number>>[] = [
  {},
  ...[1, 6, 12].map((weight) => ({ 'prefix-cache-scorer': weight })),
  { 'queue-scorer': 4 },
  { 'kv-cache-utilization-scorer': 0.5 },
  // Its scorers by what it has under way itself, which are newer than what it measures.
  ...['active-request-scorer', 'token-load-scorer'].flatMap((type) => [1, 3].map((weight) => ({ [type]: weight }))),
  { 'kv-cache-utilization-scorer': 0.5, 'token-load-scorer': 2 },
  { 'kv-cache-utilization-scorer': 0.5, 'token-load-scorer': 2, 'prefix-cache-scorer': 6 },
]

const variants: readonly Variant[] = [
  ...oneByOne(dynamo).map(([name, parameters]): Variant => ({
    name: `dynamo, ${name}`,
    policy: {
      name: 'dynamo',
      filters: [{ type: 'adapter-loaded' }],
      scorers: [{ type: 'dynamo-cost', parameters }],
      picker: { type: 'softmax' },
    },
  })),
  ...oneByOne(sglang).map(([name, parameters]): Variant => ({
    name: `sglang, ${name}`,
    policy: { name: 'sglang', picker: { type: 'sglang-cache-aware', parameters } },
  })),
  ...llmd.map((changed): Variant => ({
    name: ['llm-d’s scores', ...Object.entries(changed).map(([type, weight]) => `${type} ${weight}`)].join(', '),
    policy: {
      name: 'llm-d',
      scorers: Object.entries({ ...llmdDefault, ...changed }).map(([type, weight]) => ({ type, weight })),
      picker: { type: 'max-score-picker' },
    },
  })),
]

export async function run(): Promise<BenchResult[]> {
  const results: BenchResult[] = []
  for (const setting of settings) results.push(...(await compareVariants(setting, variants)))
  return results
}

if (import.meta.main) printResults(await run())
