// The HTTP surface against what vLLM 0.32 answered to the same requests (test/fixtures/vllm-http).
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { test } from 'node:test'
import OpenAI from 'openai'
import { until } from '../support/until.ts'
import { shape } from './shape.ts'
import { eventsOf, post, simulator } from './simulators.ts'

interface Step {
  readonly step: string
  readonly path: string
  readonly request: Record<string, unknown> | null
  readonly request_headers: Record<string, string> | null
  readonly status: number
  readonly response: unknown
  readonly response_headers: Record<string, string>
}

const fixture = (name: string): string =>
  readFileSync(new URL(`../fixtures/vllm-http/${name}`, import.meta.url), 'utf8')
const steps = fixture('steps.jsonl')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line) as Step)
const recorded = (name: string): Step => {
  const step = steps.find((other) => other.step.startsWith(name))
  assert(step !== undefined)
  return step
}

const words = (count: number): string => Array.from({ length: count }, (_, i) => `word${i}`).join(' ')

for (const name of ['04', '10', '13', '17_']) {
  const step = recorded(name)
  test(`an answer has the fields of a recorded one, in their order: ${step.step}`, async (t) => {
    const worker = await simulator(t, { worker: { promptTokensDetails: false, requestIdHeaders: true } })
    const answer = await post(worker, step.path, step.request, { headers: step.request_headers ?? {} })
    assert.equal(answer.status, step.status)
    const body = (await answer.json()) as Record<string, unknown>
    assert.deepEqual(shape(body), shape(step.response))
    assert.match(answer.headers.get('content-type') ?? '', /^application\/json/)
    assert.match(String(body['id']), step.path.includes('chat') ? /^chatcmpl-/ : /^cmpl-/)
    const id = step.request_headers?.['X-Request-Id']
    if (id !== undefined) assert.deepEqual([body['id'], answer.headers.get('x-request-id')], [`cmpl-${id}`, id])
  })
}

test('a stream has the events of a recorded one, field by field', async (t) => {
  const step = recorded('20')
  const worker = await simulator(t, { worker: { promptTokensDetails: false } })
  const answer = await post(worker, step.path, step.request)
  assert.equal(answer.headers.get('content-type'), step.response_headers['content-type'])
  const events = eventsOf(await answer.text())
  assert.deepEqual(events.map(shape), eventsOf(String(step.response)).map(shape))
  assert.equal(events.at(-1), '[DONE]')
})

test('gated routes are refused in vLLM’s form, unknown paths and methods in FastAPI’s', async (t) => {
  const worker = await simulator(t)
  const step = recorded('15')
  const gated = await post(worker, step.path, step.request)
  assert.deepEqual([gated.status, await gated.json()], [step.status, step.response])
  const unknown = await fetch(`${worker.url}/nothing`)
  assert.deepEqual([unknown.status, await unknown.json()], [404, { detail: 'Not Found' }])
  const method = await fetch(`${worker.url}/v1/completions`)
  assert.deepEqual(
    [method.status, method.headers.get('allow'), await method.json()],
    [405, 'POST', { detail: 'Method Not Allowed' }],
  )
})

test('GET endpoints answer what the recorded engine answers', async (t) => {
  const worker = await simulator(t)
  for (const [path, file] of Object.entries({
    '/v1/models': 'v1_models.json',
    '/version': 'version.json',
    '/load': 'load.json',
    '/kv_event_sources': 'kv_event_sources.json',
    '/is_sleeping': 'is_sleeping.json',
  })) {
    const body: unknown = await (await fetch(worker.url + path)).json()
    assert.deepEqual(shape(body), shape(JSON.parse(fixture(file))), path)
  }
  for (const path of ['/health', '/ping']) {
    const answer = await fetch(worker.url + path)
    assert.deepEqual([answer.status, await answer.text()], [200, ''])
  }
})

test('every sample of /metrics has the name and label names of a recorded one', async (t) => {
  const worker = await simulator(t, { engine: { blockSize: 32, capacityBlocks: 100 } })
  await post(worker, '/v1/completions', { prompt: words(70), max_tokens: 3 })
  await post(worker, '/v1/completions', { prompt: words(70), max_tokens: 3 })
  const text = await (await fetch(`${worker.url}/metrics`)).text()
  const samples = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
  const signature = (line: string): string =>
    `${line.split(/[{ ]/)[0] ?? ''} ${line.startsWith('vllm:cache_config') ? '' : [...line.matchAll(/(\w+)="/g)].map((match) => match[1]).join()}`
  const known = new Set(fixture('metrics.txt').split('\n').map(signature))
  for (const line of samples) assert(known.has(signature(line)), line)
  assert.match(text, /vllm:prefix_cache_queries_total\{engine="0",model_name="model"\} 142\.0/)
  assert.match(text, /vllm:prefix_cache_hits_total\{engine="0",model_name="model"\} 64\.0/)
  assert.match(text, /vllm:generation_tokens_total\{engine="0",model_name="model"\} 6\.0/)
  assert.match(text, /vllm:cache_config_info\{.*block_size="32".*num_gpu_blocks="100".*\} 1\.0/)
  assert.match(text, /vllm:num_requests_running\{engine="0",model_name="model"\} 0\.0/)
})

