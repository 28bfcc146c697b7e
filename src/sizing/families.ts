import type { ConfigFields } from './config-fields.ts'
import { elementBytes } from './element-type.ts'
import type { Layer, SlidingAttention } from './layer.ts'

/** How the layers of a model type are to be read. Where a config has `layer_types`, that list is believed instead. */
export interface Family {
  /** Which of the layers without `layer_types` look at a window only, or keep a state. Default: none. */
  readonly kindOf?: (layer: number, fields: ConfigFields) => 'full' | 'sliding' | 'linear'
  /** Whether keys and values are compressed (multi-head latent attention). */
  readonly latent?: true
  /** Values of the model class where published configs leave fields out. */
  readonly defaults?: Readonly<Record<string, number>>
  /** Which layers have experts; absent: none. */
  readonly hasExperts?: (layer: number, fields: ConfigFields) => boolean
  /** Norms of the size of the hidden state in each layer; 2 unless told otherwise. */
  readonly norms?: number
  /** Whether the queries and keys are normalized by head. */
  readonly headNorms?: true
  /** Whether queries come with a gate of their own size. */
  readonly gatedQueries?: true
  /** Biases of the projections of queries, keys and values; `flagged`: where the config has `attention_bias`. */
  readonly attentionBias?: 'qkv' | 'qkv, flagged' | 'all'
  /** Whether routers and experts have biases, and attention a learned sink a head (gpt-oss). */
  readonly biasedExperts?: true
  readonly tiedEmbeddings?: true
}

const sparseStep = (layer: number, fields: ConfigFields): boolean =>
  !(fields.integers('mlp_only_layers') ?? []).includes(layer) &&
  (layer + 1) % fields.integer('decoder_sparse_step', 1) === 0

const afterDense = (layer: number, fields: ConfigFields): boolean =>
  layer >= fields.count('first_k_dense_replace', 0) && layer % fields.integer('moe_layer_freq', 1) === 0

/** Qwen counts the window only where it is switched on, and then from a layer on. */
const qwenWindow = (layer: number, fields: ConfigFields): 'full' | 'sliding' =>
  fields.flag('use_sliding_window', false) && layer >= fields.count('max_window_layers', 28) ? 'sliding' : 'full'

/** A window of zero is none. */
const anyWindow = (_: number, fields: ConfigFields): 'full' | 'sliding' =>
  fields.count('sliding_window', 0) > 0 ? 'sliding' : 'full'

const gemma3: Family = {
  kindOf: (layer, fields) => ((layer + 1) % fields.integer('sliding_window_pattern', 6) === 0 ? 'full' : 'sliding'),
  defaults: {
    ...{ vocab_size: 262_208, num_attention_heads: 8, num_key_value_heads: 4, head_dim: 256 },
    ...{ sliding_window: 4096, max_position_embeddings: 131_072 },
  },
  norms: 4,
  headNorms: true,
  tiedEmbeddings: true,
}

const gemma2: Family = {
  kindOf: (layer) => (layer % 2 === 0 ? 'sliding' : 'full'),
  defaults: { sliding_window: 4096 },
  norms: 4,
  tiedEmbeddings: true,
}

const deepseek: Family = { latent: true, hasExperts: afterDense }

const qwenHybrid: Family = {
  kindOf: (layer, fields) => ((layer + 1) % fields.integer('full_attention_interval', 4) === 0 ? 'full' : 'linear'),
  hasExperts: sparseStep,
  headNorms: true,
  gatedQueries: true,
}

/** The model types (`model_type` of config.json) whose fields are known here. */
export const families: ReadonlyMap<string, Family> = new Map<string, Family>([
  ['llama', {}],
  ['mistral', { kindOf: anyWindow }],
  ['mixtral', { kindOf: anyWindow, hasExperts: () => true }],
  ['qwen2', { kindOf: qwenWindow, attentionBias: 'qkv' }],
  ['qwen2_moe', { kindOf: qwenWindow, hasExperts: sparseStep, attentionBias: 'qkv' }],
  ['qwen3', { kindOf: qwenWindow, headNorms: true }],
  ['qwen3_moe', { kindOf: qwenWindow, hasExperts: sparseStep, headNorms: true }],
  ['qwen3_next', qwenHybrid],
  ['qwen3_5', { ...qwenHybrid, hasExperts: () => false }],
  ['qwen3_5_text', { ...qwenHybrid, hasExperts: () => false }],
  ['qwen3_5_moe', qwenHybrid],
  ['qwen3_5_moe_text', qwenHybrid],
  ['glm4_moe', { hasExperts: afterDense, attentionBias: 'qkv, flagged' }],
  ['gemma', { tiedEmbeddings: true }],
  ['gemma2', gemma2],
  ['gemma3', gemma3],
  ['gemma3_text', gemma3],
  [
    'gpt_oss',
    {
      kindOf: (layer) => (layer % 2 === 0 ? 'sliding' : 'full'),
      defaults: { head_dim: 64 },
      hasExperts: () => true,
      biasedExperts: true,
      attentionBias: 'all',
    },
  ],
  ['deepseek_v2', deepseek],
  ['deepseek_v3', deepseek],
  ['deepseek_v32', deepseek],
  ['kimi_k2', deepseek],
])

