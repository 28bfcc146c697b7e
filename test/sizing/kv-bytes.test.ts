import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { kvMemory, stageWeightBytes } from '../../src/sizing/capacity.ts'
import { findGpu } from '../../src/sizing/gpus.ts'
import {
  checkParallelism,
  single,
  stageLayerCounts,
  tokenBytesOfModel,
  tokenBytesPerRank,
  type KvCacheDtype,
} from '../../src/sizing/kv-bytes.ts'
import { model, recording } from './models.ts'

const gib = 2 ** 30

const tokenBytes: readonly (readonly [string, KvCacheDtype, number, number])[] = [
  ['llama-3-8b', 'auto', 1, 131_072],
  ['llama-3-8b', 'fp8', 1, 65_536],
  ['llama-3.1-70b', 'auto', 1, 327_680],
  ['llama-3.1-70b', 'auto', 4, 81_920],
  ['llama-3.1-70b', 'auto', 8, 40_960],
  ['llama-3.1-70b', 'auto', 16, 40_960],
  ['qwen3-32b', 'auto', 1, 262_144],
  ['qwen3-32b', 'auto', 2, 131_072],
  ['deepseek-v3', 'auto', 1, 70_272],
  ['deepseek-v3', 'auto', 16, 70_272],
  ['deepseek-v3', 'fp8_ds_mla', 8, 40_016],
  ['deepseek-v3', 'nvfp4_ds_mla', 8, 352 * 61],
  ['deepseek-v3.2', 'fp8_ds_mla', 8, (656 + 132) * 61],
]
for (const [name, dtype, tensor, bytes] of tokenBytes) {
  test(`${name} takes ${bytes} bytes a token and rank (${dtype}, TP ${tensor})`, () => {
    assert.equal(tokenBytesPerRank(model(name), dtype, { ...single, tensor }), bytes)
  })
}

test('a chunk of 256 tokens is as large as stores see it', () => {
  const mib = (name: string, tensor = 1) =>
    (tokenBytesPerRank(model(name), 'auto', { ...single, tensor }) * 256) / 2 ** 20
  assert.deepEqual(
    [mib('llama-3-8b'), mib('llama-3.1-70b'), mib('llama-3.1-70b', 4), mib('llama-3.1-70b', 8)],
    [32, 80, 20, 10],
  )
  assert.equal(mib('deepseek-v3').toFixed(1), '17.2')
})

test('the stage with most layers decides, and tokens are divided by DCP', () => {
  const llama = model('llama-3.1-70b')
  assert.equal(tokenBytesPerRank(llama, 'auto', { ...single, pipeline: 3 }), 4096 * 27)
  assert.equal(tokenBytesPerRank(llama, 'auto', { tensor: 16, pipeline: 1, decodeContext: 2 }), 20_480)
})

test('layers that remain go to the middle of a pipeline', () => {
  assert.deepEqual(stageLayerCounts(80, 3), [27, 27, 26])
  assert.deepEqual(stageLayerCounts(61, 4), [15, 15, 16, 15])
  assert.deepEqual(stageLayerCounts(61, 1), [61])
})

// Worked examples: memory × utilization − weights − other, to the digits in which they are known.
const estimates: readonly (readonly [
  name: string,
  gpu: string,
  dtype: KvCacheDtype,
  tensor: number,
  utilization: number,
  weightGib: number,
  otherGib: number,
  gibText: string,
  tokens: string,
])[] = [
  ['llama-3-8b', 'l4', 'auto', 1, 0.92, 14.96, 1.2, '4.5', '37k'],
  ['llama-3-8b', 'l4', 'fp8', 1, 0.92, 14.96, 1.2, '4.5', '74k'],
  ['llama-3-8b', 'l4', 'auto', 1, 0.9, 14.96, 1.2, '4.1', '33.5k'],
  ['llama-3.1-70b', 'h100', 'auto', 4, 0.92, 32.85, 3, '37.4', '490k'],
  ['llama-3.1-70b', 'h100', 'fp8', 4, 0.92, 32.85, 3, '37.4', '981k'],
  ['llama-3.1-70b', 'h100', 'auto', 8, 0.92, 16.4, 3, '53.9', '1.41M'],
  ['qwen3-32b', 'h100', 'auto', 1, 0.92, 61, 2.5, '9.8', '40k'],
  ['qwen3-32b', 'h100', 'auto', 2, 0.92, 30.5, 2.5, '40.3', '330k'],
  ['deepseek-v3', 'h200', 'auto', 8, 0.92, 80.1, 5, '44.1', '673k'],
  ['deepseek-v3', 'h200', 'fp8_ds_mla', 8, 0.92, 80.1, 5, '44.1', '1.18M'],
  ['deepseek-v3', 'h100', 'auto', 16, 0.92, 40.1, 5, '28.2', '431k'],
]
for (const [name, gpuName, dtype, tensor, utilization, weightGib, otherGib, gibText, text] of estimates) {
  test(`${name} on ${tensor} × ${gpuName} has room for about ${text} tokens (${dtype}, ${utilization})`, () => {
    const gpu = findGpu(gpuName)
    assert.ok(gpu !== undefined)
    const [bytes = 0] = kvMemory({
      ...{ gpuBytes: gpu.memoryBytes, utilization, otherBytes: otherGib * gib },
      stageWeightBytes: [weightGib * gib],
    })
    assert.equal((bytes / gib).toFixed(1), gibText)
    const tokens = bytes / tokenBytesPerRank(model(name), dtype, { ...single, tensor })
    const [, digits = '', unit] = /^([\d.]+)([kM])$/.exec(text) ?? []
    const decimals = digits.split('.')[1]?.length ?? 0
    const shown = (tokens / (unit === 'M' ? 1e6 : 1e3)) * 10 ** decimals
    // Some are rounded, some cut.
    assert.ok(
      [Math.round(shown), Math.floor(shown)].includes(Math.round(Number(digits) * 10 ** decimals)),
      String(tokens),
    )
  })
}

