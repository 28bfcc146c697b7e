import Type from 'typebox'
import { definePolicy } from '../policy.ts'

/** Refuses workers with `maxRequests` or more requests in flight; when all are at the limit the filter is void. */
export const requestLimit = definePolicy({
  kind: 'filter',
  type: 'request-limit',
  reason: 'requests_full',
  description: 'Leaves out workers with too many requests in flight.',
  parameters: Type.Object(
    {
      maxRequests: Type.Integer({
        description: 'Requests in flight at which a worker is left out.',
        minimum: 1,
        default: 256,
      }),
    },
    { additionalProperties: false },
  ),
  create({ maxRequests }) {
    return {
      filter(_request, fleet, _match, keep) {
        for (let i = 0; i < fleet.count; i++) if ((fleet.requests[i] as number) >= maxRequests) keep[i] = 0
      },
    }
  },
})
