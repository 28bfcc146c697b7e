import { RouterError } from '../errors.ts'
import { ConfigFields } from './config-fields.ts'
import { families, familyOf, readLayers } from './families.ts'
import type { Layer } from './layer.ts'
import { readElementType, type ElementType } from './element-type.ts'
import { readWeightFormat, type WeightFormat } from './weight-format.ts'
import { readWeights, type Weights } from './weights.ts'

/** What a model's config.json tells that sizes depend on. */
export interface ModelConfig {
  readonly modelType: string
  /** First to last. */
  readonly layers: readonly Layer[]
  readonly hiddenSize: number
  /** The type of activations, and of keys and values unless the engine is told otherwise. */
  readonly elementType: ElementType
  /** The longest sequence; null where the config does not say. */
  readonly maxTokens: number | null
  /** Null where they cannot be told from the config. */
  readonly weights: Weights | null
  readonly weightFormat: WeightFormat | null
  /** What was taken for granted: a sentence each, for people. */
  readonly notes: readonly string[]
}

/** Layers that guess further tokens, which engines load only when asked to. */
const predictionFields = ['num_nextn_predict_layers', 'num_mtp_layers', 'mtp_num_hidden_layers']

/** Reads the value of a Hugging Face config.json. Throws MODEL_CONFIG_INVALID, naming the field that is not understood. */
export function readModelConfig(value: unknown, file = 'config.json'): ModelConfig {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new RouterError(
      'MODEL_CONFIG_INVALID',
      `${file} has to be an object with the fields of a Hugging Face config.json`,
    )
  const outer = new ConfigFields(value as Record<string, unknown>, `${file}:`)
  const { fields, modelType } = textFields(value as Record<string, unknown>, outer, file)
  const family = familyOf(modelType, fields)
  const layers = readLayers(fields, family)
  const elementType = readElementType(fields)
  if (predictionFields.some((name) => fields.count(name, 0) > 0))
    fields.note('the layers for predicting several tokens are not counted, neither their weights nor their KV cache')
  const weights = readWeights(fields, family, layers)
  return {
    ...{ modelType, layers, elementType, weights },
    hiddenSize: fields.integer('hidden_size'),
    maxTokens: fields.optionalInteger('max_position_embeddings'),
    weightFormat: readWeightFormat(fields, elementType),
    notes: fields.notes,
  }
}

/** The part that describes the language model: a multimodal model nests it, and leaves dtype and quantization outside. */
function textFields(
  value: Record<string, unknown>,
  outer: ConfigFields,
  file: string,
): { fields: ConfigFields; modelType: string } {
  const nested = outer.fields('text_config') === null ? null : (value['text_config'] as Record<string, unknown>)
  const outside = ['dtype', 'torch_dtype', 'quantization_config', 'tie_word_embeddings'].filter((name) =>
    outer.has(name),
  )
  const merged =
    nested === null ? value : { ...Object.fromEntries(outside.map((name) => [name, value[name]])), ...nested }
  const plain = new ConfigFields(merged, nested === null ? `${file}:` : `${file} text_config:`)
  const modelType = plain.text('model_type') ?? outer.text('model_type')
  if (modelType === null) return plain.fault('model_type', 'the name of a model type, such as "llama"')
  const defaults = families.get(modelType)?.defaults ?? {}
  const notes = nested === null ? [] : ['only the language model is counted, no encoder of images or sounds']
  const place = nested === null ? `${file}:` : `${file} text_config:`
  return { fields: new ConfigFields(merged, place, { defaults, notes }), modelType }
}
