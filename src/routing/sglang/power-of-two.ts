import Type from 'typebox'
import { definePolicy, type PolicyFleet } from '../policy.ts'

/**
 * sglang-router's `power_of_two`: of two random workers the one whose engine holds fewer tokens in its KV cache. Where one of
 * them has not told, both are compared by requests in flight instead.
 */
export const sglangPowerOfTwo = definePolicy({
  kind: 'picker',
  type: 'sglang-power-of-two',
  description: 'sglang-router’s power_of_two: of two random workers the one that holds fewer tokens.',
  parameters: Type.Object({}, { additionalProperties: false }),
  create(_parameters, { random }) {
    return {
      pick(_request, fleet, _match, _totals, keep) {
        let kept = 0
        for (let i = 0; i < fleet.count; i++) kept += keep[i] as number
        const place = Math.floor(random() * kept)
        const first = keptAt(keep, place)
        if (kept === 1) return first
        const second = keptAt(keep, (place + 1 + Math.floor(random() * (kept - 1))) % kept)
        const difference = heldTokens(fleet, first) - heldTokens(fleet, second)
        const isTold = !Number.isNaN(difference)
        const less = isTold ? difference : (fleet.requests[first] as number) - (fleet.requests[second] as number)
        return less <= 0 ? first : second
      },
    }
  },
})

/** NaN where the engine has not told, or not lately. */
function heldTokens({ kvUsage, capacityBlocks, blockSize }: PolicyFleet, i: number): number {
  const capacityTokens = (capacityBlocks[i] as number) * (blockSize[i] as number)
  return capacityTokens === 0 ? NaN : (kvUsage[i] as number) * capacityTokens
}

/** Index of the candidate that is the so-manieth of those that are kept. */
function keptAt(keep: Uint8Array, place: number): number {
  let at = -1
  for (let seen = 0; seen <= place; seen++) at = keep.indexOf(1, at + 1)
  return at
}
