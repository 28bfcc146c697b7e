import Type from 'typebox'
import { definePolicy } from '../policy.ts'

/** Two different random candidates, of which the one with the higher total (Mitzenmacher 2001). */
export const powerOfTwo = definePolicy({
  kind: 'picker',
  type: 'power-of-two',
  description: 'The better of two random candidates.',
  parameters: Type.Object({}, { additionalProperties: false }),
  create(_parameters, { random }) {
    return {
      pick(_request, fleet, _match, totals, keep) {
        let first = -1
        let second = -1
        let seen = 0
        // Reservoir of two: every pair of kept candidates has the same probability.
        for (let i = 0; i < fleet.count; i++) {
          if (keep[i] !== 1) continue
          seen++
          if (seen === 1) first = i
          else if (seen === 2) second = i
          else {
            const place = Math.floor(random() * seen)
            if (place === 0) first = i
            else if (place === 1) second = i
          }
        }
        if (second === -1) return first
        const difference = (totals[first] as number) - (totals[second] as number)
        if (difference === 0) return random() < 0.5 ? first : second
        return difference > 0 ? first : second
      },
    }
  },
})
