import Type from 'typebox'
import { definePolicy, type PolicyPlugin } from '../policy.ts'

const parameters = Type.Object(
  {
    maxNumOfEndpoints: Type.Literal(1, {
      description: 'One worker is picked; another is only chosen when a request has to be sent again.',
      default: 1,
    }),
  },
  { additionalProperties: false },
)

export const pickers: readonly PolicyPlugin[] = [
  definePolicy({
    kind: 'picker',
    type: 'max-score-picker',
    description: 'llm-d: the highest total; any of those that have it.',
    parameters,
    create: (_parameters, { random }) => ({
      pick(_request, { count }, _match, totals, keep) {
        return highest(count, keep, (i) => totals[i] as number, random)
      },
    }),
  }),
  definePolicy({
    kind: 'picker',
    type: 'random-picker',
    description: 'llm-d: any candidate, whatever its total.',
    parameters,
    create: (_parameters, { random }) => ({
      pick(_request, { count }, _match, _totals, keep) {
        return highest(count, keep, () => 0, random)
      },
    }),
  }),
  definePolicy({
    kind: 'picker',
    type: 'weighted-random-picker',
    description: 'llm-d: any candidate, as likely as its total is high (Efraimidis and Spirakis 2006, A-Res).',
    parameters,
    create: (_parameters, { random }) => ({
      pick(_request, { count }, _match, totals, keep) {
        // The key of a total of 0 is 0: it is picked only where all are.
        const keyOf = (i: number): number =>
          (totals[i] as number) > 0 ? Math.max(random(), 1e-10) ** (1 / (totals[i] as number)) : 0
        return highest(count, keep, keyOf, random)
      },
    }),
  }),
]

/** Index of the highest figure among those that are kept; any of those that have it. */
function highest(count: number, keep: Uint8Array, figureOf: (i: number) => number, random: () => number): number {
  let chosen = -1
  let most = -Infinity
  let equal = 0
  for (let i = 0; i < count; i++) {
    if (keep[i] !== 1) continue
    const figure = figureOf(i)
    if (figure > most) equal = 0
    if (figure < most || random() * ++equal >= 1) continue
    chosen = i
    most = figure
  }
  return chosen
}
