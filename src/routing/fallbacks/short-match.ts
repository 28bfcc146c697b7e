import Type from 'typebox'
import { definePolicy } from '../policy.ts'

/** Applies where the longest match is too short to be worth following. */
export const shortMatch = definePolicy({
  kind: 'fallback',
  type: 'short-match',
  reason: 'match_short',
  description: 'Applies where no worker holds enough of the prompt.',
  parameters: Type.Object(
    {
      leastTokens: Type.Integer({
        description: 'Cached tokens, those on their way counted, below which a match is too short.',
        minimum: 0,
        default: 256,
      }),
      leastShare: Type.Number({
        description: 'Share of the prompt below which a match is too short.',
        minimum: 0,
        maximum: 1,
        default: 0,
      }),
    },
    { additionalProperties: false },
  ),
  create({ leastTokens, leastShare }) {
    return {
      applies(request, fleet, match, keep) {
        let longest = 0
        for (let i = 0; i < fleet.count; i++) {
          if (keep[i] !== 1) continue
          longest = Math.max(longest, (match.cachedTokens[i] as number) + (match.comingTokens[i] as number))
        }
        return longest < leastTokens || longest < leastShare * request.promptTokens
      },
    }
  },
})
