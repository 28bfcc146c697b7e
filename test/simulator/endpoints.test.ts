// The endpoints beside chats and completions: pooling models, speech, token ids in (vLLM's and SGLang's).
import assert from 'node:assert/strict'
import { test } from 'node:test'
import OpenAI, { toFile } from 'openai'
import OpenAI6 from 'openai6'
import { until } from '../support/until.ts'
import { eventsOf, post, simulator } from './simulators.ts'

const words = (count: number): string => Array.from({ length: count }, (_, i) => `word${i}`).join(' ')

async function json(answer: Promise<Response>): Promise<Record<string, unknown>> {
  const response = await answer
  assert.equal(response.status, 200)
  return (await response.json()) as Record<string, unknown>
}

const poolingUsage = [
  'prompt_tokens',
  'total_tokens',
  'completion_tokens',
  'prompt_tokens_details',
  'completion_tokens_details',
]

test('answers of pooling endpoints have the fields of vLLM’s response models, in their order', async (t) => {
  const worker = await simulator(t)
  const list = ['id', 'object', 'created', 'model', 'data', 'usage']
  const cases: [path: string, body: object, fields: string[], id: RegExp, item: string[]][] = [
    ['/v1/embeddings', { input: 'a b' }, list, /^embd-/, ['index', 'object', 'embedding']],
    ['/pooling', { input: 'a b' }, list, /^pooling-/, ['index', 'object', 'data']],
    ['/classify', { input: 'a b' }, list, /^classify-/, ['index', 'label', 'probs', 'num_classes']],
    ['/score', { text_1: 'a', text_2: ['b', 'c'] }, list, /^score-/, ['index', 'object', 'score']],
    ['/v1/score', { queries: ['a', 'd'], documents: ['b', 'c'] }, list, /^score-/, ['index', 'object', 'score']],
  ]
  for (const [path, body, fields, id, item] of cases) {
    const answer = await json(post(worker, path, body))
    assert.deepEqual(Object.keys(answer), fields, path)
    assert.match(String(answer['id']), id)
    assert.deepEqual(Object.keys((answer['data'] as object[])[0] ?? {}), item, path)
    assert.deepEqual(Object.keys(answer['usage'] as object), poolingUsage, path)
  }
  for (const path of ['/rerank', '/v1/rerank', '/v2/rerank']) {
    const answer = await json(post(worker, path, { query: 'q', documents: ['one', 'two', 'three'], top_n: 2 }))
    assert.deepEqual(Object.keys(answer), ['id', 'model', 'usage', 'results'])
    const results = answer['results'] as { index: number; document: object; relevance_score: number }[]
    assert.equal(results.length, 2)
    assert((results[0]?.relevance_score ?? 0) >= (results[1]?.relevance_score ?? 1), 'best first')
    assert.deepEqual(Object.keys(results[0] ?? {}), ['index', 'document', 'relevance_score'])
    assert.deepEqual(Object.keys(results[0]?.document ?? {}), ['text', 'multi_modal'])
  }
})

test('equal inputs have equal numbers, and their prompts are cached like any other', async (t) => {
  const worker = await simulator(t)
  const ask = () => json(post(worker, '/v1/embeddings', { input: words(40) }))
  const [one, other] = [await ask(), await ask()]
  assert.deepEqual(one['data'], other['data'])
  assert.equal((one['usage'] as { prompt_tokens: number }).prompt_tokens, 41)
  assert.equal(worker.stats[0]?.prefixHitTokens, 32)
  const lengths = await json(post(worker, '/v1/embeddings', { input: [[5, 6], [7]], dimensions: 3 }))
  assert.deepEqual(
    (lengths['data'] as { embedding: number[] }[]).map(({ embedding }) => embedding.length),
    [3, 3],
  )
})