/** Fields that tell of layers which keep something else than all keys and values; nobody guesses at a model that has them. */
const unknownShapes = [
  ...[
    'kv_lora_rank',
    'layer_types',
    'sliding_window',
    'attention_chunk_size',
    'full_attention_interval',
    'linear_attn_config',
  ],
  ...['attn_layer_period', 'hybrid_override_pattern', 'layers_block_type', 'mamba_d_state', 'ssm_cfg', 'state_size'],
  ...['num_kv_shared_layers', 'cross_attention_layers', 'is_encoder_decoder', 'compress_ratios'],
]

/** The family of a model type; one that is not known is read as plain attention, and noted as an estimate, where nothing speaks against it. */
export function familyOf(modelType: string, fields: ConfigFields): Family {
  const known = families.get(modelType)
  if (known !== undefined) return known
  for (const name of unknownShapes) {
    const isPlain = name === 'layer_types' && (fields.texts(name) ?? []).every((type) => type === 'full_attention')
    if (fields.has(name) && !isPlain && !(name === 'is_encoder_decoder' && !fields.flag(name, false)))
      return fields.fault(
        name,
        `left out for a model type that is not known here ("${modelType}"; known: ${[...families.keys()].join(', ')}): what its layers keep cannot be told`,
      )
  }
  fields.note(
    `model_type "${modelType}" is not known here: read as keys and values of every token in every layer, an estimate`,
  )
  return {}
}

/** The layers of a model, first to last. */
export function readLayers(fields: ConfigFields, family: Family): Layer[] {
  const count = fields.integer('num_hidden_layers')
  const types = fields.texts('layer_types')
  if (types !== null && types.length !== count) fields.fault('layer_types', `a list of ${count}, one a layer`)
  return Array.from({ length: count }, (_, index) => {
    if (family.latent) return latentLayer(fields)
    const type = types?.[index]
    const kind = type === undefined ? (family.kindOf?.(index, fields) ?? 'full') : kindOfType(type, fields)
    if (kind === 'linear') return linearLayer(fields)
    return kind === 'full' ? { kind, ...heads(fields) } : slidingLayer(fields)
  })
}

function kindOfType(type: string, fields: ConfigFields): 'full' | 'sliding' | 'linear' {
  if (type === 'full_attention') return 'full'
  if (type === 'sliding_attention') return 'sliding'
  if (type === 'linear_attention') return 'linear'
  return fields.fault(
    'layer_types',
    `of full_attention, sliding_attention and linear_attention ("${type}" is not understood)`,
  )
}

function heads(fields: ConfigFields): Omit<SlidingAttention, 'kind' | 'windowTokens'> {
  const attentionHeads = fields.integer('num_attention_heads')
  const kvHeads = fields.optionalInteger('num_key_value_heads') ?? attentionHeads
  const dim = fields.optionalInteger('head_dim') ?? fields.integer('hidden_size') / attentionHeads
  if (!Number.isInteger(dim))
    return fields.fault('hidden_size', `a multiple of num_attention_heads (${attentionHeads})`)
  return { kvHeads, keyDim: dim, valueDim: dim }
}

function slidingLayer(fields: ConfigFields): Layer {
  return { kind: 'sliding', ...heads(fields), windowTokens: fields.integer('sliding_window') }
}

function latentLayer(fields: ConfigFields): Layer {
  const indexDim = fields.optionalInteger('index_head_dim')
  return {
    kind: 'latent',
    latentDim: fields.integer('kv_lora_rank'),
    ropeDim: fields.integer('qk_rope_head_dim'),
    // The index holds a key of one byte an element and a 32-bit scale for each 128 of them (vLLM 0.32, deepseek_v2.py).
    indexBytes: indexDim === null ? 0 : indexDim + 4 * Math.floor(indexDim / 128),
  }
}

function linearLayer(fields: ConfigFields): Layer {
  return {
    kind: 'linear',
    keyHeads: fields.integer('linear_num_key_heads'),
    valueHeads: fields.integer('linear_num_value_heads'),
    keyDim: fields.integer('linear_key_head_dim'),
    valueDim: fields.integer('linear_value_head_dim'),
    convolutionKernel: fields.integer('linear_conv_kernel_dim'),
    recurrentBytes: elementBytes(fields, 'mamba_ssm_dtype'),
  }
}
