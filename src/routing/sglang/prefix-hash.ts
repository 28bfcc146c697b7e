import Type from 'typebox'
import { definePolicy, type PolicyFleet } from '../policy.ts'
import { commonBlockSize } from './block-size.ts'
import { HashRing, hashOfWords } from './hash-ring.ts'

/**
 * `prefix_hash` of the SGLang gateway: prompts with the same first tokens go to the same worker of a hash ring, unless it has
 * more than its share of the requests in flight; then to the one with the fewest. The first tokens are counted in whole
 * blocks here. A prompt shorter than a block goes to the worker with the fewest requests.
 */
export const sglangPrefixHash = definePolicy({
  kind: 'picker',
  type: 'sglang-prefix-hash',
  description: 'prefix_hash of the SGLang gateway: consistent hashing by a prompt’s first tokens, bounded by load.',
  parameters: Type.Object(
    {
      prefixTokenCount: Type.Integer({
        description: 'First tokens of a prompt that decide (--prefix-token-count).',
        minimum: 1,
        default: 256,
      }),
      loadFactor: Type.Number({
        description:
          'A worker with more than so many times the mean of requests in flight is passed over (--prefix-hash-load-factor).',
        minimum: 1,
        default: 1.25,
      }),
      virtualNodes: Type.Integer({
        description: 'Places of a worker on the ring.',
        minimum: 1,
        maximum: 10_000,
        default: 160,
      }),
    },
    { additionalProperties: false },
  ),
  create({ prefixTokenCount, loadFactor, virtualNodes }) {
    const ring = new HashRing(virtualNodes)
    return {
      pick(request, fleet, _match, _totals, keep) {
        const blockSize = commonBlockSize(fleet)
        const keys = blockSize === 0 ? null : request.keys(blockSize)
        const blocks =
          keys === null ? 0 : Math.min(keys.length / 2, Math.max(1, Math.floor(prefixTokenCount / blockSize)))
        const shortest = shortestQueue(fleet, keep)
        if (keys === null || blocks === 0) return shortest
        const key = hashOfWords(keys[2 * blocks - 2] as number, keys[2 * blocks - 1] as number)
        const named = ring.next(key, fleet, keep)
        const most = mostRequests(fleet, keep, loadFactor)
        // Where even the shortest queue is too long, the named worker is as good as any.
        const isFull = (fleet.requests[named] as number) > most
        return isFull && (fleet.requests[shortest] as number) <= most ? shortest : named
      },
    }
  },
})

function shortestQueue({ count, requests }: PolicyFleet, keep: Uint8Array): number {
  let shortest = -1
  for (let i = 0; i < count; i++) {
    if (keep[i] !== 1) continue
    if (shortest === -1 || (requests[i] as number) < (requests[shortest] as number)) shortest = i
  }
  return shortest
}

/** Requests in flight that a worker may have when this request is counted, too; no limit while nobody has any. */
function mostRequests({ count, requests }: PolicyFleet, keep: Uint8Array, loadFactor: number): number {
  let total = 0
  let workers = 0
  for (let i = 0; i < count; i++) {
    if (keep[i] !== 1) continue
    total += requests[i] as number
    workers++
  }
  return total === 0 ? Infinity : ((total + 1) / workers) * loadFactor
}
