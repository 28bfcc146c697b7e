import Type from 'typebox'
import { definePolicy } from '../policy.ts'

/**
 * A random candidate, the likelier the nearer its total is to the best one:
 *
 *     probability ∝ exp(−(best − total) / ((best − worst) × temperature))
 *
 * At temperature 0 the best one, and one of the best at random where several are equal. As NVIDIA Dynamo picks.
 */
export const softmax = definePolicy({
  kind: 'picker',
  type: 'softmax',
  description: 'A random worker, likelier the higher its total; at temperature 0 the highest, ties at random.',
  parameters: Type.Object(
    {
      router_temperature: Type.Number({
        description: 'How far from the best total the choice may stray, in parts of the range of all; 0: not at all.',
        minimum: 0,
        default: 0,
      }),
    },
    { additionalProperties: false },
  ),
  create({ router_temperature: temperature }, { random }) {
    const best = (totals: Float64Array, keep: Uint8Array, count: number): number => {
      let chosen = -1
      let ties = 0
      for (let i = 0; i < count; i++) {
        if (keep[i] !== 1) continue
        const total = totals[i] as number
        if (chosen === -1 || total > (totals[chosen] as number)) {
          chosen = i
          ties = 1
        } else if (total === totals[chosen] && random() * ++ties < 1) chosen = i
      }
      return chosen
    }

    return {
      pick(_request, { count }, _match, totals, keep) {
        const first = best(totals, keep, count)
        if (temperature === 0) return first
        const highest = totals[first] as number
        let lowest = highest
        for (let i = 0; i < count; i++) if (keep[i] === 1) lowest = Math.min(lowest, totals[i] as number)
        const scale = highest === lowest ? 0 : 1 / ((highest - lowest) * temperature)
        const weightOf = (i: number): number =>
          keep[i] === 1 ? Math.exp(((totals[i] as number) - highest) * scale) : 0
        let sum = 0
        for (let i = 0; i < count; i++) sum += weightOf(i)
        let left = random() * sum
        for (let i = 0; i < count; i++) {
          left -= weightOf(i)
          if (left < 0) return i
        }
        return first
      },
    }
  },
})
