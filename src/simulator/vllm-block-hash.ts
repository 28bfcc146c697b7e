import { vllmBlockDigest, vllmDefaultSeed, vllmRootDigest, type VllmAlgorithm } from '../kv/engine-hash/vllm.ts'
import type { BlockHash, HashScope } from './block-hash.ts'

/** vLLM's own block hashes, for byte-for-byte equal events. `seed`: PYTHONHASHSEED where it is set, else vLLM's constant. */
export function vllmBlockHash(algorithm: VllmAlgorithm, seed = vllmDefaultSeed): BlockHash {
  const root = vllmRootDigest(algorithm, seed)
  return (scope, blockSize) => {
    let parent = root
    let first = true
    return {
      append(tokens, from) {
        parent = vllmBlockDigest(algorithm, parent, tokens.subarray(from, from + blockSize), extraKeys(scope, first))
        first = false
      },
      get low() {
        return parent.readUInt32BE(parent.length - 4)
      },
      get high() {
        return parent.readUInt32BE(parent.length - 8)
      },
    }
  }
}

/** The adapter belongs to every block, the salt to the first. */
function extraKeys({ loraName, loraPath, cacheSalt }: HashScope, first: boolean) {
  return [
    ...(loraName === null ? [] : [['lora', loraName, loraPath ?? '']]),
    ...(first && cacheSalt !== null ? [['cache_salt', cacheSalt]] : []),
  ]
}
