import assert from 'node:assert/strict'
import { test } from 'node:test'
import OpenAI from 'openai'
import OpenAI6 from 'openai6'
import { until } from '../support/until.ts'
import { post, simulator } from './simulators.ts'

const words = (count: number): string => Array.from({ length: count }, (_, i) => `word${i}`).join(' ')

for (const [version, Client] of [
  ['7', OpenAI],
  // The two differ in types that these calls do not touch.
  ['6', OpenAI6 as unknown as typeof OpenAI],
] as const) {
  test(`openai ${version} reads responses, streamed and whole, and goes on from them`, async (t) => {
    const worker = await simulator(t)
    const client = new Client({ baseURL: `${worker.url}/v1`, apiKey: 'none', maxRetries: 0 })
    const asked = { model: 'model', input: words(40), max_output_tokens: 6 }
    const whole = await client.responses.create(asked)
    assert.deepEqual([whole.status, whole.incomplete_details], ['incomplete', { reason: 'max_output_tokens' }])
    const stream = await client.responses.create({ ...asked, stream: true })
    const events = []
    for await (const event of stream) events.push(event)
    assert.deepEqual(
      events.map(({ sequence_number: number }) => number),
      events.map((_, at) => at),
    )
    const last = events.at(-1)
    assert(last?.type === 'response.completed')
    assert.equal(last.response.usage?.input_tokens_details.cached_tokens, 32)
    const text = events.map((event) => (event.type === 'response.output_text.delta' ? event.delta : '')).join('')
    assert.equal(text, whole.output_text)
    const next = await client.responses.create({
      model: 'model',
      instructions: 'be brief',
      previous_response_id: whole.id,
      input: 'more',
    })
    assert.equal(next.status, 'completed')
    assert.equal(next.previous_response_id, whole.id)
    assert((next.usage?.input_tokens ?? 0) > 40 + 6, 'the earlier turn is part of the prompt')
    const fetched = await client.responses.retrieve(next.id)
    assert.equal(fetched.output_text, next.output_text)
    await assert.rejects(client.responses.create({ ...asked, previous_response_id: 'resp_other' }), { status: 404 })
    await assert.rejects(client.responses.cancel(whole.id), { status: 400 })
  })
}

async function respond(worker: { readonly url: string }, body: object) {
  const answer = await post(worker, '/v1/responses', body)
  return (await answer.json()) as {
    id: string
    status: string
    usage: { input_tokens: number; input_tokens_details: { cached_tokens: number } }
    error?: object
  }
}

test('a chain of responses is one conversation, whose prefix the engine keeps', async (t) => {
  const worker = await simulator(t)
  const one = await respond(worker, { input: words(40), max_output_tokens: 16 })
  const two = await respond(worker, { input: 'more', previous_response_id: one.id, max_output_tokens: 16 })
  const three = await respond(worker, { input: 'more still', previous_response_id: two.id, max_output_tokens: 16 })
  assert(one.usage.input_tokens + 16 < two.usage.input_tokens)
  assert(two.usage.input_tokens + 16 < three.usage.input_tokens)
  assert(three.usage.input_tokens_details.cached_tokens >= two.usage.input_tokens_details.cached_tokens)
  assert(two.usage.input_tokens_details.cached_tokens >= 32)
})

test('an unknown response is not found, in vLLM’s words', async (t) => {
  const worker = await simulator(t)
  const refusal = {
    error: {
      message: "Response with id 'resp_1' not found.",
      type: 'invalid_request_error',
      param: 'response_id',
      code: 404,
    },
  }
  assert.deepEqual(await (await fetch(`${worker.url}/v1/responses/resp_1`)).json(), refusal)
  assert.deepEqual(await (await post(worker, '/v1/responses/resp_1/cancel', {})).json(), refusal)
  assert.deepEqual(await respond(worker, { input: 'a', previous_response_id: 'resp_1' }), refusal)
})

test('a response that is not to be stored cannot be gone on from', async (t) => {
  const worker = await simulator(t)
  const one = await respond(worker, { input: 'a', store: false })
  assert.equal((await fetch(`${worker.url}/v1/responses/${one.id}`)).status, 404)
})

test('the store keeps as many responses as it may, the newest; none is vLLM’s default', async (t) => {
  const worker = await simulator(t, { worker: { storedResponses: 2 } })
  const ids: string[] = []
  for (let i = 0; i < 3; i++) ids.push((await respond(worker, { input: 'a' })).id)
  const statuses = await Promise.all(ids.map(async (id) => (await fetch(`${worker.url}/v1/responses/${id}`)).status))
  assert.deepEqual(statuses, [404, 200, 200])
  const forgetful = await simulator(t, { worker: { storedResponses: 0 } })
  const { id } = await respond(forgetful, { input: 'a' })
  assert.equal((await fetch(`${forgetful.url}/v1/responses/${id}`)).status, 404)
  assert((await respond(forgetful, { input: 'a', background: true })).error !== undefined)
})

test('a response in the background is queued, fetched when it is done, or cancelled', async (t) => {
  const worker = await simulator(t)
  const state = async (id: string): Promise<string> => {
    const answer = await fetch(`${worker.url}/v1/responses/${id}`)
    return ((await answer.json()) as { status: string }).status
  }
  const one = await respond(worker, { input: 'a', background: true })
  assert.equal(one.status, 'queued')
  await until(async () => (await state(one.id)) === 'completed', 'it is complete')
  worker.stall()
  const two = await respond(worker, { input: 'b', background: true })
  const cancelled = await post(worker, `/v1/responses/${two.id}/cancel`, {})
  assert.equal(((await cancelled.json()) as { status: string }).status, 'cancelled')
  assert.equal(worker.stats[0]?.aborted, 1)
  worker.resume()
  assert.equal(await state(two.id), 'cancelled')
})