test('usage tells the cached tokens', async (t) => {
  const worker = await simulator(t)
  const cached = async (): Promise<unknown> => {
    const answer = await post(worker, '/v1/completions', { prompt: words(40), max_tokens: 1 })
    const { usage } = (await answer.json()) as { usage: Record<string, unknown> }
    return usage['prompt_tokens_details']
  }
  assert.deepEqual(await cached(), { cached_tokens: 0 })
  assert.deepEqual(await cached(), { cached_tokens: 32 })
})

test('all four forms of a prompt, and several answers to each, keep their order', async (t) => {
  const worker = await simulator(t)
  const ask = async (prompt: unknown, n = 1) => {
    const answer = await post(worker, '/v1/completions', { prompt, n, max_tokens: 2, return_token_ids: true })
    return (await answer.json()) as {
      choices: { index: number; prompt_token_ids: number[]; token_ids: number[] }[]
      usage: { prompt_tokens: number; completion_tokens: number }
    }
  }
  assert.equal((await ask('some words')).usage.prompt_tokens, 3)
  const lists = await ask(
    [
      [5, 6],
      [7, 8, 9],
    ],
    2,
  )
  assert.deepEqual(
    lists.choices.map(({ index }) => index),
    [0, 1, 2, 3],
  )
  assert.deepEqual(
    lists.choices.map((choice) => choice.prompt_token_ids.length),
    [2, 2, 3, 3],
  )
  assert.deepEqual([lists.usage.prompt_tokens, lists.usage.completion_tokens], [5, 8])
  assert.notDeepEqual(lists.choices[0]?.token_ids, lists.choices[1]?.token_ids, 'choices differ')
  assert.deepEqual((await ask([5, 6])).choices[0]?.token_ids, lists.choices[0]?.token_ids, 'prompts decide')
  assert.equal((await ask(['one', 'two words'])).choices.length, 2)
})

test('bad requests are refused with the status, type and field that vLLM names', async (t) => {
  const worker = await simulator(t, { engine: { maxModelLength: 64 } })
  const chat = { messages: [{ role: 'user', content: 'hello' }] }
  const cases: [path: string, body: unknown, status: number, param: string | null][] = [
    ['/v1/chat/completions', { ...chat, model: 'other' }, 404, 'model'],
    ['/v1/chat/completions', { model: 'model' }, 400, 'body.messages'],
    ['/v1/chat/completions', { ...chat, max_tokens: 0 }, 400, 'max_tokens'],
    ['/v1/chat/completions', { ...chat, max_tokens: 1000 }, 400, 'input_tokens'],
    ['/v1/chat/completions', { ...chat, stream_options: { include_usage: true } }, 400, 'stream_options'],
    ['/v1/chat/completions', { ...chat, stream: 'maybe' }, 400, 'body.stream'],
    ['/v1/completions', { prompt: words(80) }, 400, 'input_tokens'],
    ['/v1/completions', { prompt: [] }, 400, 'prompt'],
    ['/v1/completions', { prompt: [1_000_000] }, 400, 'prompt'],
    ['/v1/completions', { prompt: 'a', cache_salt: '' }, 400, 'cache_salt'],
    ['/v1/completions', '{"prompt": ', 400, 'body.11'],
    ['/v1/completions', '[]', 400, 'body'],
  ]
  for (const [path, body, status, param] of cases) {
    const answer = await post(worker, path, body)
    const { error } = (await answer.json()) as { error: Record<string, unknown> }
    assert.deepEqual(
      [answer.status, error['code'], error['param'], error['type']],
      [
        status,
        status,
        param,
        status === 404 ? 'NotFoundError' : param?.startsWith('body') ? 'Bad Request' : 'BadRequestError',
      ],
      JSON.stringify(body),
    )
    assert.deepEqual(Object.keys(error), ['message', 'type', 'param', 'code'])
  }
  const answer = await post(worker, '/v1/chat/completions', chat)
  assert.equal(answer.status, 200, 'a request without a limit gets the default')
})

