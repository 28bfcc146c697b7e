import Type from 'typebox'
import { definePolicy } from '../policy.ts'

/** Minus the requests in flight on the worker. */
export const leastRequests = definePolicy({
  kind: 'scorer',
  type: 'least-requests',
  description: 'Fewest requests in flight.',
  parameters: Type.Object({}, { additionalProperties: false }),
  create() {
    return {
      score(_request, fleet, _match, out) {
        for (let i = 0; i < fleet.count; i++) out[i] = -(fleet.requests[i] as number)
      },
    }
  },
})
