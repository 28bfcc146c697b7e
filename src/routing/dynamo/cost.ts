import Type from 'typebox'
import { definePolicy, type PolicyFleet } from '../policy.ts'
import { ActiveLoads } from './active-load.ts'
import { CacheCredit } from './cache-credit.ts'

/** For workers whose block size is not known yet. */
const assumedBlockSize = 16

const weight = (description: string, byDefault: number) => Type.Number({ description, minimum: 0, default: byDefault })
const choice = (description: string, byDefault: boolean) => Type.Boolean({ description, default: byDefault })

/**
 * Minus NVIDIA Dynamo's cost of a worker in blocks, under its own names and defaults (version 1.6.1: the crate
 * dynamo-kv-router and its built-in default policy):
 *
 *     prefill = prefill_load_scale × max(0, (active prefill tokens + prompt tokens) / block size − credit)
 *     credit  = overlap_score_credit / (1 + decay × excess) × gpu + 0.75 × host + 0.25 × disk + shared_cache_multiplier × shared
 *     excess  = (active prefill tokens − least of all workers) / tokens of the prompt's blocks
 *     cost    = prefill + blocks of running prompts + the prompt's own blocks that are not among them
 *               + decode_active_request_weight × running requests
 *
 * Without router_track_prefill_tokens it is max(0, blocks − credit) + the last term, as long as overlap_score_credit is not 0.
 * `test:parity` compares its choices with the real one's (docs/parity.md), which also tells where they can differ.
 */
export const dynamoCost = definePolicy({
  kind: 'scorer',
  type: 'dynamo-cost',
  description: 'Least cost in blocks by NVIDIA Dynamo’s formula: uncached prefill and blocks of running requests.',
  parameters: Type.Object(
    {
      overlap_score_credit: weight('Blocks that a cached block on the GPU saves.', 1),
      overlap_score_credit_decay: weight('How fast that falls with the prefill queued beyond the least of all.', 0),
      prefill_load_scale: weight('What a block of prefill costs, in blocks of running requests.', 1),
      decode_active_request_weight: weight('What a running request costs, in blocks.', 0),
      host_cache_hit_weight: weight('Blocks that a block in host memory saves.', 0.75),
      disk_cache_hit_weight: weight('Blocks that a block on disk saves.', 0.25),
      shared_cache_multiplier: weight('Blocks that a block in a shared store saves, where there is one.', 0.5),
      router_track_active_blocks: choice('Whether blocks of running requests count.', true),
      router_assume_kv_reuse: choice('Whether running requests share equal blocks.', true),
      router_track_prefill_tokens: choice('Whether prefill that is under way counts, and the request’s own.', true),
      active_request_expiry_secs: Type.Number({
        description: 'A request whose end was missed counts no longer than this.',
        exclusiveMinimum: 0,
        default: 3600,
      }),
    },
    { additionalProperties: false },
  ),
  create(parameters) {
    const { prefill_load_scale: prefillScale, decode_active_request_weight: requestWeight } = parameters
    const { router_track_prefill_tokens: tracksPrefill, router_track_active_blocks: tracksBlocks } = parameters
    const loads = new ActiveLoads({
      sharesBlocks: tracksBlocks && parameters.router_assume_kv_reuse,
      expiryMs: parameters.active_request_expiry_secs * 1000,
    })
    const credit = new CacheCredit(parameters)
    const decay = tracksPrefill ? parameters.overlap_score_credit_decay : 0
    // Without prefill there is nothing that cached blocks could be taken off but the running ones.
    const takesOffBlocks = !tracksPrefill && parameters.overlap_score_credit > 0

    let usualBlockSize = assumedBlockSize

    const leastPrefillTokens = ({ count, serials }: PolicyFleet): number => {
      let least = Infinity
      for (let i = 0; i < count; i++) least = Math.min(least, loads.of(serials[i] as number).prefillTokens)
      return least
    }

    return {
      score(request, fleet, match, out) {
        const promptTokens = request.promptTokensEstimate
        const least = decay === 0 ? 0 : leastPrefillTokens(fleet)
        let asked = 0
        let promptBlocks = 0
        for (let i = 0; i < fleet.count; i++) {
          const blockSize = sizeOf(fleet, i)
          if (tracksBlocks && blockSize !== asked) {
            const keys = request.keys(blockSize)
            loads.ask(keys)
            asked = blockSize
            usualBlockSize = blockSize
            promptBlocks = keys.length >>> 1
          }
          const { requests, prefillTokens, blocks, sharedBlocks } = loads.of(fleet.serials[i] as number)
          credit.take(promptTokens, fleet, match, i)
          const excess = (prefillTokens - least) / blockSize / Math.max(1, Math.ceil(promptTokens / blockSize))
          const saved = credit.blocks(1 / (1 + decay * excess))
          const running = tracksBlocks ? blocks + promptBlocks - sharedBlocks : 0
          const tokens = tracksPrefill ? prefillTokens + Math.max(promptTokens, credit.tokens(blockSize)) : 0
          const prefill = Math.max(0, tokens / blockSize - saved)
          const blockCost = takesOffBlocks ? Math.max(0, running - saved) : prefillScale * prefill + running
          out[i] = -(blockCost + requestWeight * requests)
        }
      },
      onDispatched(dispatch) {
        const prefillTokens = tracksPrefill ? credit.uncachedTokens(dispatch) : 0
        loads.begin(dispatch, prefillTokens, Math.floor(dispatch.promptTokens / usualBlockSize))
      },
      onFirstByte(dispatch) {
        loads.prefilled(dispatch)
      },
      onFinished(dispatch) {
        loads.end(dispatch)
      },
    }
  },
})

function sizeOf(fleet: PolicyFleet, candidate: number): number {
  const blockSize = fleet.blockSize[candidate] as number
  return blockSize === 0 ? assumedBlockSize : blockSize
}
