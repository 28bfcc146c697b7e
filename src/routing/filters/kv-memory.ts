import Type from 'typebox'
import { definePolicy } from '../policy.ts'

/** Leaves out workers whose KV memory has no room for the request, as far as the engine's own fresh figure tells. */
export const kvMemory = definePolicy({
  kind: 'filter',
  type: 'kv-memory',
  reason: 'kv_memory_full',
  description: 'Leaves out workers whose KV cache has no room left for the request, by their own figures.',
  parameters: Type.Object(
    {
      maxUsage: Type.Number({
        description: 'Share of its blocks in use by running requests at which a worker is left out.',
        minimum: 0,
        maximum: 1,
        default: 0.97,
      }),
      spareTokens: Type.Integer({
        description: 'Tokens that have to be free beyond those of the prompt that the worker would compute.',
        minimum: 0,
        default: 0,
      }),
    },
    { additionalProperties: false },
  ),
  create({ maxUsage, spareTokens }) {
    return {
      filter(request, fleet, match, keep) {
        for (let i = 0; i < fleet.count; i++) {
          const usage = fleet.kvUsage[i] as number
          if (Number.isNaN(usage)) continue
          const capacity = (fleet.capacityBlocks[i] as number) * (fleet.blockSize[i] as number)
          const needed = request.promptTokensEstimate - (match.cachedTokens[i] as number) + spareTokens
          const isFull = usage >= maxUsage || (capacity > 0 && (1 - usage) * capacity < needed)
          if (isFull) keep[i] = 0
        }
      },
    }
  },
})
