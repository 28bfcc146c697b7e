import Type from 'typebox'
import { RendezvousWeights } from '../hash.ts'
import { definePolicy, type PolicyFleet, type PolicyRequest } from '../policy.ts'

/** Prompt tokens sent to a worker lately, in slices that fall out of the window one by one. */
interface Recent {
  readonly tokens: Float64Array
  slice: number
  /** Count of dispatches at its last one; 0 if never chosen. */
  chosenAt: number
}

const slices = 12

/**
 * The candidate with the highest total. Totals within `tieWithin` of the best count as equal (decisions 16 and 038): of
 * those the ones with a clearly longer match, of these the one that was sent the fewest prompt tokens lately, then the
 * least recently chosen, then a random one.
 *
 * A prompt that several workers hold nearly whole, since it drew more than one could serve, goes to one and the same of them
 * again as soon as they are equally near: the copies elsewhere then grow old and make room.
 */
export const bestScore = definePolicy({
  kind: 'picker',
  type: 'best-score',
  description: 'Highest total; ties go to the worker with the fewest prompt tokens sent lately.',
  parameters: Type.Object(
    {
      tieWithin: Type.Number({
        description: 'Totals this near to the best are equal (ms for costs).',
        minimum: 0,
        default: 1,
      }),
      tieMatchShare: Type.Number({
        description: 'In a tie, matches that differ by more than this share of the prompt decide first; 1: never.',
        minimum: 0,
        maximum: 1,
        default: 0.1,
      }),
      windowMs: Type.Integer({
        description: 'How long a sent prompt counts in a tie, in milliseconds.',
        minimum: 100,
        default: 60_000,
      }),
    },
    { additionalProperties: false },
  ),
  create({ tieWithin, tieMatchShare, windowMs }, { clock, random }) {
    const recent = new Map<number, Recent>()
    /** Who could be chosen at the last pick. */
    let present = new Int32Array(0)
    const sliceMs = windowMs / slices
    let dispatches = 0

    const of = (serial: number): Recent => {
      let entry = recent.get(serial)
      if (entry === undefined) {
        entry = { tokens: new Float64Array(slices), slice: 0, chosenAt: 0 }
        recent.set(serial, entry)
      }
      const now = Math.floor(clock() / sliceMs)
      if (now - entry.slice >= slices) entry.tokens.fill(0)
      else for (let passed = entry.slice + 1; passed <= now; passed++) entry.tokens[passed % slices] = 0
      entry.slice = now
      return entry
    }
    const sum = ({ tokens }: Recent): number => {
      let total = 0
      for (let slice = 0; slice < slices; slice++) total += tokens[slice] as number
      return total
    }

    const isPresent = (fleet: PolicyFleet): boolean => {
      if (present.length !== fleet.count) return false
      for (let i = 0; i < fleet.count; i++) if (present[i] !== fleet.serials[i]) return false
      return true
    }

    /**
     * A worker that is new, or was kept out for a while, goes on level with the one that was sent the least: ties would
     * else make up to it for all that was sent in its absence.
     */
    const level = (fleet: PolicyFleet): void => {
      if (isPresent(fleet)) return
      const stayed = new Set(present)
      present = fleet.serials.slice(0, fleet.count)
      const staying = present.filter((serial) => stayed.has(serial))
      // After a choice among few, e.g. the one owner of a response, nothing tells who had been kept out.
      if (staying.length * 2 < present.length) return
      const least = Array.from(staying, of).sort((a, b) => sum(a) - sum(b))[0]
      if (least === undefined) return
      for (const serial of present) {
        const entry = of(serial)
        if (!stayed.has(serial) && sum(entry) < sum(least)) entry.tokens.set(least.tokens)
      }
    }

    const weights = new RendezvousWeights()
    /** Of the prompt up to the given block, as all replicas name it. */
    const hashOf = (request: PolicyRequest, blockSize: number, tokens: number): number => {
      const keys = request.keys(blockSize)
      const last = Math.min(keys.length / 2, Math.floor(tokens / blockSize)) - 1
      return last < 0 ? 0 : (keys[2 * last] as number) ^ (keys[2 * last + 1] as number)
    }

    /** The same of these for every prompt that is cached up to there; −1 where there are none. */
    const settled = (
      request: PolicyRequest,
      fleet: PolicyFleet,
      isMeant: (i: number) => boolean,
      cachedTokens: number,
    ): number => {
      let chosen = -1
      let heaviest = -1
      let hash = 0
      for (let i = 0; i < fleet.count; i++) {
        if (!isMeant(i)) continue
        if (chosen === -1) hash = hashOf(request, fleet.blockSize[i] as number, cachedTokens)
        const weight = weights.of(hash, fleet.serials[i] as number, fleet.ids[i] ?? '')
        if (weight <= heaviest) continue
        heaviest = weight
        chosen = i
      }
      return chosen
    }

    /** Forgets workers that are gone, so that the map follows the fleet. */
    const prune = (fleet: PolicyFleet): void => {
      if (recent.size <= 4 * fleet.count + 64) return
      const present = new Set(fleet.serials.subarray(0, fleet.count))
      for (const serial of recent.keys()) if (!present.has(serial)) recent.delete(serial)
    }

    return {
      pick(request, fleet, match, totals, keep) {
        level(fleet)
        let best = -Infinity
        for (let i = 0; i < fleet.count; i++) if (keep[i] === 1) best = Math.max(best, totals[i] as number)
        const isTied = (i: number): boolean => keep[i] === 1 && (totals[i] as number) >= best - tieWithin
        const found = (i: number): number => match.creditTokens(i) + (match.comingTokens[i] as number)
        let longest = 0
        for (let i = 0; i < fleet.count; i++) if (isTied(i)) longest = Math.max(longest, found(i))
        const leastCached = longest - tieMatchShare * request.promptTokensEstimate
        const isWhole = longest > 0 && longest >= (1 - tieMatchShare) * request.promptTokensEstimate
        if (isWhole) return settled(request, fleet, (i) => isTied(i) && found(i) >= leastCached, longest)
        let chosen = -1
        let fewest = Infinity
        let longestAgo = 0
        let equal = 0
        for (let i = 0; i < fleet.count; i++) {
          if (!isTied(i) || found(i) < leastCached) continue
          const entry = of(fleet.serials[i] as number)
          const tokens = sum(entry)
          const order = chosen === -1 ? -1 : Math.sign(tokens - fewest) || entry.chosenAt - longestAgo
          if (order < 0) equal = 0
          if (order > 0 || random() * ++equal >= 1) continue
          chosen = i
          fewest = tokens
          longestAgo = entry.chosenAt
        }
        prune(fleet)
        return chosen
      },
      onDispatched(dispatch) {
        const entry = of(dispatch.serial)
        const at = entry.slice % slices
        entry.tokens[at] = (entry.tokens[at] as number) + dispatch.promptTokens
        entry.chosenAt = ++dispatches
      },
    }
  },
})
