import assert from 'node:assert/strict'
import { test } from 'node:test'
import { blocksInMemory, kvCapacity, vllmLogLine } from '../../src/sizing/capacity.ts'
import { single } from '../../src/sizing/kv-bytes.ts'
import { blocksPerSequence, kvLayout } from '../../src/sizing/kv-groups.ts'
import { fixture, model, recording } from './models.ts'

for (const recorded of recording.layouts) {
  const { blockTokens, dtype, maxTokens, memoryBytes, model: name, pipeline, tensor } = recorded
  const spread = `${dtype}, TP ${tensor}, PP ${pipeline}, DCP ${recorded.decodeContext}`
  test(`${name} (${spread}) has the blocks, concurrency and tokens that vLLM 0.32 gives it`, () => {
    const parallelism = { tensor, pipeline, decodeContext: recorded.decodeContext }
    const layout = kvLayout(model(name), { dtype, parallelism, blockTokens })
    const blocks = blocksInMemory(
      layout,
      Array.from({ length: pipeline }, () => memoryBytes),
    )
    const { inFlightTokens, decodeContext } = recorded
    const capacity = kvCapacity(layout, blocks, maxTokens, { inFlightTokens, decodeContext, prefixCaching: true })
    const { concurrency, tokens } = capacity
    assert.deepEqual(
      { blocks, concurrency, tokens },
      { blocks: recorded.blocks, concurrency: recorded.concurrency, tokens: recorded.tokens },
    )
    assert.equal(
      layout.groups.length,
      recorded.groups.reduce((sum, { groups }) => sum + groups, 0),
    )
    assert.deepEqual(
      [...new Set(layout.groups.map((group) => group.blockTokens))],
      [...new Set(recorded.groups.map((group) => group.blockTokens))],
    )
  })
}

test('the KV cache size that vLLM logged comes out to the letter', () => {
  const tiny = model('tiny-cpu')
  const recorded = fixture('log_kv_cache_size.txt').trim().split('\n')
  const lines = new Set(recorded.map((line) => line.slice(line.indexOf('CPU KV'))))
  const line = (blocks: number, blockTokens: number, maxTokens: number) => {
    const layout = kvLayout(tiny, { dtype: 'auto', parallelism: single, blockTokens })
    const options = { inFlightTokens: 4096, decodeContext: 1, prefixCaching: true }
    return vllmLogLine(kvCapacity(layout, blocks, maxTokens, options), maxTokens, 'CPU')
  }
  const blocksOf = (blockTokens: number) =>
    blocksInMemory(kvLayout(tiny, { dtype: 'auto', parallelism: single, blockTokens }), [2 ** 30])
  // Three set-ups: 14 blocks forced upon it, and 1 GiB for two greatest lengths.
  assert.deepEqual(lines, new Set([line(14, 128, 1024), line(blocksOf(32), 32, 8192), line(blocksOf(64), 64, 2048)]))
})

test('vllm:cache_config_info comes out to the digit', () => {
  const text = fixture('cache_config_info.txt')
  const field = (name: string) => /^[^"]*/.exec(text.split(`,${name}="`)[1] ?? '')?.[0]
  const blockTokens = Number(field('block_size'))
  const layout = kvLayout(model('tiny-cpu'), { dtype: 'auto', parallelism: single, blockTokens })
  const blocks = blocksInMemory(layout, [Number(field('kv_cache_memory_bytes'))])
  const capacity = kvCapacity(layout, blocks, 8192, { inFlightTokens: 4096, decodeContext: 1, prefixCaching: true })
  assert.equal(String(blocks), field('num_gpu_blocks'))
  assert.equal(String(capacity.tokens), field('kv_cache_size_tokens'))
  assert.equal(capacity.concurrency.toFixed(1), field('kv_cache_max_concurrency'))
})

test('one block is never given to a request', () => {
  const layout = kvLayout(model('tiny-cpu'), { dtype: 'auto', parallelism: single, blockTokens: 128 })
  const options = { inFlightTokens: 4096, decodeContext: 1, prefixCaching: true }
  assert.equal(kvCapacity(layout, 14, 1024, options).usableBlocks * 128, 1664)
})

test('a window holds the tokens in flight too, and one block more', () => {
  const changes = { sliding_window: 1024, num_hidden_layers: 1 }
  const layout = kvLayout(model('mistral-7b-v0.1', changes), { dtype: 'auto', parallelism: single, blockTokens: 16 })
  const options = { inFlightTokens: 8192, decodeContext: 1, prefixCaching: true }
  assert.equal(blocksPerSequence(layout, 131_072, options), 577)
  assert.equal(blocksPerSequence(layout, 100, options), 8)
})

test('a state takes two blocks a sequence with prefix caching, and one without', () => {
  const layout = kvLayout(model('qwen3-next-80b-a3b'), { dtype: 'auto', parallelism: single, blockTokens: 16 })
  const options = { inFlightTokens: 8192, decodeContext: 1 }
  const tokens = 544 * 10
  assert.equal(blocksPerSequence(layout, tokens, { ...options, prefixCaching: true }), 10 + 3 * 2)
  assert.equal(blocksPerSequence(layout, tokens, { ...options, prefixCaching: false }), 10 + 3)
  assert.match(layout.notes.join(), /544 tokens instead of 16/)
})
