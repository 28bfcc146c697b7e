/** What a layer keeps for the tokens before the one that it computes. */
export type Layer = FullAttention | SlidingAttention | LatentAttention | LinearAttention

interface AttentionHeads {
  readonly kvHeads: number
  readonly keyDim: number
  readonly valueDim: number
}

/** Keys and values of every token (multi-head, grouped-query and multi-query attention). */
export interface FullAttention extends AttentionHeads {
  readonly kind: 'full'
}

/** Keys and values of the last tokens only. */
export interface SlidingAttention extends AttentionHeads {
  readonly kind: 'sliding'
  readonly windowTokens: number
}

/** One compressed vector a token instead of keys and values (multi-head latent attention), the same on every rank. */
export interface LatentAttention {
  readonly kind: 'latent'
  readonly latentDim: number
  readonly ropeDim: number
  /** Bytes a token of the index by which sparse attention chooses its tokens; 0 without one. */
  readonly indexBytes: number
}

/** A state of constant size in place of tokens (gated delta net). */
export interface LinearAttention {
  readonly kind: 'linear'
  readonly keyHeads: number
  readonly valueHeads: number
  readonly keyDim: number
  readonly valueDim: number
  readonly convolutionKernel: number
  /** Bytes of an element of the recurrent state; null: of the model's own type. */
  readonly recurrentBytes: number | null
}

/** One line for people: "36 × full, 8 KV heads of 128". */
export function describeLayers(layers: readonly Layer[]): string[] {
  const counts = new Map<string, number>()
  for (const layer of layers) {
    const text = describeLayer(layer)
    counts.set(text, (counts.get(text) ?? 0) + 1)
  }
  return [...counts].map(([text, count]) => `${count} × ${text}`)
}

function describeLayer(layer: Layer): string {
  switch (layer.kind) {
    case 'full':
      return `full attention, ${heads(layer)}`
    case 'sliding':
      return `sliding window of ${layer.windowTokens}, ${heads(layer)}`
    case 'latent':
      return `latent attention (MLA) of ${layer.latentDim} + ${layer.ropeDim}${layer.indexBytes === 0 ? '' : ' with index'}`
    case 'linear':
      return `linear attention, ${layer.valueHeads} value heads of ${layer.valueDim}`
    default:
      return layer satisfies never
  }
}

function heads({ keyDim, kvHeads, valueDim }: AttentionHeads): string {
  return `${kvHeads} KV heads of ${keyDim === valueDim ? String(keyDim) : `${keyDim} and ${valueDim}`}`
}