for (const [version, Client] of [
  ['7', OpenAI],
  // The two differ in types that these calls do not touch.
  ['6', OpenAI6 as unknown as typeof OpenAI],
] as const) {
  test(`openai ${version} reads embeddings and transcriptions`, async (t) => {
    const worker = await simulator(t)
    const client = new Client({ baseURL: `${worker.url}/v1`, apiKey: 'none', maxRetries: 0 })
    const asked = { model: 'model', input: ['some text', 'another'] }
    const packed = await client.embeddings.create(asked)
    const plain = await client.embeddings.create({ ...asked, encoding_format: 'float' })
    assert.equal(packed.data.length, 2)
    assert.deepEqual([...(packed.data[0]?.embedding ?? [])], plain.data[0]?.embedding)
    await assert.rejects(client.embeddings.create({ model: 'other', input: 'a' }), { status: 404 })
    const file = await toFile(Buffer.alloc(64_000, 'sound'), 'speech.wav')
    const speech = await client.audio.transcriptions.create({ model: 'model', file })
    assert.match(speech.text, /\w+/)
    assert.deepEqual(speech.usage, { type: 'duration', seconds: 2 })
  })
}

test('a translation is a text alone, a transcription can be streamed, and a form without a file is refused', async (t) => {
  const worker = await simulator(t)
  const form = (fields: Record<string, string>, file?: Blob): FormData => {
    const made = new FormData()
    for (const [name, value] of Object.entries(fields)) made.append(name, value)
    if (file !== undefined) made.append('file', file, 'a.wav')
    return made
  }
  const send = (body: FormData, task = 'transcriptions') =>
    fetch(`${worker.url}/v1/audio/${task}`, { method: 'POST', body })
  const translation = await json(send(form({}, new Blob(['some sound'])), 'translations'))
  assert.deepEqual(Object.keys(translation), ['text'])
  const answer = await send(form({ stream: 'true', stream_include_usage: 'true' }, new Blob(['some sound'])))
  const events = eventsOf(await answer.text()) as { object: string; choices: { finish_reason?: string }[] }[]
  assert.deepEqual(Object.keys(events[0] ?? {}), ['id', 'object', 'created', 'model', 'choices'])
  assert.equal(events[0]?.object, 'transcription.chunk')
  assert.equal(events.at(-3)?.choices[0]?.finish_reason, 'stop')
  assert.deepEqual(Object.keys(events.at(-2) ?? {}).at(-1), 'usage')
  const refused = await send(form({ model: 'model' }))
  const { error } = (await refused.json()) as { error: { param: string } }
  assert.deepEqual([refused.status, error.param], [400, 'body.file'])
})

test('token ids in, token ids out: whole and streamed as vLLM answers them', async (t) => {
  const worker = await simulator(t, { worker: { scaleOut: true } })
  const token_ids = Array.from({ length: 40 }, (_, i) => 200 + i)
  const body = { token_ids, sampling_params: { max_tokens: 3 }, request_id: 'mine' }
  const whole = await json(post(worker, '/inference/v1/generate', body))
  assert.deepEqual(Object.keys(whole), [
    ...['request_id', 'model', 'created', 'usage', 'prompt_logprobs', 'prompt_token_id_logprobs', 'prompt_token_ids'],
    ...['mm_placeholders', 'metrics', 'kv_transfer_params', 'ec_transfer_params', 'output_mode', 'choices'],
  ])
  assert.equal(whole['request_id'], 'generate-tokens-mine')
  const [choice] = whole['choices'] as { token_ids: number[]; finish_reason: string }[]
  assert.deepEqual(Object.keys(choice ?? {}), [
    ...['index', 'finish_reason', 'stop_reason', 'token_ids', 'routed_experts', 'sampling_mask', 'weight_versions'],
    'logprobs',
  ])
  const options = { stream: true, stream_options: { include_usage: true }, return_token_ids: true, output_mode: 'text' }
  const streamed = await post(worker, '/inference/v1/generate', { ...body, ...options })
  const events = eventsOf(await streamed.text()) as Record<string, unknown>[]
  assert.deepEqual(
    events.map((event) => (typeof event === 'string' ? event : Object.keys(event))),
    [
      ['request_id', 'usage', 'prompt_token_ids', 'output_mode', 'choices'],
      ['request_id', 'usage', 'output_mode', 'choices'],
      ['request_id', 'usage', 'output_mode', 'choices'],
      ['request_id', 'usage', 'output_mode', 'choices'],
      '[DONE]',
    ],
  )
  const tokens = events.flatMap((event) => (event['choices'] as { token_ids: number[] }[] | undefined) ?? [])
  assert.deepEqual(
    tokens.flatMap(({ token_ids: ids }) => ids),
    choice?.token_ids,
  )
  assert.deepEqual(events.at(-2)?.['usage'], {
    prompt_tokens: 40,
    total_tokens: 43,
    completion_tokens: 3,
    prompt_tokens_details: { cached_tokens: 32 },
  })
  for (const [bad, param] of [
    [{ token_ids: [], sampling_params: {} }, 'body.token_ids'],
    [{ token_ids: [1] }, 'body.sampling_params'],
    [{ token_ids: [-1], sampling_params: {} }, 'token_ids'],
  ] as const) {
    const refused = await post(worker, '/inference/v1/generate', bad)
    assert.deepEqual(
      [refused.status, ((await refused.json()) as { error: { param: string } }).error.param],
      [400, param],
    )
  }
})

