import type { RootBlock } from '../../kv/root-block.ts'
import type { NativeHash, NativeResult } from './result.ts'
import { verifySglang } from './sglang.ts'
import { verifyTrtllm } from './trtllm.ts'
import { verifyVllm } from './vllm.ts'

/**
 * Recomputes the engine's own name of a first block. A name that only comes out with another seed, algorithm, block size
 * or without a salt or adapter says which of them differs from what was announced or configured.
 */
export function verifyRootBlock(engine: string, block: RootBlock, hash: NativeHash): NativeResult {
  switch (engine) {
    case 'vllm':
      return verifyVllm(block, hash)
    case 'sglang':
      return verifySglang(block)
    case 'trtllm':
      return verifyTrtllm(block)
    default:
      return { kind: 'unverified', reason: `how ${engine} names its blocks is not proven` }
  }
}
