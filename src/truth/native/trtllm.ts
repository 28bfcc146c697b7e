import { trtllmBlockHash, trtllmSaltId } from '../../kv/engine-hash/trtllm.ts'
import type { RootBlock } from '../../kv/root-block.ts'
import { mismatch, otherSize, saltUnused, smallerBlocks, type NativeResult } from './result.ts'

/** Adapters are numbered as they are loaded; so many numbers are tried. */
const triedTasks = 64

/**
 * TensorRT-LLM: `v1_block_key`, with and without the wrapping of native code. Its other algorithms, and the salts of its
 * native cache manager, cannot be recomputed. Events of older versions do not name adapters: a name that only comes out
 * with an adapter's number gives such a block away.
 */
export function verifyTrtllm(block: RootBlock): NativeResult {
  const { tokens, adapter, extras } = block
  const salt = extras.find((extra) => extra.startsWith('salt:'))?.slice(5) ?? null
  const verified: NativeResult = { kind: 'verified', algorithm: 'v1_block_key', seed: null }
  if (adapter !== null)
    return taskOf(block, tokens, salt) === null
      ? { kind: 'unverified', reason: 'the number of an adapter is not told' }
      : verified
  if (isNamed(block, tokens, salt, null)) return verified
  if (salt !== null && isNamed(block, tokens, null, null)) return mismatch('salt', saltUnused)
  const task = taskOf(block, tokens, salt)
  if (task !== null) return mismatch('lora', `the block is of adapter number ${task}, and its event names none`)
  for (const smaller of smallerBlocks(tokens))
    if (isNamed(block, smaller, salt, null)) return otherSize(smaller, tokens)
  return { kind: 'unverified', reason: 'the engine makes its names in another way than v1_block_key' }
}

function taskOf(block: RootBlock, tokens: Uint32Array, salt: string | null): bigint | null {
  for (let task = 0n; task < triedTasks; task++) if (isNamed(block, tokens, salt, task)) return task
  return null
}

function isNamed(
  { hashLow, hashHigh }: RootBlock,
  tokens: Uint32Array,
  salt: string | null,
  task: bigint | null,
): boolean {
  return [true, false].some((wraps) => {
    const scope = {
      wraps,
      ...(salt === null ? {} : { saltId: trtllmSaltId(salt) }),
      ...(task === null ? {} : { loraTaskId: task }),
    }
    const { low, high } = trtllmBlockHash(tokens, null, scope)
    return low === hashLow >>> 0 && high === hashHigh >>> 0
  })
}