const weights: readonly (readonly [string, number, string])[] = [
  ['llama-3-8b', 1, '14.96'],
  ['llama-3.1-70b', 4, '32.86'],
  ['llama-3.1-70b', 8, '16.43'],
  ['qwen3-32b', 1, '61.02'],
  ['qwen3-32b', 2, '30.51'],
]
for (const [name, tensor, text] of weights) {
  test(`the weights of ${name} take ${text} GiB a rank with TP ${tensor}`, () => {
    const [bytes = 0] = stageWeightBytes(model(name), { ...single, tensor }) ?? []
    assert.equal((bytes / gib).toFixed(2), text)
  })
}

test('the weights of DeepSeek-V3 come within 3 % of its checkpoint', () => {
  const [bytes = 0] = stageWeightBytes(model('deepseek-v3'), { ...single, tensor: 8 }) ?? []
  assert.ok(Math.abs(bytes / gib / 80.1 - 1) < 0.03, String(bytes / gib))
})

test('the weights of gpt-oss-120b come within 2 % of its checkpoint of 65.25 GB', () => {
  const [bytes = 0] = stageWeightBytes(model('gpt-oss-120b'), single) ?? []
  assert.ok(Math.abs(bytes / 65.25e9 - 1) < 0.02, String(bytes))
})

test('weights that leave no room are refused with the sum', () => {
  const gpu = findGpu('H100')
  assert.ok(gpu !== undefined)
  const options = { gpuBytes: gpu.memoryBytes, utilization: 0.92, otherBytes: 5 * gib }
  assert.throws(() => kvMemory({ ...options, stageWeightBytes: [80.1 * gib] }), {
    code: 'CONFIG_INVALID',
    message: /79\.6 GiB × 0\.92 − 80\.1 GiB of weights − 5\.0 GiB/,
  })
})

test('the stages of a pipeline hold all weights between them, a tied embedding on both ends', () => {
  const sum = (name: string, pipeline: number) =>
    (stageWeightBytes(model(name), { ...single, pipeline }) ?? []).reduce((total, bytes) => total + bytes, 0)
  assert.equal(sum('llama-3-8b', 4), sum('llama-3-8b', 1))
  assert.equal(sum('gemma-2-9b', 2) - sum('gemma-2-9b', 1), 256_000 * 3584 * 2)
})

const names = Object.keys(recording.parameters)

test('twice as many ranks never keep more bytes each, nor fewer than a share', () => {
  fc.assert(
    fc.property(fc.constantFrom(...names), fc.integer({ min: 0, max: 5 }), (name, exponent) => {
      const bytes = (tensor: number) => tokenBytesPerRank(model(name), 'auto', { ...single, tensor })
      const one = bytes(2 ** exponent)
      const twice = bytes(2 ** (exponent + 1))
      assert.ok(twice <= one && twice >= one / 2)
      assert.ok(twice * 2 ** (exponent + 1) >= tokenBytesOfModel(model(name), 'auto'))
    }),
  )
})

test('fp8 halves keys and values in every model', () => {
  for (const name of names) {
    const index = name === 'deepseek-v3.2' ? 132 * 61 : 0
    assert.equal(
      tokenBytesOfModel(model(name), 'fp8') - index,
      (tokenBytesOfModel(model(name), 'auto') - index) / 2,
      name,
    )
  }
})

const refused: readonly (readonly [string, Parameters<typeof checkParallelism>[1], RegExp])[] = [
  ['llama-3-8b', { tensor: 3, pipeline: 1, decodeContext: 1 }, /TP 3 does not divide/],
  ['llama-3-8b', { tensor: 1, pipeline: 33, decodeContext: 1 }, /33 has more stages/],
  ['llama-3.1-70b', { tensor: 8, pipeline: 1, decodeContext: 2 }, /DCP 2 splits what ranks hold twice/],
  ['deepseek-v3', { tensor: 8, pipeline: 1, decodeContext: 3 }, /DCP 3 has to divide TP 8/],
  ['gpt-oss-120b', { tensor: 16, pipeline: 1, decodeContext: 2 }, /every layer keeps every token/],
]
for (const [name, parallelism, message] of refused) {
  test(`${name} cannot be spread as ${JSON.stringify(parallelism)}`, () => {
    assert.throws(() => checkParallelism(model(name), parallelism), { code: 'CONFIG_INVALID', message })
  })
}

test('a packed latent format is refused for a model with keys and values', () => {
  assert.throws(() => tokenBytesOfModel(model('llama-3-8b'), 'fp8_ds_mla'), { code: 'CONFIG_INVALID' })
})
