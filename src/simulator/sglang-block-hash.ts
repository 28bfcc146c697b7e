import { sglangDigest, sglangId, sglangNamespace, sglangNamespacedId, sglangRoot } from '../kv/engine-hash/sglang.ts'
import type { BlockHash } from './block-hash.ts'

/** SGLang's own page hashes; an adapter's path stands for the random part of its extra key. */
export const sglangBlockHash: BlockHash = ({ cacheSalt, loraName, loraPath }, blockSize) => {
  const namespace = loraName === null ? null : sglangNamespace(`${loraName}${loraPath ?? ''}`, cacheSalt)
  let digest = sglangRoot(cacheSalt)
  let id = { low: 0, high: 0 }
  return {
    append(tokens, from) {
      digest = sglangDigest(digest, tokens.subarray(from, from + blockSize))
      id = namespace === null ? sglangId(digest) : sglangNamespacedId(namespace, digest)
    },
    get low() {
      return id.low
    },
    get high() {
      return id.high
    },
  }
}
