import Type from 'typebox'
import { definePolicy } from '../policy.ts'

/** One after the other in the order in which the workers joined, going on after the one that was sent to last. */
export const roundRobin = definePolicy({
  kind: 'picker',
  type: 'round-robin',
  description: 'One after the other.',
  parameters: Type.Object({}, { additionalProperties: false }),
  create() {
    let last = -1
    return {
      pick(_request, fleet, _match, _totals, keep) {
        let first = -1
        let next = -1
        for (let i = 0; i < fleet.count; i++) {
          if (keep[i] !== 1) continue
          const serial = fleet.serials[i] as number
          if (first === -1 || serial < (fleet.serials[first] as number)) first = i
          if (serial > last && (next === -1 || serial < (fleet.serials[next] as number))) next = i
        }
        return next === -1 ? first : next
      },
      onDispatched(dispatch) {
        last = dispatch.serial
      },
    }
  },
})
