import assert from 'node:assert/strict'
import { test } from 'node:test'
import { activeParameterCount, parameterCount } from '../../src/sizing/weights.ts'
import { describeLayers } from '../../src/sizing/layer.ts'
import { readModelConfig } from '../../src/sizing/model-config.ts'
import { model, rawModel, recording } from './models.ts'

for (const [name, parameters] of Object.entries(recording.parameters)) {
  test(`${name} has as many parameters as the model that transformers builds`, () => {
    const { hiddenSize, weights } = model(name)
    assert.ok(weights !== null)
    // Routers' corrections are no parameters there, but are stored with them.
    const corrections = name.startsWith('deepseek-v3') ? 58 * 256 : 0
    assert.equal(parameterCount(weights, hiddenSize), parameters + corrections)
  })
}

for (const [name, expected] of [
  ['qwen3-30b-a3b', 2.7e9],
  ['deepseek-v3', 36e9],
  ['gpt-oss-120b', 4.5e9],
  ['mixtral-8x7b', 12.6e9],
] as const) {
  test(`a prompt token of ${name} goes through its chosen experts only`, () => {
    const { weights } = model(name)
    assert.ok(weights !== null)
    const active = activeParameterCount(weights)
    assert.ok(Math.abs(active / expected - 1) < 0.05, String(active))
  })
}

const layers: readonly (readonly [string, readonly string[]])[] = [
  ['llama-3-8b', ['32 × full attention, 8 KV heads of 128']],
  ['qwen2.5-7b', ['28 × full attention, 4 KV heads of 128']],
  ['mistral-7b-v0.1', ['32 × sliding window of 4096, 8 KV heads of 128']],
  ['mixtral-8x7b', ['32 × full attention, 8 KV heads of 128']],
  ['gemma-2-9b', ['21 × sliding window of 4096, 8 KV heads of 256', '21 × full attention, 8 KV heads of 256']],
  ['gemma-3-27b', ['52 × sliding window of 1024, 16 KV heads of 128', '10 × full attention, 16 KV heads of 128']],
  ['gemma-3-4b', ['29 × sliding window of 1024, 4 KV heads of 256', '5 × full attention, 4 KV heads of 256']],
  ['gpt-oss-120b', ['18 × sliding window of 128, 8 KV heads of 64', '18 × full attention, 8 KV heads of 64']],
  ['deepseek-v3', ['61 × latent attention (MLA) of 512 + 64']],
  ['deepseek-v3.2', ['61 × latent attention (MLA) of 512 + 64 with index']],
  ['qwen3-next-80b-a3b', ['36 × linear attention, 32 value heads of 128', '12 × full attention, 2 KV heads of 256']],
]
for (const [name, expected] of layers) {
  test(`the layers of ${name} are told apart`, () => {
    assert.deepEqual(describeLayers(model(name).layers), expected)
  })
}

test('a field that a published config leaves out is taken from the model type, and said', () => {
  const { notes } = model('gemma-3-4b')
  assert.match(notes.join('\n'), /num_key_value_heads is absent: 4, the default of this model type/)
  assert.match(notes.join('\n'), /no encoder of images/)
})

test('a window that is switched off does not count, one that is on counts from its layer on', () => {
  assert.equal(model('qwen2.5-7b').layers.filter(({ kind }) => kind === 'sliding').length, 0)
  const on = model('qwen2.5-7b', { use_sliding_window: true, max_window_layers: 20 })
  assert.equal(on.layers.filter(({ kind }) => kind === 'sliding').length, 8)
  assert.equal(model('mistral-7b-v0.1', { sliding_window: null }).layers[0]?.kind, 'full')
  assert.equal(model('mistral-7b-v0.1', { sliding_window: 0 }).layers[0]?.kind, 'full')
})

