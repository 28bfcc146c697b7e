import Type from 'typebox'
import { definePolicy, type PolicyPlugin } from '../policy.ts'

/** By what the router itself has in flight on a worker: llm-d's in-flight load is this router's accounting. */
export const inFlightScorers: readonly PolicyPlugin[] = [
  definePolicy({
    kind: 'scorer',
    type: 'token-load-scorer',
    description:
      'llm-d: 1 for a worker with no uncached prompt tokens in flight, this request’s counted, down to 0 at the threshold.',
    parameters: Type.Object(
      {
        queueThresholdTokens: Type.Integer({
          description: 'Tokens in flight that score 0.',
          minimum: 1,
          default: 4_194_304,
        }),
      },
      { additionalProperties: false },
    ),
    create: ({ queueThresholdTokens }) => ({
      score({ promptTokensEstimate }, { count, prefillTokens }, { cachedTokens }, out) {
        for (let i = 0; i < count; i++) {
          const own = Math.max(0, promptTokensEstimate - (cachedTokens[i] as number))
          out[i] = 1 - Math.min(1, ((prefillTokens[i] as number) + own) / queueThresholdTokens)
        }
      },
    }),
  }),
  definePolicy({
    kind: 'scorer',
    type: 'active-request-scorer',
    description: 'llm-d: 1 for an idle worker, the others by requests in flight, 0 for the busiest.',
    parameters: Type.Object(
      {
        idleThreshold: Type.Integer({
          description: 'Requests in flight up to which a worker is idle.',
          minimum: 0,
          default: 0,
        }),
        maxBusyScore: Type.Number({
          description: 'Most that a worker scores that is not idle.',
          minimum: 0,
          maximum: 1,
          default: 1,
        }),
      },
      { additionalProperties: false },
    ),
    create: ({ idleThreshold, maxBusyScore }) => ({
      score(_request, { count, requests }, _match, out, keep) {
        let most = 0
        for (let i = 0; i < count; i++) if (keep[i] === 1) most = Math.max(most, requests[i] as number)
        for (let i = 0; i < count; i++) {
          if (keep[i] !== 1) continue
          const active = requests[i] as number
          out[i] = active <= idleThreshold ? 1 : ((most - active) / most) * maxBusyScore
        }
      },
    }),
  }),
]
