import Type from 'typebox'
import { definePolicy } from '../policy.ts'

/** Share of the prompt that is cached on the worker, blocks in slower tiers counted for what they save, 0..1. */
export const prefix = definePolicy({
  kind: 'scorer',
  type: 'prefix',
  description: 'Share of the prompt that the worker holds in its cache.',
  parameters: Type.Object({}, { additionalProperties: false }),
  create() {
    return {
      score(request, fleet, match, out) {
        if (request.promptTokens === 0) return
        for (let i = 0; i < fleet.count; i++) out[i] = match.creditTokens(i) / request.promptTokens
      },
    }
  },
})