const faults: readonly (readonly [string, Record<string, unknown>, RegExp])[] = [
  ['no model type', { model_type: undefined }, /config\.json: "model_type" has to be/],
  [
    'no layers',
    { num_hidden_layers: undefined },
    /"num_hidden_layers" has to be a whole number above zero; it is absent/,
  ],
  [
    'half a head',
    { num_key_value_heads: 2.5 },
    /"num_key_value_heads" has to be a whole number above zero; it is 2\.5/,
  ],
  ['a head dim that does not come out', { hidden_size: 4097 }, /"hidden_size" has to be a multiple/],
  ['a list of layers that is too short', { layer_types: ['full_attention'] }, /"layer_types" has to be a list of 32/],
  [
    'a kind of layer that is not known',
    { layer_types: Array.from({ length: 32 }, () => 'convolution') },
    /"convolution" is not understood/,
  ],
  ['an unknown element type', { torch_dtype: 'int3' }, /"torch_dtype" has to be one of bfloat16/],
  [
    'an unknown model type with a state',
    { model_type: 'zamba9', mamba_d_state: 64 },
    /"mamba_d_state" has to be left out/,
  ],
  ['an unknown model type with a window', { model_type: 'new', sliding_window: 128 }, /"sliding_window" .* it is 128/],
]
for (const [what, changes, message] of faults) {
  test(`${what} is a fault that names its field`, () => {
    assert.throws(() => model('llama-3-8b', changes), { code: 'MODEL_CONFIG_INVALID', message })
  })
}

test('a nested config says where its fault lies', () => {
  const raw = rawModel('gemma-3-27b')
  const nested = { ...(raw['text_config'] as object), num_hidden_layers: 'many' }
  assert.throws(() => readModelConfig({ ...raw, text_config: nested }, 'gemma.json'), {
    message: /gemma\.json text_config: "num_hidden_layers" .* it is "many"/,
  })
})

test('what is no object is no config', () => {
  for (const value of [null, [], 'llama', 3])
    assert.throws(() => readModelConfig(value), { code: 'MODEL_CONFIG_INVALID' })
})

test('a plain model of an unknown type is read as plain attention, and called an estimate', () => {
  const { layers, notes } = model('llama-3-8b', { model_type: 'brandnew' })
  assert.deepEqual(describeLayers(layers), ['32 × full attention, 8 KV heads of 128'])
  assert.match(notes.join(), /"brandnew" is not known here.*an estimate/)
})

test('experts that a model type is not known to have leave the weights open', () => {
  assert.equal(model('llama-3-8b', { model_type: 'brandnew', num_experts: 8 }).weights, null)
})

const formats: readonly (readonly [string, unknown, number | null])[] = [
  ['none', undefined, 2],
  ['fp8', { quant_method: 'fp8' }, 1],
  ['fp8 in blocks', { quant_method: 'fp8', weight_block_size: [128, 128] }, 1 + 4 / 16_384],
  ['awq', { quant_method: 'awq', bits: 4, group_size: 128 }, 0.5 + 2.5 / 128],
  ['gptq', { quant_method: 'gptq', bits: 8, group_size: 64 }, 1 + 3 / 64],
  [
    'compressed-tensors',
    { quant_method: 'compressed-tensors', config_groups: { group_0: { weights: { num_bits: 4, group_size: 128 } } } },
    0.5 + 2 / 128,
  ],
  ['modelopt', { quant_method: 'modelopt', quantization: { quant_algo: 'NVFP4' } }, 0.5 + 1 / 16],
  ['one that is not known', { quant_method: 'magic' }, null],
]
for (const [name, quantization, bytes] of formats) {
  test(`weights of ${name} take ${String(bytes)} bytes, embeddings and head two`, () => {
    const { notes, weightFormat } = model('llama-3-8b', { quantization_config: quantization })
    assert.equal(weightFormat?.bytes('mlp') ?? null, bytes)
    if (bytes === null) assert.match(notes.join(), /"magic" is not understood/)
    else assert.deepEqual([weightFormat?.bytes('embedding'), weightFormat?.bytes('head')], [2, 2])
  })
}

test('what a config leaves unquantized keeps its type', () => {
  const format = model('gpt-oss-120b').weightFormat
  assert.deepEqual([format?.bytes('attention'), format?.bytes('experts'), format?.bytes('router')], [2, 0.53125, 2])
})

test('a checkpoint with a quantized KV cache is pointed out', () => {
  const quantization_config = { quant_method: 'fp8', kv_cache_scheme: { num_bits: 8 } }
  assert.match(model('llama-3-8b', { quantization_config }).notes.join(), /--kv-cache-dtype fp8/)
})
