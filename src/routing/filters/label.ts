import Type from 'typebox'
import { definePolicy } from '../policy.ts'

/**
 * Keeps workers with a label: a zone, a rack, a taint, a tenant. The wanted value is fixed, or the request says it in a
 * header; without one, or with an empty one, nobody is left out. Required: a request that no worker suits is refused
 * instead of sent elsewhere.
 */
export const label = definePolicy({
  kind: 'filter',
  type: 'label',
  reason: 'label_missing',
  description: 'Keeps workers with a label’s value, fixed or named by a header of the request.',
  parameters: Type.Object(
    {
      label: Type.String({ description: 'Name of the label.', minLength: 1 }),
      value: Type.Optional(Type.String({ description: 'The wanted value.' })),
      header: Type.Optional(
        Type.String({
          description: 'Header of the request with the wanted values, separated by commas; goes before `value`.',
          minLength: 1,
        }),
      ),
      required: Type.Boolean({
        description: 'Whether a request is refused where no worker has the label, and not sent elsewhere.',
        default: false,
      }),
    },
    { additionalProperties: false },
  ),
  create({ label: name, value, header, required }) {
    if (value === undefined && header === undefined) throw new Error('give "value", "header" or both')
    const headerName = header?.toLowerCase()
    return {
      required,
      filter(request, fleet, _match, keep) {
        const told = headerName === undefined ? null : request.header(headerName)
        const among = told === null || told.trim() === '' ? [value] : told.split(',').map((text) => text.trim())
        if (among[0] === undefined) return
        for (let i = 0; i < fleet.count; i++) if (!among.includes(fleet.labels[i]?.[name] ?? '')) keep[i] = 0
      },
    }
  },
})
