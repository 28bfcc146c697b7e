import Type from 'typebox'
import { hashOfText, RendezvousWeights } from '../hash.ts'
import { definePolicy, type PolicyFleet, type PolicyRequest } from '../policy.ts'

const sources = ['session', 'user', 'key', 'prefix'] as const

/**
 * Consistent hashing with bounded load (Mirrokni, Thorup and Zadimoghaddam 2016) over rendezvous weights: equal requests go
 * to equal workers on every replica without a word between them, and none gets more than `loadFactor` times the mean.
 */
export const boundedHash = definePolicy({
  kind: 'picker',
  type: 'bounded-hash',
  description: 'Consistent hashing with bounded load, by session, user, API key or prefix.',
  parameters: Type.Object(
    {
      by: Type.Array(Type.Union(sources.map((source) => Type.Literal(source))), {
        description: 'What is hashed: the first of these that the request has.',
        minItems: 1,
        default: ['session', 'user', 'prefix'],
      }),
      prefixBlocks: Type.Integer({
        description: 'Blocks of the prompt that make its prefix.',
        minimum: 1,
        default: 16,
      }),
      loadFactor: Type.Number({
        description: 'Requests in flight that a worker may have, in shares of the mean.',
        minimum: 1,
        default: 1.25,
      }),
    },
    { additionalProperties: false },
  ),
  create({ by, prefixBlocks, loadFactor }, { random }) {
    const hashOf = (request: PolicyRequest, fleet: PolicyFleet): number => {
      for (const source of by) {
        if (source === 'prefix') {
          const keys = request.keys(fleet.blockSize[0] as number)
          const blocks = Math.min(prefixBlocks, keys.length / 2)
          if (blocks > 0) return (keys[2 * blocks - 2] as number) ^ (keys[2 * blocks - 1] as number)
          continue
        }
        const text = source === 'session' ? request.session : source === 'user' ? request.user : request.keyId
        if (text !== null) return hashOfText(text)
      }
      return Math.floor(random() * 2 ** 32)
    }
    const weights = new RendezvousWeights()
    return {
      pick(request, fleet, _match, _totals, keep) {
        let inFlight = 1
        let kept = 0
        for (let i = 0; i < fleet.count; i++) {
          if (keep[i] !== 1) continue
          kept++
          inFlight += fleet.requests[i] as number
        }
        const most = Math.ceil((loadFactor * inFlight) / kept)
        const hash = hashOf(request, fleet)
        let chosen = -1
        let heaviest = -1
        for (let i = 0; i < fleet.count; i++) {
          if (keep[i] !== 1 || (fleet.requests[i] as number) + 1 > most) continue
          const weight = weights.of(hash, fleet.serials[i] as number, fleet.ids[i] ?? '')
          if (weight <= heaviest) continue
          heaviest = weight
          chosen = i
        }
        return chosen
      },
    }
  },
})
