import type { ReuseCurve } from './reuse-curve.ts'

/** A fleet whose caches are sized by a workload's reuse curve. */
export interface Fleet {
  readonly workers: number
  /** Tokens that the GPUs of one worker keep. */
  readonly gpuTokens: number
  /** Bytes of one copy of a token, over all layers. */
  readonly tokenBytes: number
  /** Tokens in a block of the curve. */
  readonly blockTokens: number
  /** Host memory of each worker for KV blocks; without a figure it is sized for all that the GPUs do not hold. */
  readonly hostBytes?: number | undefined
}

export interface TierSizes {
  readonly wantedHitRatio: number
  /** What the fleet has to keep in all; null where no cache finds so much, as are all sizes then. */
  readonly tokens: number | null
  readonly bytes: number | null
  /** What of it goes beyond the GPUs' memory, for each worker: host memory as far as there is, then disk. */
  readonly hostBytesPerWorker: number | null
  readonly diskBytesPerWorker: number | null
  /** A store that all workers reach: a copy of everything. */
  readonly sharedBytes: number | null
}

/**
 * Sizes of tiers for wanted hit ratios, where every block is kept once: the router sends a prefix to the worker that has it. What
 * is held twice, and what only the router's guess makes a worker keep, comes on top: the sizes are the least that can do.
 */
export function tierSizes(curve: ReuseCurve, fleet: Fleet, wantedHitRatios: readonly number[]): TierSizes[] {
  const { blockTokens, gpuTokens, hostBytes = Infinity, tokenBytes, workers } = fleet
  return wantedHitRatios.map((wantedHitRatio) => {
    const blocks = curve.capacityFor(wantedHitRatio)
    if (blocks === null) return { wantedHitRatio, ...{ tokens: null, bytes: null, sharedBytes: null }, ...noTiers }
    const tokens = blocks * blockTokens
    const beyond = (Math.max(0, tokens - workers * gpuTokens) * tokenBytes) / workers
    const bytes = tokens * tokenBytes
    return {
      ...{ wantedHitRatio, tokens, bytes, sharedBytes: bytes },
      hostBytesPerWorker: Math.min(beyond, hostBytes),
      diskBytesPerWorker: Math.max(0, beyond - hostBytes),
    }
  })
}

const noTiers = { hostBytesPerWorker: null, diskBytesPerWorker: null }

export interface TierReach {
  readonly tier: string
  /** Tokens that the fleet keeps in this tier and the ones before it. */
  readonly tokens: number
  readonly hitRatio: number
}

/** The hit ratio as tiers of given sizes are added, each for what the ones before it no longer hold. */
export function tierReach(
  curve: ReuseCurve,
  fleet: Fleet,
  tiers: readonly { readonly tier: string; readonly fleetBytes: number }[],
): TierReach[] {
  let tokens = fleet.workers * fleet.gpuTokens
  const reach = (tier: string): TierReach => ({ tier, tokens, hitRatio: curve.hitRatio(tokens / fleet.blockTokens) })
  const first = reach('gpu')
  const further = tiers.map(({ fleetBytes, tier }) => {
    tokens += Math.floor(fleetBytes / fleet.tokenBytes)
    return reach(tier)
  })
  return [first, ...further]
}

export interface CurvePoint {
  readonly tokens: number
  readonly hitRatio: number
}

/** The curve at sizes that grow evenly on a logarithmic axis, for plots. */
export function curvePoints(curve: ReuseCurve, blockTokens: number, count = 60): CurvePoint[] {
  const most = Math.max(1, curve.distinctBlocks)
  const sizes = Array.from({ length: count }, (_, index) => Math.round(most ** (index / (count - 1))))
  return [...new Set(sizes)].map((blocks) => ({ tokens: blocks * blockTokens, hitRatio: curve.hitRatio(blocks) }))
}
