import { sglangDigest, sglangId, sglangNamespace, sglangNamespacedId, sglangRoot } from '../../kv/engine-hash/sglang.ts'
import type { RootBlock } from '../../kv/root-block.ts'
import { mismatch, otherSize, saltUnused, smallerBlocks, type NativeResult } from './result.ts'

/** SGLang: one algorithm without a seed, in two forms of events; adapters take a random id into it each time they load. */
export function verifySglang(block: RootBlock): NativeResult {
  const { tokens, adapter, extras } = block
  if (adapter !== null) return { kind: 'unverified', reason: 'the id of an adapter is random' }
  const salt = extras.find((extra) => extra.startsWith('salt:'))?.slice(5) ?? null
  if (isNamed(block, tokens, salt)) return { kind: 'verified', algorithm: 'sha256', seed: null }
  if (salt !== null && isNamed(block, tokens, null)) return mismatch('salt', saltUnused)
  for (const smaller of smallerBlocks(tokens)) if (isNamed(block, smaller, salt)) return otherSize(smaller, tokens)
  return { kind: 'unverified', reason: 'the engine makes its names in another way than SGLang 0.5.23' }
}

function isNamed({ hashLow, hashHigh }: RootBlock, tokens: Uint32Array, salt: string | null): boolean {
  const digest = sglangDigest(sglangRoot(salt), tokens)
  const ids = [sglangId(digest), sglangNamespacedId(sglangNamespace(null, salt), digest)]
  return ids.some(({ low, high }) => low === hashLow && high === hashHigh)
}
