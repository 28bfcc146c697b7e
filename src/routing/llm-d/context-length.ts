import Type from 'typebox'
import { definePolicy, type PolicyPlugin } from '../policy.ts'

/** Out of range a worker scores less than this, in range more. */
const mostOutOfRange = 0.3
const noLabelScore = 0.5
/** A range of so many tokens is half as good as a narrow one. */
const widthTokens = 10_000
/** So many tokens out of range halve the score. */
const distanceTokens = 1000

const label = Type.String({
  description: 'Label with the range of prompt lengths that the worker is for, as "min-max" in tokens.',
  minLength: 1,
  default: 'llm-d.ai/context-length-range',
})

/** One type that is a filter and a scorer; the filter is used with `enableFiltering` only. */
export const contextLengthPlugins: readonly PolicyPlugin[] = [
  definePolicy({
    kind: 'scorer',
    type: 'context-length-aware',
    description:
      'llm-d: 0.3 to 1 for a worker whose range holds the prompt’s length, narrow ranges first, 0 to 0.3 out of it, 0.5 without a range.',
    parameters: Type.Object({ label }, { additionalProperties: false }),
    create(parameters) {
      const ranges = new Ranges()
      return {
        score({ promptTokens }, { count, labels }, _match, out) {
          for (let i = 0; i < count; i++) {
            const range = ranges.of(labels[i]?.[parameters.label])
            out[i] = range === undefined ? noLabelScore : range === null ? 0 : rangeScore(promptTokens, range)
          }
        },
      }
    },
  }),
  definePolicy({
    kind: 'filter',
    type: 'context-length-aware',
    reason: 'context_length',
    description: 'llm-d: leaves out workers whose range does not hold the prompt’s length.',
    parameters: Type.Object({ label }, { additionalProperties: false }),
    create(parameters) {
      const ranges = new Ranges()
      return {
        required: true,
        filter({ promptTokens }, { count, labels }, _match, keep) {
          for (let i = 0; i < count; i++) {
            const range = ranges.of(labels[i]?.[parameters.label])
            if (range !== undefined && (range === null || !isWithin(promptTokens, range))) keep[i] = 0
          }
        },
      }
    },
  }),
]

interface Range {
  readonly least: number
  readonly most: number
}

/** Labels are read once. */
class Ranges {
  readonly #known = new Map<string, Range | null>()

  /** Undefined without a label, null for one that is no range. */
  of(text: string | undefined): Range | null | undefined {
    if (text === undefined) return undefined
    let range = this.#known.get(text)
    if (range === undefined) {
      const [, least = '', most = ''] = /^\s*(\d+)\s*-\s*(\d+)\s*$/.exec(text) ?? []
      const parsed = { least: Number(least), most: Number(most) }
      range = most === '' || parsed.least > parsed.most ? null : parsed
      this.#known.set(text, range)
    }
    return range
  }
}

function isWithin(tokens: number, { least, most }: Range): boolean {
  return tokens >= least && tokens <= most
}

function rangeScore(tokens: number, range: Range): number {
  const { least, most } = range
  if (!isWithin(tokens, range)) {
    const distance = tokens > most ? tokens - most : least - tokens
    return mostOutOfRange / (1 + distance / distanceTokens)
  }
  const width = most - least
  if (width === 0) return 1
  const score = 0.7 / (1 + width / widthTokens) + (0.3 * (most - tokens)) / width
  return mostOutOfRange + score * (1 - mostOutOfRange)
}
