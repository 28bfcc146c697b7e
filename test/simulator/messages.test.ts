import assert from 'node:assert/strict'
import { test } from 'node:test'
import Anthropic from '@anthropic-ai/sdk'
import { until } from '../support/until.ts'
import { post, simulator } from './simulators.ts'

const words = (count: number): string => Array.from({ length: count }, (_, i) => `word${i}`).join(' ')
const asked = { model: 'model', max_tokens: 6, messages: [{ role: 'user' as const, content: words(40) }] }

test('the anthropic client reads messages, streamed and whole, with usage', async (t) => {
  const worker = await simulator(t)
  const client = new Anthropic({ baseURL: worker.url, apiKey: 'none', maxRetries: 0 })
  const whole = await client.messages.create(asked)
  assert.deepEqual([whole.type, whole.role, whole.stop_reason], ['message', 'assistant', 'max_tokens'])
  assert.equal(whole.usage.cache_read_input_tokens, 0)
  const input = whole.usage.input_tokens
  const streamed = await client.messages.stream(asked).finalMessage()
  assert.deepEqual(streamed.content, whole.content)
  assert.equal(streamed.usage.cache_read_input_tokens, 32)
  assert.equal(streamed.usage.input_tokens, input - 32, 'the cached tokens come out of the input')
  assert.equal(streamed.usage.output_tokens, 6)
  const { input_tokens: counted } = await client.messages.countTokens({ model: 'model', messages: asked.messages })
  assert.equal(counted, input)
})

test('what the handler refuses comes in Anthropic’s form', async (t) => {
  const worker = await simulator(t, { engine: { maxModelLength: 64 } })
  const client = new Anthropic({ baseURL: worker.url, apiKey: 'none', maxRetries: 0 })
  await assert.rejects(client.messages.create({ ...asked, model: 'other' }), Anthropic.NotFoundError)
  const answer = await post(worker, '/v1/messages', { ...asked, max_tokens: 1_000 })
  const body = (await answer.json()) as { type: string; error: { type: string } }
  assert.deepEqual([answer.status, body.type, body.error.type], [400, 'error', 'BadRequestError'])
})

test('a client that leaves a message frees its request', async (t) => {
  const worker = await simulator(t, { worker: { timeScale: 0.1 } })
  const client = new Anthropic({ baseURL: worker.url, apiKey: 'none', maxRetries: 0 })
  const stream = await client.messages.create({ ...asked, max_tokens: 1_000, stream: true })
  await until(() => worker.stats[0]?.running === 1, 'the request runs')
  stream.controller.abort()
  await until(() => worker.counters?.aborted === 1, 'the abort is counted')
  assert.equal(worker.stats[0]?.running, 0)
})
