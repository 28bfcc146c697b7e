// Answers and refusals against what vLLM 0.32's own models and handlers make (test/fixtures/vllm-answers).
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { shape } from './shape.ts'
import { post, simulator } from './simulators.ts'

interface Answer {
  readonly name: string
  readonly path: string
  readonly body?: unknown
  readonly stream?: string
}

interface Refusal {
  readonly method: string
  readonly path: string
  readonly content_type: string | null
  readonly request: string
  readonly status: number
  readonly allow: string | null
  readonly body: { readonly error?: { readonly message: string }; readonly detail?: string }
}

function rows<Row>(file: string): Row[] {
  const text = readFileSync(new URL(`../fixtures/vllm-answers/${file}`, import.meta.url), 'utf8')
  return text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Row)
}

const words = (count: number): string => Array.from({ length: count }, (_, i) => `word${i}`).join(' ')
const messages = { model: 'model', max_tokens: 2, messages: [{ role: 'user', content: words(40) }] }
const tokens = { token_ids: Array.from({ length: 40 }, (_, i) => 200 + i), sampling_params: { max_tokens: 2 } }

/** The request for each recorded answer. */
const requests: Readonly<Record<string, object>> = {
  response: { input: words(40), max_output_tokens: 2 },
  message: messages,
  'message-cached': messages,
  count_tokens: messages,
  generate: tokens,
  'generate-text': { ...tokens, output_mode: 'text' },
  embeddings: { input: 'a' },
  score: { queries: 'a', documents: 'b' },
  rerank: { query: 'a', documents: ['b'] },
  classify: { input: 'a' },
  pooling: { input: 'a' },
}

/** Event names in their order, each with the shape of its JSON; a run of deltas counts once. */
function streamShape(stream: string): unknown[] {
  const events = stream
    .split('\n\n')
    .filter((event) => event !== '' && event !== 'data: [DONE]')
    .map((event) => {
      const [, name = null, json = ''] = /^(?:event: (\S+)\n)?data: (.*)$/.exec(event) ?? []
      return JSON.stringify([name, shape(JSON.parse(json))])
    })
  return events.filter((event, at) => event !== events[at - 1]).map((event) => JSON.parse(event) as unknown)
}

for (const { name, path, body, stream } of rows<Answer>('answers.jsonl')) {
  const request = requests[name.replace(/-stream$/, '')]
  assert(request !== undefined, `no request makes the recorded answer ${name}`)
  test(`${path} answers as vLLM’s own code does: ${name}`, async (t) => {
    const promptTokensDetails = name.includes('cached') || name.startsWith('generate')
    const worker = await simulator(t, { worker: { promptTokensDetails, scaleOut: true } })
    if (name.includes('cached')) await post(worker, path, request)
    const usage = path === '/inference/v1/generate' ? { stream_options: { include_usage: true } } : {}
    const asked = stream === undefined ? request : { ...request, stream: true, ...usage }
    const answer = await post(worker, path, asked)
    assert.equal(answer.status, 200)
    if (stream === undefined) assert.deepEqual(shape(await answer.json()), shape(body))
    else assert.deepEqual(streamShape(await answer.text()), streamShape(stream).map(incomplete))
  })
}

/** The recorded response is complete; one that ends at its limit says so. */
function incomplete(event: unknown): unknown {
  const text = JSON.stringify(event)
  if (!text.startsWith('["response.completed"')) return event
  return JSON.parse(
    text.replace('["incomplete_details",null]', '["incomplete_details",[["reason","string"]]]'),
  ) as unknown
}

for (const refusal of rows<Refusal>('refusals.jsonl')) {
  const { method, path, request, status, body, allow, content_type: type } = refusal
  const title = `${method} ${path} ${type ?? ''} ${request.slice(0, 60)}`
  test(`a request is refused as vLLM’s own handlers refuse it: ${title}`, async (t) => {
    const worker = await simulator(t, { worker: { scaleOut: true } })
    const bytes = method === 'GET' ? null : Buffer.from(request)
    const headers = type === null ? {} : { 'content-type': type }
    const answer = await fetch(worker.url + path, { method, headers, body: bytes })
    assert.deepEqual([answer.status, answer.headers.get('allow')], [status, allow])
    const said = (await answer.json()) as Refusal['body']
    // How many alternatives a union has, and which defaults were set before, is pydantic's business, not the clients'.
    const bare = ({ error, ...rest }: Refusal['body']): object => ({ ...rest, ...error, message: null })
    assert.deepEqual(bare(said), bare(body))
    const message = ({ error }: Refusal['body']): string => (error?.message ?? '').replace(/<dict of \d+ items>/g, '')
    const single = message(body).startsWith('1 ') && !message(body).includes("'ctx'")
    if (single) assert.equal(message(said), message(body))
  })
}
