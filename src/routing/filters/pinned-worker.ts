import Type from 'typebox'
import { definePolicy } from '../policy.ts'

/** Keeps the worker that a header of the request names by its id. For clients that may know the fleet. */
export const pinnedWorker = definePolicy({
  kind: 'filter',
  type: 'pinned-worker',
  reason: 'pinned_elsewhere',
  description: 'Keeps the worker that a header of the request names by its id.',
  parameters: Type.Object(
    {
      header: Type.String({ description: 'Name of the header.', minLength: 1, default: 'x-warmroute-pin' }),
      required: Type.Boolean({
        description: 'Whether a request is refused where the named worker cannot take it, and not sent elsewhere.',
        default: true,
      }),
    },
    { additionalProperties: false },
  ),
  create({ header, required }) {
    const name = header.toLowerCase()
    return {
      required,
      filter(request, fleet, _match, keep) {
        const id = request.header(name)
        if (id === null || id === '') return
        for (let i = 0; i < fleet.count; i++) if (fleet.ids[i] !== id) keep[i] = 0
      },
    }
  },
})
