import Type from 'typebox'
import { definePolicy, type Filter, type PolicyPlugin } from '../policy.ts'

type Labels = Readonly<Record<string, string>>

const roleLabel = 'llm-d.ai/role'

/** Roles by which each filter keeps a worker, and whether it keeps one without a role. */
const roles: Readonly<Record<string, { readonly kept: readonly string[]; readonly allowsNoLabel: boolean }>> = {
  'decode-filter': { kept: ['decode', 'prefill-decode', 'both', 'encode-prefill-decode'], allowsNoLabel: true },
  'prefill-filter': {
    kept: ['prefill', 'encode-prefill', 'prefill-decode', 'both', 'encode-prefill-decode'],
    allowsNoLabel: false,
  },
  'encode-filter': { kept: ['encode', 'encode-prefill', 'encode-prefill-decode'], allowsNoLabel: false },
}

const roleFilters = Object.entries(roles).map(([type, { kept, allowsNoLabel }]) =>
  definePolicy({
    kind: 'filter',
    type,
    reason: 'label',
    description: `llm-d: keeps workers whose label ${roleLabel} is one of ${kept.join(', ')}${allowsNoLabel ? ', or absent' : ''}.`,
    parameters: Type.Object({}, { additionalProperties: false }),
    create: () => byLabels((labels) => isOneOf(labels[roleLabel], kept, allowsNoLabel)),
  }),
)

const byLabel = definePolicy({
  kind: 'filter',
  type: 'by-label',
  reason: 'label',
  description: 'llm-d (deprecated there): keeps workers whose label has one of the values.',
  parameters: Type.Object(
    {
      label: Type.String({ description: 'Name of the label.', minLength: 1 }),
      validValues: Type.Array(Type.String(), { description: 'Values that are kept.', default: [] }),
      allowsNoLabel: Type.Boolean({ description: 'Whether workers without the label are kept.', default: false }),
    },
    { additionalProperties: false },
  ),
  create({ label, validValues, allowsNoLabel }) {
    if (validValues.length === 0 && !allowsNoLabel) throw new Error('give validValues, or allowsNoLabel: true')
    return byLabels((labels) => isOneOf(labels[label], validValues, allowsNoLabel))
  },
})

const selectorParameters = Type.Object(
  {
    matchLabels: Type.Record(Type.String(), Type.String(), {
      description: 'Labels that a worker must have, with their values.',
      default: {},
    }),
    matchExpressions: Type.Array(
      Type.Object(
        {
          key: Type.String({ minLength: 1 }),
          operator: Type.Union([
            Type.Literal('In'),
            Type.Literal('NotIn'),
            Type.Literal('Exists'),
            Type.Literal('DoesNotExist'),
          ]),
          values: Type.Optional(Type.Array(Type.String())),
        },
        { additionalProperties: false },
      ),
      { description: 'Conditions as in a Kubernetes label selector: In, NotIn, Exists, DoesNotExist.', default: [] },
    ),
  },
  { additionalProperties: false },
)

type Selector = Type.Static<typeof selectorParameters>

const selectorFilters = ['label-selector-filter', 'by-label-selector'].map((type) =>
  definePolicy({
    kind: 'filter',
    type,
    reason: 'label',
    description: `llm-d${type === 'by-label-selector' ? ' (deprecated there)' : ''}: keeps workers that a Kubernetes label selector matches.`,
    parameters: selectorParameters,
    create: (selector) => byLabels((labels) => isSelected(labels, selector)),
  }),
)

export const labelFilters: readonly PolicyPlugin[] = [...selectorFilters, byLabel, ...roleFilters]

function byLabels(keeps: (labels: Labels) => boolean): Filter {
  return {
    required: true,
    filter(_request, { count, labels }, _match, keep) {
      for (let i = 0; i < count; i++) if (!keeps(labels[i] ?? {})) keep[i] = 0
    },
  }
}

function isOneOf(value: string | undefined, kept: readonly string[], allowsNoLabel: boolean): boolean {
  return value === undefined ? allowsNoLabel : kept.includes(value)
}

function isSelected(labels: Labels, { matchLabels, matchExpressions }: Selector): boolean {
  for (const [name, value] of Object.entries(matchLabels)) if (labels[name] !== value) return false
  return matchExpressions.every(({ key, operator, values = [] }) => {
    const value = labels[key]
    switch (operator) {
      case 'In':
        return value !== undefined && values.includes(value)
      case 'NotIn':
        return value === undefined || !values.includes(value)
      case 'Exists':
        return value !== undefined
      case 'DoesNotExist':
        return value === undefined
      default:
        return operator satisfies never
    }
  })
}
