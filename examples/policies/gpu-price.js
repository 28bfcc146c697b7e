import { definePolicy } from 'warmroute'

/**
 * Prefers cheap GPUs while they are fast enough: what a request costs there in money, turned into milliseconds by what a
 * second of a client's waiting is worth. Adds to `predicted-ttft`.
 */
export default definePolicy({
  kind: 'scorer',
  type: 'gpu-price',
  description: 'What the prompt’s prefill costs on the worker’s GPU, in milliseconds of waiting.',
  parameters: {
    type: 'object',
    properties: {
      label: { type: 'string', default: 'pricePerHour', description: 'Label with the price of the worker’s GPUs.' },
      prefillTokensPerSecond: { type: 'number', exclusiveMinimum: 0, default: 8000, description: 'Prefill rate.' },
      secondIsWorth: {
        type: 'number',
        exclusiveMinimum: 0,
        default: 0.001,
        description: 'Money for a second less of waiting.',
      },
    },
    additionalProperties: false,
  },
  create({ label, prefillTokensPerSecond, secondIsWorth }) {
    return {
      score(request, fleet, match, out) {
        for (let i = 0; i < fleet.count; i++) {
          const price = Number(fleet.labels[i][label] ?? 0)
          if (!(price > 0)) continue
          const tokens = Math.max(0, request.promptTokensEstimate - match.creditTokens(i))
          const money = (price / 3600) * (tokens / prefillTokensPerSecond)
          out[i] = (-1000 * money) / secondIsWorth
        }
      },
    }
  },
})
