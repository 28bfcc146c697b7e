import Type from 'typebox'
import { definePolicy, type PolicyFleet, type PolicyMatch, type PolicyPlugin } from '../policy.ts'
import { matchedBlocks, matchRatio } from './prefix-match.ts'

const prefixCacheScorer = definePolicy({
  kind: 'scorer',
  type: 'prefix-cache-scorer',
  description:
    'llm-d: the share of the prompt’s blocks that the worker holds, and, with a weight, how many tokens these are.',
  parameters: Type.Object(
    {
      matchLengthWeight: Type.Number({
        description: 'Weight of the match’s length; the rest is that of its share of the prompt.',
        minimum: 0,
        maximum: 1,
        default: 0,
      }),
      matchLengthScaleTokens: Type.Integer({
        description: 'Matched tokens that are worth 1; fewer are worth the square of their share.',
        minimum: 1,
        default: 8192,
      }),
    },
    { additionalProperties: false },
  ),
  create: ({ matchLengthWeight, matchLengthScaleTokens }) => ({
    score(request, fleet, match, out) {
      for (let i = 0; i < fleet.count; i++) {
        const ratio = matchRatio(request, fleet, match, i)
        const tokens = ratio === 0 ? 0 : matchedBlocks(match, i) * (fleet.blockSize[i] as number)
        const length = Math.min(1, tokens / matchLengthScaleTokens) ** 2
        out[i] = (1 - matchLengthWeight) * ratio + matchLengthWeight * length
      }
    },
  }),
})

/**
 * Spreads prompts of which nobody holds anything: those that were sent one longest ago come first, those that never were
 * before them. Among these llm-d goes by the order of its list, as here.
 */
const noHitLruScorer = definePolicy({
  kind: 'scorer',
  type: 'no-hit-lru-scorer',
  description: 'llm-d: a prompt that nobody holds goes where such a one was sent longest ago; 0.5 for all others.',
  parameters: Type.Object(
    {
      lruSize: Type.Integer({ description: 'Workers that are remembered.', minimum: 1, default: 1024 }),
    },
    { additionalProperties: false },
  ),
  create({ lruSize }) {
    /** The least recently used first. */
    const used = new Map<number, true>()
    const ranks = new Map<number, number>()
    /** Whether nobody held anything of the prompt that was scored last. */
    let isCold = false

    const scoreCold = ({ count, serials }: PolicyFleet, out: Float64Array, keep: Uint8Array): void => {
      let candidates = 0
      let fresh = 0
      for (let i = 0; i < count; i++) {
        if (keep[i] !== 1) continue
        candidates++
        if (!used.has(serials[i] as number)) fresh++
      }
      ranks.clear()
      for (const serial of used.keys()) ranks.set(serial, fresh + ranks.size)
      let unused = 0
      for (let i = 0; i < count; i++) {
        if (keep[i] !== 1) continue
        const rank = ranks.get(serials[i] as number) ?? unused++
        out[i] = candidates === 1 ? 1 : Math.max(0, 1 - rank / (candidates - 1))
      }
    }

    return {
      score(_request, fleet, match, out, keep) {
        isCold = !isAnyMatched(fleet, match, keep)
        if (isCold) scoreCold(fleet, out, keep)
        else out.fill(0.5, 0, fleet.count)
      },
      onDispatched({ serial }) {
        if (!isCold) return
        isCold = false
        used.delete(serial)
        used.set(serial, true)
        const [oldest] = used.keys()
        if (used.size > lruSize && oldest !== undefined) used.delete(oldest)
      },
    }
  },
})

function isAnyMatched({ count }: PolicyFleet, match: PolicyMatch, keep: Uint8Array): boolean {
  for (let i = 0; i < count; i++) if (keep[i] === 1 && matchedBlocks(match, i) > 0) return true
  return false
}

export const prefixScorers: readonly PolicyPlugin[] = [prefixCacheScorer, noHitLruScorer]
