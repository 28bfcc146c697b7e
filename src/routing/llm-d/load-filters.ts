import Type from 'typebox'
import { definePolicy, type PolicyFleet, type PolicyPlugin } from '../policy.ts'
import { matchRatio } from './prefix-match.ts'

const metric = Type.Union([
  Type.Literal('active-requests'),
  Type.Literal('running-requests'),
  Type.Literal('waiting-queue'),
  Type.Literal('kv-cache-utilization'),
])
type Metric = Type.Static<typeof metric>

const utilizationFilter = definePolicy({
  kind: 'filter',
  type: 'utilization-filter',
  reason: 'utilization',
  description: 'llm-d: leaves out workers of which a figure exceeds its limit.',
  parameters: Type.Object(
    {
      conditions: Type.Array(
        Type.Object({ metric, maxValue: Type.Number({ minimum: 0 }) }, { additionalProperties: false }),
        {
          description:
            'Figures with the most that each may be: active-requests (this router’s), running-requests, waiting-queue and kv-cache-utilization (0 to 1; the engine’s).',
          minItems: 1,
        },
      ),
      fallbackOnEmpty: Type.Boolean({
        description: 'Whether a request that this leaves no worker goes to any; false: it is refused.',
        default: false,
      }),
    },
    { additionalProperties: false },
  ),
  create({ conditions, fallbackOnEmpty }) {
    for (const { metric, maxValue } of conditions)
      if (metric === 'kv-cache-utilization' && maxValue > 1) throw new Error(`maxValue of ${metric} is at most 1`)
    return {
      required: !fallbackOnEmpty,
      filter(_request, fleet, _match, keep) {
        for (const { metric, maxValue } of conditions)
          // What an engine has not told is no reason against it.
          for (let i = 0; i < fleet.count; i++) if (figureOf(fleet, metric, i) > maxValue) keep[i] = 0
      },
    }
  },
})

/** Keeps to the workers that hold most of the prompt, unless their queues cost more than the penalty allows. */
const prefixCacheAffinityFilter = definePolicy({
  kind: 'filter',
  type: 'prefix-cache-affinity-filter',
  description:
    'llm-d: leaves only workers that hold most of the prompt, unless the shortest queue among them is too much longer than elsewhere.',
  parameters: Type.Object(
    {
      affinityThreshold: Type.Number({
        description: 'Share of the prompt’s blocks that such a worker holds; 0: off.',
        maximum: 1,
        default: 0.8,
      }),
      explorationProbability: Type.Number({
        description: 'Share of requests for which all workers are kept.',
        minimum: 0,
        maximum: 1,
        default: 0,
      }),
      maxTTFTPenaltyMs: Type.Number({
        description: 'Most that the shortest queue among them may be longer than elsewhere, in ms; 0: no limit.',
        minimum: 0,
        default: 18_000,
      }),
      ttftSource: Type.Literal('prefillThroughput', {
        description: 'Queues are told from the tokens in flight; llm-d’s latencyPredictor is not there.',
        default: 'prefillThroughput',
      }),
      peakPrefillThroughput: Type.Number({
        description: 'Prefill rate of a worker, tokens a second.',
        exclusiveMinimum: 0,
        default: 15_928,
      }),
    },
    { additionalProperties: false },
  ),
  create({ affinityThreshold, explorationProbability, maxTTFTPenaltyMs, peakPrefillThroughput }, { random }) {
    const waitMs = (tokens: number): number => (tokens / peakPrefillThroughput) * 1000
    return {
      filter(request, fleet, match, keep) {
        if (affinityThreshold <= 0 || random() < explorationProbability) return
        let shortestHolder = Infinity
        let shortestOther = Infinity
        for (let i = 0; i < fleet.count; i++) {
          if (keep[i] !== 1) continue
          const tokens = fleet.prefillTokens[i] as number
          if (matchRatio(request, fleet, match, i) >= affinityThreshold)
            shortestHolder = Math.min(shortestHolder, tokens)
          else shortestOther = Math.min(shortestOther, tokens)
        }
        if (shortestHolder === Infinity || shortestOther === Infinity) return
        if (maxTTFTPenaltyMs > 0 && waitMs(shortestHolder) - waitMs(shortestOther) > maxTTFTPenaltyMs) return
        for (let i = 0; i < fleet.count; i++) if (matchRatio(request, fleet, match, i) < affinityThreshold) keep[i] = 0
      },
    }
  },
})

export const loadFilters: readonly PolicyPlugin[] = [utilizationFilter, prefixCacheAffinityFilter]

function figureOf({ requests, running, waiting, kvUsage }: PolicyFleet, metric: Metric, i: number): number {
  switch (metric) {
    case 'active-requests':
      return requests[i] as number
    case 'running-requests':
      return running[i] as number
    case 'waiting-queue':
      return waiting[i] as number
    case 'kv-cache-utilization':
      return kvUsage[i] as number
    default:
      return metric satisfies never
  }
}
