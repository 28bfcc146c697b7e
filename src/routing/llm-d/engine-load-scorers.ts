import Type from 'typebox'
import { definePolicy, type PolicyPlugin, type Scorer } from '../policy.ts'

const none = Type.Object({}, { additionalProperties: false })

/** What an engine says of its queue, its running requests and its memory. One that has not told counts as empty, as in llm-d. */
export const engineLoadScorers: readonly PolicyPlugin[] = [
  definePolicy({
    kind: 'scorer',
    type: 'queue-scorer',
    description: 'llm-d: the shorter the engine’s queue among the candidates, the better, 0..1.',
    parameters: none,
    create: () => ({
      score(_request, { count, waiting }, _match, out, keep) {
        scoreLowest(waiting, count, out, keep)
      },
    }),
  }),
  definePolicy({
    kind: 'scorer',
    type: 'running-requests-size-scorer',
    description: 'llm-d: the fewer requests the engine runs among the candidates, the better, 0..1.',
    parameters: none,
    create: () => ({
      score(_request, { count, running }, _match, out, keep) {
        scoreLowest(running, count, out, keep)
      },
    }),
  }),
  definePolicy({
    kind: 'scorer',
    type: 'kv-cache-utilization-scorer',
    description: 'llm-d: the share of the engine’s KV cache that is free.',
    parameters: none,
    create: () => ({
      score(_request, { count, kvUsage }, _match, out) {
        for (let i = 0; i < count; i++) out[i] = Math.max(0, 1 - told(kvUsage[i] as number))
      },
    }),
  }),
  definePolicy({
    kind: 'scorer',
    type: 'load-aware-scorer',
    description: 'llm-d: 0.5 for an empty queue, down to 0 at the threshold.',
    parameters: Type.Object(
      { threshold: Type.Integer({ description: 'Waiting requests that score 0.', minimum: 1, default: 128 }) },
      { additionalProperties: false },
    ),
    create: ({ threshold }): Scorer => ({
      score(_request, { count, waiting }, _match, out) {
        for (let i = 0; i < count; i++) {
          out[i] = 0.5 * (1 - Math.min(told(waiting[i] as number), threshold) / threshold)
        }
      },
    }),
  }),
]

/** (max − x) / (max − min) over the candidates that are left; 1 where all have the same. */
function scoreLowest(figures: Float64Array, count: number, out: Float64Array, keep: Uint8Array): void {
  let least = Infinity
  let most = -Infinity
  for (let i = 0; i < count; i++) {
    if (keep[i] !== 1) continue
    const figure = told(figures[i] as number)
    least = Math.min(least, figure)
    most = Math.max(most, figure)
  }
  for (let i = 0; i < count; i++) {
    if (keep[i] === 1) out[i] = most === least ? 1 : (most - told(figures[i] as number)) / (most - least)
  }
}

function told(figure: number): number {
  return Number.isNaN(figure) ? 0 : figure
}
