import Type from 'typebox'
import { definePolicy } from '../policy.ts'

/**
 * Leaves out workers where waiting costs more than the match saves: those whose queue and own share of the prompt take
 * longer than on the best other worker, by more than the margin.
 */
export const matchWait = definePolicy({
  kind: 'filter',
  type: 'match-wait',
  reason: 'match_loaded',
  description: 'Leaves out workers whose queue takes longer than to compute the prompt on another one.',
  parameters: Type.Object(
    {
      prefillTokensPerSecond: Type.Number({
        description: 'Prefill rate of a worker.',
        exclusiveMinimum: 0,
        default: 8000,
      }),
      marginMs: Type.Number({
        description: 'By how much a worker may be behind the best before it is left out.',
        minimum: 0,
        default: 50,
      }),
    },
    { additionalProperties: false },
  ),
  create({ prefillTokensPerSecond, marginMs }) {
    const msPerToken = 1000 / prefillTokensPerSecond
    return {
      filter(request, fleet, match, keep) {
        const msOf = (i: number): number => {
          const uncached = Math.max(0, request.promptTokensEstimate - match.creditTokens(i, msPerToken))
          return ((fleet.prefillTokens[i] as number) + uncached) * msPerToken
        }
        let leastMs = Infinity
        for (let i = 0; i < fleet.count; i++) if (keep[i] === 1) leastMs = Math.min(leastMs, msOf(i))
        for (let i = 0; i < fleet.count; i++) if (keep[i] === 1 && msOf(i) > leastMs + marginMs) keep[i] = 0
      },
    }
  },
})
