import Type from 'typebox'
import { definePolicy, type PolicyFleet, type PolicyRequest } from '../policy.ts'
import { commonBlockSize } from './block-size.ts'
import { HashRing, hashOf, hashOfWords } from './hash-ring.ts'

/**
 * Consistent hashing by the first header that is there, as the sglang-router family has it: requests with the same value go
 * to the same worker. Defaults are vllm-router's `consistent_hash`; `headers: [x-smg-routing-key]` with `otherwise: random` is
 * sglang-router's and smg's `consistent_hashing`.
 */
export const sglangConsistentHash = definePolicy({
  kind: 'picker',
  type: 'sglang-consistent-hash',
  description: 'Consistent hashing by the first header that a request has, as vllm-router, sglang-router and smg do.',
  parameters: Type.Object(
    {
      headers: Type.Array(Type.String({ minLength: 1 }), {
        description: 'Headers, the first that a request has decides; before the session and the user of its body.',
        default: ['x-session-id', 'x-user-id', 'x-tenant-id', 'x-request-id', 'x-correlation-id', 'x-trace-id'],
      }),
      otherwise: Type.Union([Type.Literal('prompt'), Type.Literal('random')], {
        description: 'By what a request goes that has none of all this.',
        default: 'prompt',
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
  create({ headers, otherwise, virtualNodes }, { random }) {
    const ring = new HashRing(virtualNodes)
    const names = headers.map((name) => name.toLowerCase())
    const randomKey = (): number => Math.floor(random() * 0x1_0000_0000)

    const keyOf = (request: PolicyRequest, fleet: PolicyFleet): number => {
      for (const name of names) {
        const value = request.header(name)
        if (value !== null && value !== '') return hashOf(value)
      }
      const named = request.session ?? request.user
      if (named !== null) return hashOf(named)
      return otherwise === 'prompt' ? (promptKey(request, fleet) ?? randomKey()) : randomKey()
    }

    return {
      pick(request, fleet, _match, _totals, keep) {
        return ring.next(keyOf(request, fleet), fleet, keep)
      },
    }
  },
})

/** The name of the prompt's last full block stands for all of it; null where it has none. */
function promptKey(request: PolicyRequest, fleet: PolicyFleet): number | null {
  const blockSize = commonBlockSize(fleet)
  const keys = blockSize === 0 ? null : request.keys(blockSize)
  if (keys === null || keys.length === 0) return null
  return hashOfWords(keys[keys.length - 2] as number, keys[keys.length - 1] as number)
}