test('the openai client reads chats, streamed and whole, with usage', async (t) => {
  const worker = await simulator(t)
  const client = new OpenAI({ baseURL: `${worker.url}/v1`, apiKey: 'none', maxRetries: 0 })
  const asked = { model: 'model', messages: [{ role: 'user' as const, content: words(40) }], max_completion_tokens: 6 }
  const whole = await client.chat.completions.create(asked)
  assert.equal(whole.choices[0]?.finish_reason, 'length')
  const stream = await client.chat.completions.create({
    ...asked,
    stream: true,
    stream_options: { include_usage: true },
  })
  const chunks = []
  for await (const chunk of stream) chunks.push(chunk)
  assert.equal(chunks[0]?.choices[0]?.delta.role, 'assistant')
  const text = chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('')
  assert.equal(text, whole.choices[0].message.content)
  assert.equal(chunks.at(-2)?.choices[0]?.finish_reason, 'length')
  assert.deepEqual(chunks.at(-1)?.choices, [])
  assert.equal(chunks.at(-1)?.usage?.prompt_tokens_details?.cached_tokens, 32)
  assert.equal(chunks.at(-1)?.usage?.completion_tokens, 6)
  await assert.rejects(client.chat.completions.create({ ...asked, model: 'x' }), { status: 404 })
  const models = await client.models.list()
  assert.deepEqual(
    models.data.map(({ id }) => id),
    ['model'],
  )
})

test('an answer that comes back in the next turn is found in the cache', async (t) => {
  const worker = await simulator(t)
  const client = new OpenAI({ baseURL: `${worker.url}/v1`, apiKey: 'none', maxRetries: 0 })
  const messages: OpenAI.ChatCompletionMessageParam[] = [{ role: 'user', content: words(20) }]
  const first = await client.chat.completions.create({ model: 'model', messages, max_completion_tokens: 40 })
  messages.push({ role: 'assistant', content: first.choices[0]?.message.content?.trim() ?? '' })
  messages.push({ role: 'user', content: 'and then' })
  const second = await client.chat.completions.create({ model: 'model', messages, max_completion_tokens: 4 })
  const cached = second.usage?.prompt_tokens_details?.cached_tokens ?? 0
  assert(cached > 0)
})

test('continuous usage counts up with every event of a stream', async (t) => {
  const worker = await simulator(t)
  const stream_options = { include_usage: true, continuous_usage_stats: true }
  const answer = await post(worker, '/v1/completions', { prompt: 'a', max_tokens: 3, stream: true, stream_options })
  const events = eventsOf(await answer.text()).slice(0, -1) as { usage: { completion_tokens: number } }[]
  assert.deepEqual(
    events.map(({ usage }) => usage.completion_tokens),
    [1, 2, 3, 3],
  )
})

test('tokenize and detokenize are the engine’s own, for texts and chats', async (t) => {
  const worker = await simulator(t)
  const tokenize = async (body: unknown) =>
    (await (await post(worker, '/tokenize', body)).json()) as { count: number; max_model_len: number; tokens: number[] }
  const text = await tokenize({ model: 'model', prompt: 'some text', add_special_tokens: false })
  assert.deepEqual([text.count, text.max_model_len], [2, 131_072])
  const back = await post(worker, '/detokenize', { tokens: text.tokens })
  assert.deepEqual(await back.json(), { prompt: 'some text' })
  const messages = [{ role: 'user', content: words(30) }]
  const chat = await tokenize({ messages })
  const answer = await post(worker, '/v1/chat/completions', { messages, max_tokens: 1, return_token_ids: true })
  assert.deepEqual(((await answer.json()) as { prompt_token_ids: number[] }).prompt_token_ids, chat.tokens)
})

test('adapters are models with a parent, and have their own prefixes', async (t) => {
  const worker = await simulator(t, { worker: { loras: [{ name: 'sql', path: '/adapters/sql' }] } })
  const { data } = (await (await fetch(`${worker.url}/v1/models`)).json()) as { data: Record<string, unknown>[] }
  assert.deepEqual(
    data.map((row) => [row['id'], row['root'], row['parent'], row['max_model_len']]),
    [
      ['model', 'model', null, 131_072],
      ['sql', '/adapters/sql', 'model', null],
    ],
  )
  for (const [model, cached] of Object.entries({ model: 0, sql: 0 })) {
    const answer = await post(worker, '/v1/completions', { model, prompt: words(40), max_tokens: 1 })
    const body = (await answer.json()) as { usage: { prompt_tokens_details: { cached_tokens: number } } }
    assert.equal(body.usage.prompt_tokens_details.cached_tokens, cached)
  }
})

