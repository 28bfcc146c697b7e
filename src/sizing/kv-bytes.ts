import { RouterError } from '../errors.ts'
import type { Layer } from './layer.ts'
import type { ModelConfig } from './model-config.ts'

/** `auto` is the model's own type. The last two pack a latent vector with its scales (vLLM, sparse MLA). */
export const kvCacheDtypes = ['auto', 'bfloat16', 'float16', 'fp8', 'fp8_ds_mla', 'nvfp4_ds_mla'] as const

export type KvCacheDtype = (typeof kvCacheDtypes)[number]

/** How a model is spread over the GPUs of one worker. */
export interface Parallelism {
  /** Ranks that split each layer (TP). */
  readonly tensor: number
  /** Stages that split the layers (PP). */
  readonly pipeline: number
  /** Ranks of one stage that split the tokens of a sequence (DCP). */
  readonly decodeContext: number
}

export const single: Parallelism = { tensor: 1, pipeline: 1, decodeContext: 1 }

/** Bytes that vLLM's packed latent formats take a token and layer. */
const packedLatentBytes: Partial<Record<KvCacheDtype, number>> = { fp8_ds_mla: 656, nvfp4_ds_mla: 352 }

export function kvElementBytes(dtype: KvCacheDtype, { elementType }: Pick<ModelConfig, 'elementType'>): number {
  if (dtype === 'auto') return elementType.bytes
  return dtype === 'fp8' ? 1 : 2
}

/** Bytes that one rank keeps of one token in one layer; 0 for a layer that keeps a state. */
export function layerTokenBytes(layer: Layer, model: ModelConfig, dtype: KvCacheDtype, tensor: number): number {
  switch (layer.kind) {
    case 'full':
    case 'sliding': {
      if (packedLatentBytes[dtype] !== undefined)
        throw new RouterError(
          'CONFIG_INVALID',
          `A KV cache of ${dtype} is for latent attention (MLA), which this model has not`,
        )
      const elements = kvHeadsOfRank(layer.kvHeads, tensor) * (layer.keyDim + layer.valueDim)
      return elements * kvElementBytes(dtype, model)
    }
    case 'latent': {
      const packed = packedLatentBytes[dtype]
      return (packed ?? (layer.latentDim + layer.ropeDim) * kvElementBytes(dtype, model)) + layer.indexBytes
    }
    case 'linear':
      return 0
    default:
      return layer satisfies never
  }
}

/** Bytes of the state that one rank keeps of a sequence in one layer: those of the convolution, and the recurrent one. */
export function layerStateBytes(layer: Layer, { elementType }: ModelConfig, tensor: number): number {
  if (layer.kind !== 'linear') return 0
  const { convolutionKernel, keyDim, keyHeads, recurrentBytes, valueDim, valueHeads } = layer
  const width = (2 * keyHeads * keyDim + valueHeads * valueDim) / tensor
  const convolution = width * (convolutionKernel - 1)
  const recurrent = (valueHeads / tensor) * valueDim * keyDim
  return convolution * elementType.bytes + recurrent * (recurrentBytes ?? elementType.bytes)
}

/** KV heads of one rank: split over the ranks, and held by several of them where there are more ranks than heads. */
export function kvHeadsOfRank(kvHeads: number, tensor: number): number {
  return Math.max(1, Math.floor(kvHeads / tensor))
}

/** Layers of each stage, first to last. What remains goes to the stages before the last one, latest first (vLLM 0.32). */
export function stageLayerCounts(layerCount: number, pipeline: number): number[] {
  const remaining = layerCount % pipeline
  return Array.from({ length: pipeline }, (_, stage) => {
    const fromEnd = pipeline - stage
    const extra = fromEnd >= 2 && fromEnd < 2 + remaining ? 1 : 0
    return Math.floor(layerCount / pipeline) + extra
  })
}

/**
 * Bytes a token of context takes on one rank, where every layer keeps it: those of the stage that has most. Layers with a window
 * keep no token beyond it; layers with a state keep none. Splitting the tokens (DCP) divides it.
 */
export function tokenBytesPerRank(model: ModelConfig, dtype: KvCacheDtype, parallelism: Parallelism): number {
  return tokenBytes(model, dtype, parallelism, () => true)
}

/** The same for a token that no window reaches any more. */
export function distantTokenBytesPerRank(model: ModelConfig, dtype: KvCacheDtype, parallelism: Parallelism): number {
  return tokenBytes(model, dtype, parallelism, ({ kind }) => kind !== 'sliding')
}

function tokenBytes(
  model: ModelConfig,
  dtype: KvCacheDtype,
  { decodeContext, pipeline, tensor }: Parallelism,
  counts: (layer: Layer) => boolean,
): number {
  let first = 0
  const stages = stageLayerCounts(model.layers.length, pipeline).map((count) => {
    const layers = model.layers.slice(first, (first += count)).filter(counts)
    return layers.reduce((sum, layer) => sum + layerTokenBytes(layer, model, dtype, tensor), 0)
  })
  return Math.max(...stages) / decodeContext
}

/** Bytes of one copy of a token over all layers: what a store outside the GPUs holds of it. */
export function tokenBytesOfModel(model: ModelConfig, dtype: KvCacheDtype): number {
  return tokenBytesPerRank(model, dtype, single)
}

/** Throws CONFIG_INVALID where an engine would refuse to spread the model so. */
export function checkParallelism(model: ModelConfig, { decodeContext, pipeline, tensor }: Parallelism): void {
  const refuse = (reason: string): never => {
    throw new RouterError('CONFIG_INVALID', reason)
  }
  if (pipeline > model.layers.length) refuse(`A pipeline of ${pipeline} has more stages than the model has layers`)
  for (const layer of model.layers) {
    if (layer.kind === 'latent') {
      if (tensor % decodeContext !== 0) refuse(`DCP ${decodeContext} has to divide TP ${tensor}`)
      continue
    }
    const [heads, name] = layer.kind === 'linear' ? [layer.keyHeads, 'linear key'] : [layer.kvHeads, 'KV']
    if (heads % tensor !== 0 && (layer.kind === 'linear' || tensor % heads !== 0))
      refuse(`TP ${tensor} does not divide the model's ${heads} ${name} heads, nor is it a multiple of them`)
    if (decodeContext === 1) continue
    if (layer.kind !== 'full') refuse('DCP is for models in which every layer keeps every token')
    if (tensor % (heads * decodeContext) !== 0)
      refuse(
        `DCP ${decodeContext} splits what ranks hold twice: TP ${tensor} has to be a multiple of ${heads} KV heads × DCP`,
      )
  }
}
