import type { ConfigFields } from './config-fields.ts'
import type { Family } from './families.ts'
import type { Layer } from './layer.ts'

/** Some parameters of a model that lie together: what they are, and how ranks share them. */
export interface WeightPart {
  readonly module: 'attention' | 'mlp' | 'experts' | 'router' | 'norm' | 'embedding' | 'head'
  readonly parameters: number
  /** How many of them one token uses; fewer than all of them for experts. */
  readonly activeParameters: number
  /** `tensor`: split over the ranks; `kv-heads`: split up to the number of KV heads; `none`: every rank holds all of them. */
  readonly split: 'tensor' | 'kv-heads' | 'none'
}

export interface Weights {
  /** By layer, first to last. */
  readonly layers: readonly (readonly WeightPart[])[]
  /** On the first stage of a pipeline. */
  readonly embedding: WeightPart
  /** On the last one; with tied embeddings the embedding once more, which counts where the two stages differ. */
  readonly head: WeightPart
  readonly isTied: boolean
}

/** The parameters that a config's shapes amount to; null where a field that they depend on is missing. */
export function readWeights(fields: ConfigFields, family: Family, layers: readonly Layer[]): Weights | null {
  if (!fields.has('intermediate_size') && !fields.has('moe_intermediate_size')) return null
  // Experts that a family is not known to have would be left out silently.
  if (!family.hasExperts && expertFields.some((name) => fields.has(name))) return null
  const hidden = fields.integer('hidden_size')
  const vocabulary = fields.integer('vocab_size') * hidden
  return {
    layers: layers.map((layer, index) => [
      ...attention(layer, hidden, fields, family),
      ...feedForward(index, hidden, fields, family),
      part('norm', hidden * (family.norms ?? 2), 'none'),
    ]),
    embedding: { ...part('embedding', vocabulary, 'tensor'), activeParameters: 0 },
    // Of a prompt only the last token goes through the head.
    head: { ...part('head', vocabulary, 'tensor'), activeParameters: 0 },
    isTied: fields.flag('tie_word_embeddings', family.tiedEmbeddings ?? false),
  }
}

/** All parameters, the embedding once where it is tied; the last norm included. */
export function parameterCount({ embedding, head, isTied, layers }: Weights, hidden: number): number {
  const inLayers = layers.flat().reduce((sum, { parameters }) => sum + parameters, 0)
  return inLayers + embedding.parameters + (isTied ? 0 : head.parameters) + hidden
}

/** Parameters that a prompt token is multiplied with. */
export function activeParameterCount({ layers }: Weights): number {
  return layers.flat().reduce((sum, { activeParameters }) => sum + activeParameters, 0)
}

const expertFields = ['num_experts', 'num_local_experts', 'n_routed_experts', 'moe_intermediate_size']

function part(module: WeightPart['module'], parameters: number, split: WeightPart['split']): WeightPart {
  return { module, parameters, activeParameters: parameters, split }
}

function attention(layer: Layer, hidden: number, fields: ConfigFields, family: Family): WeightPart[] {
  if (layer.kind === 'latent') return latentAttention(hidden, fields, layer)
  if (layer.kind === 'linear') {
    const { convolutionKernel, keyDim, keyHeads, valueDim, valueHeads } = layer
    const [keys, values] = [keyDim * keyHeads, valueDim * valueHeads]
    const projections = hidden * (2 * keys + 2 * values + 2 * valueHeads) + values * hidden
    const rest = (2 * keys + values) * convolutionKernel + 2 * valueHeads
    return [part('attention', projections + rest, 'tensor'), part('norm', valueDim, 'none')]
  }
  const heads = fields.integer('num_attention_heads')
  const [queries, keys, values] = [heads * layer.keyDim, layer.kvHeads * layer.keyDim, layer.kvHeads * layer.valueDim]
  const queryParts = family.gatedQueries ? 2 : 1
  const bias = attentionBias(fields, family)
  const biases = bias === undefined ? 0 : queries + (bias === 'all' ? hidden : 0)
  const sinks = family.biasedExperts ? heads : 0
  return [
    part('attention', hidden * queries * queryParts + heads * layer.valueDim * hidden + biases + sinks, 'tensor'),
    part('attention', (keys + values) * (hidden + (bias === undefined ? 0 : 1)), 'kv-heads'),
    part('norm', fields.flag('use_qk_norm', family.headNorms ?? false) ? 2 * layer.keyDim : 0, 'none'),
  ]
}

function attentionBias(fields: ConfigFields, { attentionBias: bias }: Family): 'qkv' | 'all' | undefined {
  const isFlagged = fields.flag('attention_bias', false)
  if (bias === 'qkv, flagged') return isFlagged ? 'qkv' : undefined
  return bias ?? (isFlagged ? 'all' : undefined)
}

function latentAttention(
  hidden: number,
  fields: ConfigFields,
  { latentDim, ropeDim }: { latentDim: number; ropeDim: number },
): WeightPart[] {
  const heads = fields.integer('num_attention_heads')
  const keyDim = fields.integer('qk_nope_head_dim')
  const valueDim = fields.integer('v_head_dim')
  const queryRank = fields.optionalInteger('q_lora_rank')
  const queries = (queryRank ?? hidden) * heads * (keyDim + ropeDim)
  const down = hidden * (latentDim + ropeDim) + latentDim + (queryRank === null ? 0 : (hidden + 1) * queryRank)
  const indexDim = fields.optionalInteger('index_head_dim')
  const indexHeads = indexDim === null ? 0 : fields.integer('index_n_heads')
  const index =
    indexDim === null
      ? 0
      : indexDim * (hidden + (queryRank ?? hidden) * indexHeads) + hidden * indexHeads + 2 * indexDim
  return [
    part('attention', queries + latentDim * heads * (keyDim + valueDim) + heads * valueDim * hidden, 'tensor'),
    // The projections down to the compressed vectors are whole on every rank.
    part('attention', down + index, 'none'),
  ]
}

function feedForward(index: number, hidden: number, fields: ConfigFields, family: Family): WeightPart[] {
  if (family.hasExperts?.(index, fields) !== true)
    return [part('mlp', 3 * hidden * fields.integer('intermediate_size'), 'tensor')]
  const experts = firstInteger(fields, ['n_routed_experts', 'num_local_experts', 'num_experts'])
  const chosen = firstInteger(fields, ['num_experts_per_tok', 'experts_per_token'])
  const width = fields.optionalInteger('moe_intermediate_size') ?? fields.integer('intermediate_size')
  const expert = 3 * hidden * width + (family.biasedExperts ? 2 * width + hidden : 0)
  const sharedWidth =
    fields.optionalInteger('shared_expert_intermediate_size') ?? width * fields.count('n_shared_experts', 0)
  const shared = 3 * hidden * sharedWidth + (fields.has('shared_expert_intermediate_size') ? hidden : 0)
  const corrections = family.biasedExperts || fields.text('topk_method') === 'noaux_tc' ? experts : 0
  return [
    part('router', hidden * experts + corrections, 'none'),
    { module: 'experts', parameters: experts * expert, activeParameters: chosen * expert, split: 'tensor' },
    part('mlp', shared, 'tensor'),
  ]
}

function firstInteger(fields: ConfigFields, names: readonly [string, ...string[]]): number {
  return fields.integer(names.find((name) => fields.has(name)) ?? names[0])
}