for (const stream of [true, false]) {
  test(`a client that leaves frees its request at once, ${stream ? 'streaming' : 'not streaming'}`, async (t) => {
    const worker = await simulator(t, { worker: { timeScale: 0.1 } })
    const controller = new AbortController()
    const body = { prompt: words(100), max_tokens: 1_000, stream }
    const answer = post(worker, '/v1/completions', body, { signal: controller.signal })
    answer.catch(() => undefined)
    await until(() => worker.stats[0]?.running === 1, 'the request runs')
    controller.abort()
    await until(() => worker.stats[0]?.aborted === 1, 'the request is aborted', 1_000)
    assert.deepEqual([worker.stats[0]?.running, worker.stats[0]?.kvUsage], [0, 0])
  })
}

test('a reset empties the cache', async (t) => {
  const worker = await simulator(t)
  const cached = async (): Promise<number> => {
    const answer = await post(worker, '/v1/completions', { prompt: words(40), max_tokens: 1 })
    const body = (await answer.json()) as { usage: { prompt_tokens_details: { cached_tokens: number } } }
    return body.usage.prompt_tokens_details.cached_tokens
  }
  await cached()
  const reset = await fetch(`${worker.url}/reset_prefix_cache`, { method: 'POST' })
  assert.deepEqual(await reset.json(), recorded('18').response)
  assert.equal(await cached(), 0)
})

test('a worker that is to die after n tokens breaks the connection in the middle of its answer', async (t) => {
  const worker = await simulator(t)
  worker.dieAfterTokens(3)
  const answer = await post(worker, '/v1/completions', { prompt: 'a', max_tokens: 9, stream: true })
  const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader()
  let got = ''
  await assert.rejects(async () => {
    for (let part = await reader?.read(); part?.done === false; part = await reader?.read()) got += part.value
  })
  assert(!got.includes('[DONE]') && got.split('data: ').length <= 4)
  await assert.rejects(post(worker, '/v1/completions', { prompt: 'a', max_tokens: 9 }))
  worker.dieAfterTokens(null)
  assert.equal((await post(worker, '/v1/completions', { prompt: 'a', max_tokens: 9 })).status, 200)
})

test('a stalled worker answers its health and nothing else until it goes on', async (t) => {
  const worker = await simulator(t)
  worker.stall()
  let answered = false
  const answer = post(worker, '/v1/completions', { prompt: 'a' }).finally(() => (answered = true))
  await until(() => (worker.stats[0]?.running ?? 0) + (worker.stats[0]?.waiting ?? 0) === 1, 'the request is taken in')
  assert.equal((await fetch(`${worker.url}/health`)).status, 200)
  assert.equal(answered, false)
  worker.resume()
  assert.equal((await answer).status, 200)
})

test('a stream’s head comes before its first token, as from uvicorn', async (t) => {
  const worker = await simulator(t)
  worker.stall()
  const answer = await post(worker, '/v1/completions', { prompt: 'a', max_tokens: 2, stream: true })
  assert.equal(answer.status, 200)
  worker.resume()
  assert.equal(eventsOf(await answer.text()).length, 3)
})

test('a killed worker breaks its connections and refuses new ones; restarted, it has the same address and an empty cache', async (t) => {
  const worker = await simulator(t, { worker: { timeScale: 0.1 } })
  const { url } = worker
  const answer = post(worker, '/v1/completions', { prompt: words(40), max_tokens: 500 })
  const broken = assert.rejects(answer)
  await until(() => worker.stats[0]?.running === 1, 'the request runs')
  await worker.kill()
  await broken
  await assert.rejects(fetch(`${url}/health`))
  await worker.start()
  assert.equal(worker.url, url)
  assert.equal((await fetch(`${url}/health`)).status, 200)
  assert.equal(worker.stats[0]?.prefixQueryTokens, 0)
})

test('a worker that starts late refuses connections until then', async (t) => {
  let nowMs = 0
  const clock = { now: () => nowMs, after: () => () => undefined }
  const worker = await simulator(t, { clock, worker: { startDelayMs: 100 } })
  await assert.rejects(fetch(`${worker.url}/health`))
  nowMs = 100
  assert.equal((await fetch(`${worker.url}/health`)).status, 200)
})

test('a body that stops short of its length keeps nothing busy', async (t) => {
  const worker = await simulator(t)
  const socket = connect(Number(new URL(worker.url).port), '127.0.0.1')
  socket.write(
    'POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"pro',
  )
  socket.end()
  await new Promise((resolve) => socket.on('close', resolve).resume())
  assert.deepEqual([worker.stats[0]?.running, worker.stats[0]?.waiting], [0, 0])
})
