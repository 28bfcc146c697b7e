import Type from 'typebox'
import { definePolicy } from '../policy.ts'

/** Every kept candidate with the same probability. */
export const randomPicker = definePolicy({
  kind: 'picker',
  type: 'random',
  description: 'Any candidate, all with the same probability.',
  parameters: Type.Object({}, { additionalProperties: false }),
  create(_parameters, { random }) {
    return {
      pick(_request, fleet, _match, _totals, keep) {
        let chosen = -1
        let seen = 0
        for (let i = 0; i < fleet.count; i++) if (keep[i] === 1 && random() * ++seen < 1) chosen = i
        return chosen
      },
    }
  },
})
