import { trtllmBlockHash, trtllmSaltId, type TrtllmHash } from '../kv/engine-hash/trtllm.ts'
import type { BlockHash } from './block-hash.ts'

/** TensorRT-LLM's v1 block hashes; an adapter's number is drawn from its name. */
export const trtllmChain: BlockHash = ({ cacheSalt, loraName }, blockSize) => {
  const scope = {
    ...(cacheSalt === null ? {} : { saltId: trtllmSaltId(cacheSalt) }),
    ...(loraName === null ? {} : { loraTaskId: trtllmSaltId(loraName) }),
  }
  let last: TrtllmHash | null = null
  return {
    append(tokens, from) {
      last = trtllmBlockHash(tokens.subarray(from, from + blockSize), last, scope)
    },
    get low() {
      return last?.low ?? 0
    },
    get high() {
      return last?.high ?? 0
    },
  }
}
