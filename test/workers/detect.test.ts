import assert from 'node:assert/strict'
import { test } from 'node:test'
import { detectEngine } from '../../src/workers/detect.ts'
import { answering, models } from './answering.ts'

const detect = async (answers: Readonly<Record<string, unknown>>, asked: string[] = []): Promise<string | null> =>
  (await detectEngine(answering(answers, asked), 'http://a:1', {}, 100))?.name ?? null

test('engines are told by whose models they say theirs are, or by paths that only they have', async () => {
  assert.equal(await detect({ '/v1/models': models('vllm') }), 'vllm')
  assert.equal(await detect({ '/v1/models': models('us'), '/kv_event_sources': {} }), 'vllm')
  assert.equal(await detect({ '/v1/models': models('us'), '/server_info': { vllm_config: '' } }), 'vllm')
  assert.equal(await detect({ '/v1/models': models('sglang') }), 'sglang')
  const info = { served_model_name: 'model', kv_events: null }
  assert.equal(await detect({ '/v1/models': models('us'), '/server_info': info }), 'sglang')
})

test('one of no known kind is served by OpenAI’s paths alone', async () => {
  assert.equal(await detect({ '/v1/models': models('us') }), 'openai')
  assert.equal(await detect({}), 'openai')
  assert.equal(await detect({ '/v1/models': models('us'), '/server_info': 'no JSON', '/version': [] }), 'openai')
})

test('one that does not answer yet, or is too slow to tell, is of no kind yet', async () => {
  assert.equal(await detect({ '/v1/models': null }), null)
  assert.equal(await detect({ '/v1/models': 503 }), null)
  assert.equal(await detect({ '/v1/models': models('us'), '/server_info': null }), null)
})

test('nothing is asked that takes something away from whoever asks next', async () => {
  const asked: string[] = []
  await detect({ '/v1/models': models('us') }, asked)
  assert.deepEqual(asked.sort(), ['/kv_event_sources', '/server_info', '/v1/models', '/version'])
  asked.length = 0
  await detect({ '/v1/models': null }, asked)
  assert.deepEqual(asked, ['/v1/models'], 'an endpoint that is away is asked once')
})
