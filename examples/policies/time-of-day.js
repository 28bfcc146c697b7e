import { definePolicy } from 'warmroute'

/** Applies between two hours of the day (UTC), so that another profile chooses then, e.g. one that fills few workers at night. */
export default definePolicy({
  kind: 'fallback',
  type: 'time-of-day',
  reason: 'time_of_day',
  description: 'Applies between two hours of the day (UTC).',
  parameters: {
    type: 'object',
    properties: {
      fromHour: { type: 'number', minimum: 0, maximum: 24, default: 22, description: 'Begins.' },
      untilHour: {
        type: 'number',
        minimum: 0,
        maximum: 24,
        default: 6,
        description: 'Ends; less than the begin: the next day.',
      },
    },
    additionalProperties: false,
  },
  create({ fromHour, untilHour }, { wallClock }) {
    return {
      applies() {
        const hour = (wallClock() / 3_600_000) % 24
        return fromHour <= untilHour ? hour >= fromHour && hour < untilHour : hour >= fromHour || hour < untilHour
      },
    }
  },
})
