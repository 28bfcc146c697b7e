import type { PolicyFleet } from '../policy.ts'

/** The size by which a pool's prompts are cut here: that of the first worker whose size is known; 0 where none is. */
export function commonBlockSize({ count, blockSize }: PolicyFleet): number {
  for (let i = 0; i < count; i++) if ((blockSize[i] as number) > 0) return blockSize[i] as number
  return 0
}
