import Type from 'typebox'
import { definePolicy } from '../policy.ts'

/** Minus the prompt tokens in flight that have not been computed: the best load figure where nothing is known of caches. */
export const leastTokens = definePolicy({
  kind: 'scorer',
  type: 'least-tokens',
  description: 'Fewest prompt tokens in flight that have not been computed.',
  parameters: Type.Object({}, { additionalProperties: false }),
  create() {
    return {
      score(_request, fleet, _match, out) {
        for (let i = 0; i < fleet.count; i++) out[i] = -(fleet.prefillTokens[i] as number)
      },
    }
  },
})
