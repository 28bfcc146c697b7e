import type { PolicyFleet, PolicyMatch, PolicyRequest } from '../policy.ts'

/** Full blocks of the prompt in the candidate's block size. */
export function totalBlocks(request: PolicyRequest, { blockSize }: PolicyFleet, i: number): number {
  const size = blockSize[i] as number
  return size > 0 ? Math.floor(request.promptTokens / size) : 0
}

/** Leading blocks of the prompt that the candidate holds itself, in any tier; 0 for one that is not to be believed. */
export function matchedBlocks({ gpu, host, disk, cachedTokens }: PolicyMatch, i: number): number {
  if ((cachedTokens[i] as number) === 0) return 0
  return (gpu[i] as number) + (host[i] as number) + (disk[i] as number)
}

/** Share of the prompt's blocks that the candidate holds. */
export function matchRatio(request: PolicyRequest, fleet: PolicyFleet, match: PolicyMatch, i: number): number {
  const total = totalBlocks(request, fleet, i)
  return total === 0 ? 0 : Math.min(1, matchedBlocks(match, i) / total)
}
