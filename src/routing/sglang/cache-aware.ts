import Type from 'typebox'
import { definePolicy, type PolicyFleet, type PolicyRequest } from '../policy.ts'
import { commonBlockSize } from './block-size.ts'
import { PrefixTree, usesCounted } from './prefix-tree.ts'

/** A worker that was no candidate at so many evictions in a row is forgotten. */
const absences = 10
/** Runs of the tree that one decision looks at while it is cut down: some tenths of a millisecond. */
const evictedAtOnce = 1000

/**
 * sglang-router's `cache_aware`, with its thresholds and defaults. While the load is even, a prompt goes where the longest
 * match of it was sent before, if that is more than `cacheThreshold` of it; otherwise, and where the load is uneven, to the
 * first of the workers with the fewest requests in flight. It knows what it sent, not what the engines hold.
 *
 * The tree is over blocks where sglang-router's is over characters: a match is told in steps of a block, and a prompt
 * shorter than a block has none.
 */
export const sglangCacheAware = definePolicy({
  kind: 'picker',
  type: 'sglang-cache-aware',
  description: 'sglang-router’s cache_aware: the longest match among what was sent while the load is even.',
  parameters: Type.Object(
    {
      cacheThreshold: Type.Number({
        description: 'Share of the prompt that a match must exceed (--cache-threshold).',
        minimum: 0,
        maximum: 1,
        default: 0.3,
      }),
      balanceAbsThreshold: Type.Integer({
        description:
          'The load is uneven where the most and the fewest requests in flight differ by more (--balance-abs-threshold) …',
        minimum: 0,
        default: 64,
      }),
      balanceRelThreshold: Type.Number({
        description: '… and the most are more than so many times the fewest (--balance-rel-threshold).',
        minimum: 0,
        default: 1.5,
      }),
      evictionIntervalSecs: Type.Number({
        description: 'So often the tree is cut down to its size (--eviction-interval-secs); 0: never.',
        minimum: 0,
        default: 60,
      }),
      maxTreeSize: Type.Integer({
        description: 'Characters that the tree keeps of a worker’s prompts (--max-tree-size).',
        minimum: 1,
        default: 67_108_864,
      }),
      charactersPerToken: Type.Number({
        description: 'What a token counts in maxTreeSize.',
        exclusiveMinimum: 0,
        default: 4,
      }),
    },
    { additionalProperties: false },
  ),
  create(parameters, { clock, random }) {
    const { cacheThreshold, balanceAbsThreshold, balanceRelThreshold, evictionIntervalSecs } = parameters
    // There the count has begun, arbitrarily far, when the first prompt comes.
    const tree = new PrefixTree(Math.floor(random() * usesCounted))
    const absent = new Map<number, number>()
    const intervalMs = evictionIntervalSecs * 1000
    let evictAtMs = clock() + intervalMs
    /** What the last choice went by: a match counts as a use of the tree only where the load was even. */
    let asked: Uint32Array | null = null

    const evict = (fleet: PolicyFleet, blockSize: number): void => {
      const nowMs = clock()
      if (intervalMs > 0 && nowMs >= evictAtMs) {
        evictAtMs = nowMs + intervalMs
        tree.beginEviction(Math.floor(parameters.maxTreeSize / (blockSize * parameters.charactersPerToken)))
        forget(fleet)
      }
      tree.evictSome(evictedAtOnce)
    }

    /** Workers that are gone have nothing in the tree, so that it follows the fleet. */
    const forget = (fleet: PolicyFleet): void => {
      const present = new Set(fleet.serials.subarray(0, fleet.count))
      for (const owner of [...tree.owners()]) {
        const times = present.has(owner) ? 0 : (absent.get(owner) ?? 0) + 1
        absent.set(owner, times)
        if (times < absences) continue
        tree.remove(owner)
        absent.delete(owner)
      }
    }

    return {
      pick(request, fleet, _match, _totals, keep) {
        const blockSize = commonBlockSize(fleet)
        if (blockSize > 0) evict(fleet, blockSize)
        const { shortest, fewest, most } = loadOf(fleet, keep)
        const isUneven =
          most - fewest > balanceAbsThreshold && most > Math.fround(fewest * Math.fround(balanceRelThreshold))
        asked = isUneven ? null : keysOf(request, blockSize)
        if (asked === null || asked.length === 0) return shortest
        const owner = tree.match(asked)
        const share = Math.fround(tree.matchedUnits / (asked.length / 2))
        if (owner === null || share <= Math.fround(cacheThreshold)) return shortest
        const found = fleet.serials.indexOf(owner)
        return found !== -1 && found < fleet.count && keep[found] === 1 ? found : keep.indexOf(1)
      },
      onDispatched({ serial, keys }) {
        if (keys === null || keys.length === 0) return
        if (keys === asked) tree.use(keys)
        asked = null
        tree.insert(keys, serial)
      },
    }
  },
})

function keysOf(request: PolicyRequest, blockSize: number): Uint32Array | null {
  return blockSize === 0 ? null : request.keys(blockSize)
}

function loadOf(
  { count, requests }: PolicyFleet,
  keep: Uint8Array,
): { shortest: number; fewest: number; most: number } {
  let shortest = -1
  let fewest = Infinity
  let most = 0
  for (let i = 0; i < count; i++) {
    if (keep[i] !== 1) continue
    const load = requests[i] as number
    most = Math.max(most, load)
    if (load >= fewest) continue
    fewest = load
    shortest = i
  }
  return { shortest, fewest, most }
}
