import Type from 'typebox'
import { definePolicy } from '../policy.ts'

/** What it costs to leave the preferred zone, rack or kind of worker, in milliseconds, so that it adds to predicted times. */
export const labelPreference = definePolicy({
  kind: 'scorer',
  type: 'label-preference',
  description: 'A cost in milliseconds for workers without a label’s value, fixed or named by a header of the request.',
  parameters: Type.Object(
    {
      label: Type.String({ description: 'Name of the label.', minLength: 1 }),
      value: Type.Optional(Type.String({ description: 'The preferred value.' })),
      header: Type.Optional(
        Type.String({
          description: 'Header of the request with the preferred value; goes before `value`.',
          minLength: 1,
        }),
      ),
      costMs: Type.Number({ description: 'What another value costs.', minimum: 0, default: 50 }),
    },
    { additionalProperties: false },
  ),
  create({ label, value, header, costMs }) {
    if (value === undefined && header === undefined) throw new Error('give "value", "header" or both')
    const headerName = header?.toLowerCase()
    return {
      score(request, fleet, _match, out) {
        const told = headerName === undefined ? null : request.header(headerName)?.trim()
        const wanted = told === null || told === undefined || told === '' ? value : told
        if (wanted === undefined) return
        for (let i = 0; i < fleet.count; i++) out[i] = fleet.labels[i]?.[label] === wanted ? 0 : -costMs
      },
    }
  },
})
