import type { ConfigFields } from './config-fields.ts'
import type { ElementType } from './element-type.ts'
import type { WeightPart } from './weights.ts'

/** How many bytes a parameter takes, by the module that it is in. */
export interface WeightFormat {
  readonly name: string
  bytes(module: WeightPart['module']): number
}

/** The format of the weights by `quantization_config`; null where its method is not understood, which is noted. */
export function readWeightFormat(fields: ConfigFields, type: ElementType): WeightFormat | null {
  const quantization = fields.fields('quantization_config')
  if (quantization === null) return { name: type.name, bytes: () => type.bytes }
  const method = quantization.text('quant_method')
  const bytes = quantizedBytes(method, quantization)
  if (bytes === null) {
    fields.note(
      `quantization_config.quant_method "${String(method)}" is not understood: the size of the weights has to be given`,
    )
    return null
  }
  noteKvCache(quantization)
  const modules = quantizedModules(method, quantization)
  return {
    name: `${String(method)} (${modules.join(', ')}), else ${type.name}`,
    bytes: (module) => (modules.includes(module) ? bytes : type.bytes),
  }
}

/** Bytes a quantized parameter, the scales of its block or group included. */
function quantizedBytes(method: string | null, quantization: ConfigFields): number | null {
  switch (method) {
    case 'fp8': {
      const block = quantization.integers('weight_block_size')
      return 1 + (block === null ? 0 : 4 / block.reduce((product, side) => product * side, 1))
    }
    case 'awq':
    case 'gptq': {
      const bits = quantization.integer('bits')
      // A 16-bit scale and a zero point for each group.
      return bits / 8 + (2 + bits / 8) / quantization.integer('group_size', 128)
    }
    case 'mxfp4':
      return 1 / 2 + 1 / 32
    case 'compressed-tensors':
      return compressedBytes(quantization)
    case 'modelopt':
      return modelOptBytes(quantization)
    default:
      return null
  }
}

function compressedBytes(quantization: ConfigFields): number | null {
  const groups = quantization.fields('config_groups')?.entries() ?? []
  const sizes = groups.map(([, group]) => {
    const weights = group.fields('weights')
    if (weights === null) return null
    const groupSize = weights.has('group_size') ? weights.integer('group_size') : null
    return weights.integer('num_bits') / 8 + (groupSize === null ? 0 : 2 / groupSize)
  })
  const [first] = sizes
  return first !== undefined && sizes.every((size) => size === first) ? first : null
}

function modelOptBytes(quantization: ConfigFields): number | null {
  const algorithm = (quantization.fields('quantization') ?? quantization).text('quant_algo')
  if (algorithm === 'FP8') return 1
  // Four bits and an 8-bit scale for each 16 of them.
  return algorithm === 'NVFP4' ? 1 / 2 + 1 / 16 : null
}

/** Embeddings, head, routers and norms stay as they are; so does what the config says that is left out. */
function quantizedModules(method: string | null, quantization: ConfigFields): WeightPart['module'][] {
  if (method === 'mxfp4') return ['experts']
  const ignored = [
    ...(quantization.texts('modules_to_not_convert') ?? []),
    ...(quantization.texts('ignore') ?? []),
    ...(quantization.texts('exclude_modules') ?? []),
  ]
  const isWhole = (name: string) => !/\d/.test(name)
  const leavesOut = (pattern: RegExp) => ignored.some((name) => isWhole(name) && pattern.test(name))
  if (ignored.some((name) => !isWhole(name)))
    quantization.note('some single layers are not quantized; the size of the weights is a little low')
  const modules: WeightPart['module'][] = ['attention', 'mlp', 'experts']
  return modules.filter((module) => !leavesOut(module === 'attention' ? /attn|attention/ : /mlp(?!\.gate)|experts/))
}

function noteKvCache(quantization: ConfigFields): void {
  const inner = quantization.fields('quantization') ?? quantization
  if (inner.has('kv_cache_scheme') || inner.has('kv_cache_quant_algo'))
    quantization.note(
      'the checkpoint comes with a quantized KV cache: engines may use it by themselves; say so with --kv-cache-dtype fp8',
    )
}
