import Type from 'typebox'
import { definePolicy, type PolicyPlugin } from '../policy.ts'

/** By what a worker was labelled with, or has loaded. */
export const labelScorers: readonly PolicyPlugin[] = [
  definePolicy({
    kind: 'scorer',
    type: 'lora-affinity-scorer',
    description:
      'llm-d: 1 for a worker that has the request’s adapter loaded, 0.8 for any other: how many more one may load is not known here.',
    parameters: Type.Object({}, { additionalProperties: false }),
    create: () => ({
      score(_request, { count, hasAdapter }, _match, out) {
        for (let i = 0; i < count; i++) out[i] = hasAdapter[i] === 1 ? 1 : 0.8
      },
    }),
  }),
  definePolicy({
    kind: 'scorer',
    type: 'header-label-affinity-scorer',
    description: 'llm-d: 1 for a worker whose label has the value of the request’s header.',
    parameters: Type.Object(
      {
        headerName: Type.String({ description: 'Header of the request.', minLength: 1 }),
        labelKey: Type.String({ description: 'Label of the workers.', minLength: 1 }),
      },
      { additionalProperties: false },
    ),
    create({ headerName, labelKey }) {
      const name = headerName.toLowerCase()
      return {
        score(request, { count, labels }, _match, out) {
          const wanted = request.header(name) ?? ''
          if (wanted === '') return
          for (let i = 0; i < count; i++) if (labels[i]?.[labelKey] === wanted) out[i] = 1
        },
      }
    },
  }),
]
