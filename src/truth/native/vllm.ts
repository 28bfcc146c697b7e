import {
  vllmAlgorithms,
  vllmBlockDigest,
  vllmDefaultSeed,
  vllmRootDigest,
  type VllmAlgorithm,
  type VllmExtraKey,
} from '../../kv/engine-hash/vllm.ts'
import type { RootBlock } from '../../kv/root-block.ts'
import { mismatch, otherSize, saltUnused, smallerBlocks, type NativeHash, type NativeResult } from './result.ts'

/** Seeds that operators choose most often. */
const usualSeeds = ['0', '42', '1', '123', '1234'] as const
interface Attempt {
  readonly algorithm: VllmAlgorithm
  readonly seed: string
  readonly tokens: Uint32Array
  readonly extra: readonly VllmExtraKey[]
}

/** vLLM: any of its algorithms, with the seed that is known, its default, or one that is often chosen. */
export function verifyVllm(block: RootBlock, hash: NativeHash): NativeResult {
  const told = vllmAlgorithms.find((name) => name === hash.algorithm)
  if (hash.algorithm !== null && told === undefined)
    return { kind: 'unverified', reason: `the block hash ${hash.algorithm} is not known` }
  const { tokens } = block
  const seed = hash.seed ?? vllmDefaultSeed
  const path = block.adapter === null ? '' : (hash.adapterPaths.get(block.adapter) ?? '')
  const extra = extraKeys(block, path)
  const base: Attempt = { algorithm: told ?? 'sha256', seed, tokens, extra }
  const fits = (attempt: Partial<Attempt>): boolean => isNamed(block, { ...base, ...attempt })
  const verified = (attempt: Partial<Attempt>): NativeResult => ({
    kind: 'verified',
    algorithm: attempt.algorithm ?? base.algorithm,
    seed: attempt.seed ?? seed,
  })
  if (fits({})) return verified({})
  const legacy = untagged(extra)
  if (extra.length > 0 && fits({ extra: legacy })) return verified({})

  const algorithms = told === undefined ? vllmAlgorithms : [told]
  const seeds = [...new Set([seed, vllmDefaultSeed, ...usualSeeds])]
  for (const algorithm of algorithms) {
    for (const other of seeds) {
      for (const keys of extra.length > 0 ? [extra, legacy] : [extra]) {
        if (!fits({ algorithm, seed: other, extra: keys })) continue
        // Where nobody claimed a seed, finding it is as good as having been told.
        return hash.seed === null || hash.seed === other
          ? verified({ algorithm, seed: other })
          : mismatch('hash_seed', `the seed is "${other}"`)
      }
    }
  }
  const differing = otherwise(block, base, fits)
  if (differing !== null) return differing
  if (hash.seed !== null) return mismatch('hash_seed', 'neither the configured seed nor a usual one makes it')
  return { kind: 'unverified', reason: 'the seed is random, or set by PYTHONHASHSEED and not configured here' }
}

/** What else may be amiss, at the expected seed and algorithm; the algorithm itself last. */
function otherwise(block: RootBlock, base: Attempt, fits: (attempt: Partial<Attempt>) => boolean): NativeResult | null {
  const { tokens } = block
  const without = (kind: string): VllmExtraKey[] => base.extra.filter((key) => key[0] !== kind)
  const has = (kind: string): boolean => without(kind).length < base.extra.length
  if (has('cache_salt') && fits({ extra: without('cache_salt') })) return mismatch('salt', saltUnused)
  if (has('lora') && fits({ extra: without('lora') }))
    return mismatch('lora', 'the adapter is announced but not part of the name')
  for (const smaller of smallerBlocks(tokens)) if (fits({ tokens: smaller })) return otherSize(smaller, tokens)
  for (const algorithm of vllmAlgorithms)
    if (algorithm !== base.algorithm && fits({ algorithm }))
      return mismatch('hash_seed', `the algorithm is ${algorithm}`)
  return null
}

function isNamed(block: RootBlock, { algorithm, seed, tokens, extra }: Attempt): boolean {
  const digest = vllmBlockDigest(algorithm, vllmRootDigest(algorithm, seed), tokens, extra)
  const { length } = digest
  return digest.readUInt32BE(length - 4) === block.hashLow && digest.readUInt32BE(length - 8) === block.hashHigh
}

/** The extra keys of a first block in vLLM's order and with its tags. */
function extraKeys({ adapter, extras }: RootBlock, path: string): VllmExtraKey[] {
  const keys: VllmExtraKey[] = adapter === null ? [] : [['lora', adapter, path]]
  for (const extra of extras) {
    const media = /^mm:(.*)@(-?\d+)$/s.exec(extra)
    if (media !== null) keys.push(['mm', media[1] ?? '', Number(media[2])])
  }
  for (const extra of extras) if (extra.startsWith('salt:')) keys.push(['cache_salt', extra.slice(5)])
  for (const extra of extras)
    if (extra.startsWith('embeds:')) keys.push(['prompt_embeds', Buffer.from(extra.slice(7), 'hex')])
  return keys
}

/** As releases before 0.32 put them in: values without a tag, and no adapter path. */
function untagged(extra: readonly VllmExtraKey[]): VllmExtraKey[] {
  return extra.flatMap((key) => (typeof key === 'string' || typeof key[1] !== 'string' ? [] : [key[1]]))
}