test('SGLang’s /generate takes a text or ids, one or many, and tells the cached tokens', async (t) => {
  const worker = await simulator(t)
  const sampling_params = { max_new_tokens: 3 }
  const input_ids = Array.from({ length: 40 }, (_, i) => 200 + i)
  interface Answer {
    text: string
    output_ids: number[]
    meta_info: Record<string, unknown>
    index?: number
  }
  const one = (await json(post(worker, '/generate', { input_ids, sampling_params, rid: 'mine' }))) as unknown as Answer
  assert.equal(one.output_ids.length, 3)
  const { e2e_latency: latency, ...info } = one.meta_info
  assert.equal(typeof latency, 'number')
  assert.deepEqual(info, {
    id: 'mine',
    finish_reason: { type: 'length', length: 3 },
    prompt_tokens: 40,
    weight_version: 'default',
    num_retractions: 0,
    reasoning_tokens: 0,
    completion_tokens: 3,
    cached_tokens: 0,
  })
  const many = (await json(
    post(worker, '/generate', { input_ids: [input_ids, [5, 6]], sampling_params }),
  )) as unknown as Answer[]
  assert.deepEqual(
    many.map(({ meta_info }) => [meta_info['prompt_tokens'], meta_info['cached_tokens']]),
    [
      [40, 32],
      [2, 0],
    ],
  )
  const streamed = await post(worker, '/generate', { text: ['some words', 'others'], sampling_params, stream: true })
  const events = eventsOf(await streamed.text()) as (Answer | '[DONE]')[]
  const first = events.filter((event) => event !== '[DONE]').filter(({ index }) => index === 0)
  assert.deepEqual(
    first.map(({ output_ids }) => output_ids.length),
    [1, 2, 3],
    'each event holds all so far',
  )
  assert.equal(first[0]?.meta_info['finish_reason'], null)
  assert.equal(events.at(-1), '[DONE]')
  const refused = await post(worker, '/generate', { sampling_params })
  assert.deepEqual(
    [refused.status, await refused.json()],
    [400, { error: { message: 'Either text, input_ids or input_embeds should be provided.' } }],
  )
})

test('a pooling request waits its turn in the engine’s queue', async (t) => {
  const worker = await simulator(t)
  worker.stall()
  const answer = post(worker, '/v1/embeddings', { input: 'a' })
  await until(() => (worker.stats[0]?.running ?? 0) + (worker.stats[0]?.waiting ?? 0) === 1, 'it is queued')
  worker.resume()
  assert.equal((await answer).status, 200)
})
