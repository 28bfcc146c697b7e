import Type from 'typebox'
import { definePolicy } from '../policy.ts'

/** Applies where the engines' own load figures are too old, or absent, for too many workers. */
export const staleLoad = definePolicy({
  kind: 'fallback',
  type: 'stale-load',
  reason: 'load_stale',
  description: 'Applies where the engines’ own load figures are too old or absent.',
  parameters: Type.Object(
    {
      maxAgeMs: Type.Number({ description: 'Age at which a figure is too old.', exclusiveMinimum: 0, default: 5000 }),
      share: Type.Number({
        description: 'Share of the workers whose figures have to be sound.',
        minimum: 0,
        maximum: 1,
        default: 0.5,
      }),
    },
    { additionalProperties: false },
  ),
  create({ maxAgeMs, share }) {
    return {
      applies(_request, fleet, _match, keep) {
        let kept = 0
        let sound = 0
        for (let i = 0; i < fleet.count; i++) {
          if (keep[i] !== 1) continue
          kept++
          if ((fleet.loadAgeMs[i] as number) <= maxAgeMs) sound++
        }
        return sound < share * kept
      },
    }
  },
})
