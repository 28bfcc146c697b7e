import { RouterError } from '../errors.ts'
import { blocksInMemory, kvMemory, stageWeightBytes } from './capacity.ts'
import type { KvLayout } from './kv-groups.ts'
import type { SizingRequest } from './sizing-request.ts'

export interface MemoryUse {
  readonly gpuBytes: number
  readonly utilization: number
  /** On the GPU that has least room, by stage of the pipeline. */
  readonly weightBytes: number
  readonly otherBytes: number
}

export interface KvRoom {
  readonly blocks: number
  /** Null where the room was given. */
  readonly memory: MemoryUse | null
  /** Bytes on one rank of each stage; null where nobody tells. */
  readonly stageWeights: readonly number[] | null
}

const gib = 2 ** 30

/** Blocks on every GPU: given, or by the memory that is given or left over. What of it is an estimate is added to `estimates`. */
export function kvRoom(request: SizingRequest, layout: KvLayout, estimates: string[]): KvRoom {
  const { kvMemoryBytes, model, parallelism, utilization } = request
  const stages = layout.blockBytes.length
  const gpuCount = parallelism.tensor * parallelism.pipeline
  const given = request.weightBytes
  const stageWeights =
    given === undefined ? stageWeightBytes(model, parallelism) : Array.from({ length: stages }, () => given / gpuCount)
  if (request.blocks !== undefined) return { blocks: request.blocks, memory: null, stageWeights }
  if (kvMemoryBytes !== undefined) {
    const blocks = blocksInMemory(
      layout,
      Array.from({ length: stages }, () => kvMemoryBytes),
    )
    return { blocks, memory: null, stageWeights }
  }
  const gpuBytes = request.gpu?.memoryBytes
  if (gpuBytes === undefined)
    throw new RouterError(
      'CONFIG_INVALID',
      'Say which GPU (--gpu), how large it is (--gpu-memory) or what is left for the KV cache (--kv-memory, --blocks)',
    )
  if (stageWeights === null)
    throw new RouterError(
      'CONFIG_INVALID',
      `The config does not tell how large the weights are (${model.notes.join('; ')}): give --weights, or --kv-memory`,
    )
  const otherBytes = request.otherBytes ?? assumedOther(request, gpuBytes, estimates)
  estimates.push(
    `what is left for the KV cache: memory × utilization − weights${given === undefined ? ' by the config’s shapes' : ''} − the rest; an engine measures it at start and logs it (--kv-memory takes that figure)`,
  )
  const stageBytes = kvMemory({ gpuBytes, utilization, stageWeightBytes: stageWeights, otherBytes })
  const weightBytes = Math.max(...stageWeights)
  return {
    blocks: blocksInMemory(layout, stageBytes),
    memory: { gpuBytes, utilization, weightBytes, otherBytes },
    stageWeights,
  }
}

/** Activations, graphs and buffers: more on large GPUs, where engines take larger batches, and for experts on several GPUs. */
function assumedOther({ model, parallelism }: SizingRequest, gpuBytes: number, estimates: string[]): number {
  const hasExperts = model.weights?.layers.some((parts) => parts.some(({ module }) => module === 'experts')) ?? false
  const amount = gpuBytes < 70 * gib ? 1.2 : hasExperts && parallelism.tensor > 1 ? 5 : 3
  estimates.push(`${amount} GiB a GPU for activations, graphs and communication: assumed (--other)`)
  return amount * gib
}

/** vLLM 0.32: tokens of a batch by the GPU's memory, times the batches that are on their way at once. */
export function assumedInFlightTokens(
  { gpu, parallelism }: SizingRequest,
  layout: KvLayout,
  estimates: string[],
): number {
  const memory = gpu?.memoryBytes ?? 0
  const isA100 = gpu?.name?.startsWith('a100') === true
  const batchTokens = memory >= 160 * gib ? 16_384 : memory >= 70 * gib && !isA100 ? 8192 : 2048
  const inFlight = batchTokens * (parallelism.pipeline + 1)
  if (layout.groups.some(({ windowTokens }) => windowTokens !== null))
    estimates.push(
      `windows keep room for ${inFlight} tokens in flight: ${parallelism.pipeline + 1} batches of ${batchTokens}, vLLM’s default for such a GPU (--in-flight-tokens)`,
    )
  return inFlight
}
