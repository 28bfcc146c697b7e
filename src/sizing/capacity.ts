import { RouterError } from '../errors.ts'
import { stageLayerCounts, kvHeadsOfRank, type Parallelism } from './kv-bytes.ts'
import { blocksPerSequence, type KvLayout, type SequenceOptions } from './kv-groups.ts'
import type { ModelConfig } from './model-config.ts'
import type { WeightPart } from './weights.ts'

export interface KvCapacity {
  /** What the engine reports, the null block included. */
  readonly blocks: number
  /** One block is never given to a request: the null block. */
  readonly usableBlocks: number
  readonly blocksPerSequence: number
  /** Sequences of the greatest length that have room at once, as vLLM logs it. */
  readonly concurrency: number
  /** `concurrency` × the greatest length, as vLLM logs it. */
  readonly tokens: number
}

/** Blocks that fit into the memory left for them: the stage with fewest decides. */
export function blocksInMemory({ blockBytes }: KvLayout, stageMemoryBytes: readonly number[]): number {
  return Math.min(...blockBytes.map((bytes, stage) => Math.floor((stageMemoryBytes[stage] ?? 0) / bytes)))
}

/** Capacity of a worker whose engine has so many blocks, for sequences of up to `maxTokens`. */
export function kvCapacity(layout: KvLayout, blocks: number, maxTokens: number, options: SequenceOptions): KvCapacity {
  const perSequence = blocksPerSequence(layout, maxTokens, options)
  const concurrency = blocks / perSequence
  return {
    blocks,
    usableBlocks: Math.max(0, blocks - 1),
    blocksPerSequence: perSequence,
    concurrency,
    tokens: Math.floor(concurrency * maxTokens),
  }
}

/** Sequences of so many tokens at which the GPUs' memory for the KV cache is full. */
export function concurrencyLimit(
  layout: KvLayout,
  usableBlocks: number,
  tokens: number,
  options: SequenceOptions,
): number {
  return Math.floor(usableBlocks / blocksPerSequence(layout, tokens, options))
}

/** The line in which vLLM reports its KV cache at start. */
export function vllmLogLine(
  { concurrency, tokens }: KvCapacity,
  maxTokens: number,
  device: 'GPU' | 'CPU' = 'GPU',
): string {
  const grouped = (value: number) => value.toLocaleString('en-US')
  return `${device} KV cache size: ${grouped(tokens)} tokens, Maximum concurrency for ${grouped(maxTokens)} tokens per request: ${concurrency.toFixed(2)}x`
}

/** Memory for the KV cache on each stage: what the engine may use, less weights and the rest. Throws where nothing is left. */
export function kvMemory(options: {
  readonly gpuBytes: number
  readonly utilization: number
  readonly stageWeightBytes: readonly number[]
  readonly otherBytes: number
}): number[] {
  const { gpuBytes, otherBytes, stageWeightBytes, utilization } = options
  return stageWeightBytes.map((weightBytes, stage) => {
    const left = gpuBytes * utilization - weightBytes - otherBytes
    if (left > 0) return left
    const gib = (bytes: number) => (bytes / 2 ** 30).toFixed(1)
    const which = stageWeightBytes.length === 1 ? '' : ` on stage ${stage + 1}`
    throw new RouterError(
      'CONFIG_INVALID',
      `No memory is left for the KV cache${which}: ${gib(gpuBytes)} GiB × ${utilization} − ${gib(weightBytes)} GiB of weights − ${gib(otherBytes)} GiB for the rest = ${gib(left)} GiB. Take more GPUs (--tp, --pp), a larger one, or smaller weights`,
    )
  })
}

/** Bytes of the weights on one rank of each stage; null where the config does not tell. */
export function stageWeightBytes(model: ModelConfig, { pipeline, tensor }: Parallelism): number[] | null {
  const { layers, weightFormat, weights } = model
  if (weights === null || weightFormat === null) return null
  const bytes = ({ module, parameters, split }: WeightPart, kvHeads: number): number => {
    const ranks = split === 'tensor' ? tensor : split === 'none' ? 1 : kvHeads / kvHeadsOfRank(kvHeads, tensor)
    return (parameters / ranks) * weightFormat.bytes(module)
  }
  let first = 0
  const counts = stageLayerCounts(layers.length, pipeline)
  return counts.map((count, stage) => {
    let sum = 0
    for (let index = first; index < first + count; index++) {
      const layer = layers[index]
      const kvHeads = layer !== undefined && 'kvHeads' in layer ? layer.kvHeads : 1
      for (const part of weights.layers[index] ?? []) sum += bytes(part, kvHeads)
    }
    first += count
    const isLast = stage === counts.length - 1
    if (stage === 0) sum += bytes(weights.embedding, 1)
    if (isLast && !(stage === 0 && weights.isTied)) sum += bytes(weights.head, 1)
    return sum + (isLast ? model.hiddenSize * weightFormat.bytes('norm') : 0)
  })
}
