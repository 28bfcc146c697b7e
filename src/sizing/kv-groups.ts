import assert from 'node:assert/strict'
import { layerStateBytes, layerTokenBytes, stageLayerCounts, type KvCacheDtype, type Parallelism } from './kv-bytes.ts'
import type { Layer } from './layer.ts'
import type { ModelConfig } from './model-config.ts'

/**
 * How vLLM 0.32 lays a model's KV cache out (v1/core/kv_cache_utils.py). All blocks of a pool are equally large, and a block
 * belongs to one group of layers at a time:
 *
 *     all layers alike            one group of them all; a block holds a page of each layer
 *     full + sliding (5 : 25)     groups of 5 layers each: 1 full, 5 sliding; a block holds a page of each of 5 layers
 *     full + linear (12 : 36)     groups of 12: 1 full, 3 linear; pages of full layers are made as large as a state
 */
export interface KvGroup {
  readonly kind: Layer['kind']
  /** Indexes of its layers in the model. */
  readonly layers: readonly number[]
  /** Tokens a block; of a state, one block holds all of it. */
  readonly blockTokens: number
  readonly windowTokens: number | null
  /** Bytes of one block in one layer. */
  readonly pageBytes: number
}

export interface KvLayout {
  readonly groups: readonly KvGroup[]
  /** Bytes of a block on each stage of the pipeline. */
  readonly blockBytes: readonly number[]
  readonly notes: readonly string[]
}

export interface LayoutOptions {
  readonly dtype: KvCacheDtype
  readonly parallelism: Parallelism
  /** The engine's block size; a model with states may need a larger one, which the layout then tells. */
  readonly blockTokens: number
}

export function kvLayout(model: ModelConfig, options: LayoutOptions): KvLayout {
  const { parallelism } = options
  const { blockTokens, notes, pageBytes } = pages(model, options)
  const groups = grouped(model.layers).map((layers): KvGroup => {
    const layer = model.layers[layers[0] ?? 0]
    assert(layer !== undefined)
    return {
      ...{ kind: layer.kind, layers, blockTokens, pageBytes },
      windowTokens: layer.kind === 'sliding' ? layer.windowTokens : null,
    }
  })
  let first = 0
  const blockBytes = stageLayerCounts(model.layers.length, parallelism.pipeline).map((count) => {
    const from = first
    first += count
    const onStage = groups.map(({ layers }) => layers.filter((layer) => layer >= from && layer < first).length)
    return Math.max(...onStage) * pageBytes
  })
  return { groups, blockBytes, notes }
}

/** One size of page for all layers, and the tokens that an attention layer has room for in it. */
function pages(
  model: ModelConfig,
  { blockTokens, dtype, parallelism }: LayoutOptions,
): { blockTokens: number; pageBytes: number; notes: string[] } {
  const tokenBytes = Math.max(...model.layers.map((layer) => layerTokenBytes(layer, model, dtype, parallelism.tensor)))
  const stateBytes = Math.max(...model.layers.map((layer) => layerStateBytes(layer, model, parallelism.tensor)))
  // What a family's heads are, they are in every layer; another shape would have been refused on reading.
  assert(
    model.layers.every((layer) => [0, tokenBytes].includes(layerTokenBytes(layer, model, dtype, parallelism.tensor))),
  )
  const enlarged = blockTokens * Math.max(1, Math.ceil(stateBytes / (blockTokens * tokenBytes)))
  const notes =
    enlarged === blockTokens
      ? []
      : [`blocks hold ${enlarged} tokens instead of ${blockTokens}, so that a state fits into the page of one layer`]
  return { blockTokens: enlarged, pageBytes: enlarged * tokenBytes, notes }
}

/**
 * Layers of one shape, cut into groups of equal size: that of the rarest shape, or of the most frequent one where it is less than
 * half as many again. Neighbours go to different groups, so that every stage of a pipeline has some of each.
 */
function grouped(layers: readonly Layer[]): number[][] {
  const byShape = new Map<string, number[]>()
  layers.forEach((layer, index) => {
    const shape = JSON.stringify(layer)
    const alike = byShape.get(shape)
    if (alike === undefined) byShape.set(shape, [index])
    else alike.push(index)
  })
  const shapes = [...byShape.values()]
  const counts = shapes.map(({ length }) => length)
  const [rarest, commonest] = [Math.min(...counts), Math.max(...counts)]
  const groupSize = commonest < rarest * 1.5 ? commonest : rarest
  return shapes.flatMap((indexes) => {
    const groups = Math.ceil(indexes.length / groupSize)
    return Array.from({ length: groups }, (_, group) => indexes.filter((__, at) => at % groups === group))
  })
}

export interface SequenceOptions {
  /** Tokens that are scheduled and not settled, for which windows keep room: batches at once × tokens a batch. */
  readonly inFlightTokens: number
  readonly decodeContext: number
  /** Whether prefixes are cached: each layer with a state then keeps two of them. */
  readonly prefixCaching: boolean
}

/** Blocks that one sequence of so many tokens holds at most, over all groups. */
export function blocksPerSequence(
  { groups }: KvLayout,
  tokens: number,
  { decodeContext, inFlightTokens, prefixCaching }: SequenceOptions,
): number {
  return groups.reduce((sum, { blockTokens, kind, windowTokens }) => {
    if (kind === 'linear') return sum + (prefixCaching ? 2 : 1)
    if (windowTokens === null) return sum + Math.ceil(Math.ceil(tokens / decodeContext) / blockTokens)
    // One more, since a window need not begin where a block does.
    return sum + Math.ceil(Math.min(windowTokens - 1 + inFlightTokens, tokens) / blockTokens) + 1
  }, 0)
}
