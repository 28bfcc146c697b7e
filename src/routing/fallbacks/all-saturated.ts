import Type from 'typebox'
import { definePolicy } from '../policy.ts'

/** Applies where every worker has too much to do before it could begin: then where the prefix lies matters less. */
export const allSaturated = definePolicy({
  kind: 'fallback',
  type: 'all-saturated',
  reason: 'all_saturated',
  description: 'Applies where the queue of every worker takes too long.',
  parameters: Type.Object(
    {
      waitMs: Type.Number({ description: 'Queue of a worker that is too long.', exclusiveMinimum: 0, default: 5000 }),
      prefillTokensPerSecond: Type.Number({
        description: 'Prefill rate of a worker.',
        exclusiveMinimum: 0,
        default: 8000,
      }),
    },
    { additionalProperties: false },
  ),
  create({ waitMs, prefillTokensPerSecond }) {
    const mostTokens = (waitMs / 1000) * prefillTokensPerSecond
    return {
      applies(_request, fleet, _match, keep) {
        for (let i = 0; i < fleet.count; i++)
          if (keep[i] === 1 && (fleet.prefillTokens[i] as number) < mostTokens) return false
        return true
      },
    }
  },
})
