import assert from 'node:assert/strict'
import { test } from 'node:test'
import { breakEven, estimatedPrefillTokensPerSecond } from '../../src/sizing/break-even.ts'
import { findGpu, gpus } from '../../src/sizing/gpus.ts'
import { tokenBytesOfModel } from '../../src/sizing/kv-bytes.ts'
import { model } from './models.ts'

// The worked example: 8 billion parameters in 16 bits, 10,000 prompt tokens a second, 256 tokens = 32 MiB = 25.6 ms.
const tokenBytes = tokenBytesOfModel(model('llama-3-8b'), 'auto')
for (const [tier, gigabytes, loadMs, worth] of [
  ['host', 25, '1.3', '0.95'],
  ['disk', 5, '6.7', '0.74'],
  ['shared', 1.2, '28', '0.00'],
] as const) {
  test(`a block from ${tier} at ${gigabytes} GB/s saves ${worth} of its prefill`, () => {
    const found = breakEven({ tier, bytesPerSecond: gigabytes * 1e9, tokenBytes }, 10_000)
    assert.equal(found.worth.toFixed(2), worth)
    const milliseconds = 256_000 / found.loadTokensPerSecond
    assert.equal(milliseconds.toFixed(loadMs.split('.')[1]?.length ?? 0), loadMs)
    assert.equal(found.breakEvenBytesPerSecond, 1_310_720_000)
  })
}

test('at the rate where loading pays it saves nothing yet, and at twice that rate half', () => {
  const { breakEvenBytesPerSecond } = breakEven({ tier: 'disk', bytesPerSecond: 1, tokenBytes }, 10_000)
  const at = (bytesPerSecond: number) => breakEven({ tier: 'disk', bytesPerSecond, tokenBytes }, 10_000).worth
  assert.deepEqual([at(breakEvenBytesPerSecond), at(2 * breakEvenBytesPerSecond)], [0, 0.5])
})

test('a prefill is estimated by two operations a parameter that a token goes through', () => {
  const gpu = { flopsPerSecond: 1e15 }
  const dense = estimatedPrefillTokensPerSecond(model('llama-3-8b'), gpu, 1, 0.5)
  assert.ok(dense !== null && Math.abs(dense / (0.5e15 / (2 * 6.98e9)) - 1) < 0.01, String(dense))
  const sparse = estimatedPrefillTokensPerSecond(model('qwen3-30b-a3b'), gpu, 1, 0.5)
  assert.ok(sparse !== null && sparse > 2 * dense)
  assert.equal(
    estimatedPrefillTokensPerSecond(model('llama-3-8b', { model_type: 'new', num_experts: 4 }), gpu, 1),
    null,
  )
})

test('every GPU has a source with its year, and figures that can be', () => {
  for (const { flopsPerSecond, hostBytesPerSecond, memoryBytes, memoryBytesPerSecond, name, source } of gpus) {
    assert.match(source, /^(NVIDIA|AMD) .*, 20\d\d$/, name)
    assert.ok(memoryBytes >= 15 * 2 ** 30 && memoryBytes < 300 * 2 ** 30, name)
    assert.ok(memoryBytesPerSecond > hostBytesPerSecond && memoryBytesPerSecond <= 8e12, name)
    assert.ok(flopsPerSecond >= 50e12 && flopsPerSecond <= 2.5e15, name)
  }
  assert.equal(new Set(gpus.map(({ name }) => name)).size, gpus.length)
})

test('a GPU is found however its name is written', () => {
  for (const name of ['H100', 'h100', 'NVIDIA H100 SXM 80 GB', 'nvidia-h100-sxm-80gb'])
    assert.equal(findGpu(name)?.name, 'h100')
  assert.equal(findGpu('h1000'), undefined)
})
