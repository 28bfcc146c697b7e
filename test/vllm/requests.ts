import { call, json, type Reply } from '../engines/client.ts'
import type { Lab } from './lab.ts'
import { text, weatherTool } from '../engines/texts.ts'

/** Requests of every form whose prompt the router must read. */
export async function forms(lab: Lab): Promise<void> {
  lab.report.section('Forms of requests')
  const prompt = text(11, 300)
  const ids = await lab.router.tokenize({ prompt: text(12, 300) })
  const few = { max_tokens: 4, temperature: 0 }
  const chat = [{ role: 'user', content: text(13, 120) }]
  const twice = async (title: string, body: Record<string, unknown>): Promise<void> => {
    await lab.send(`${title}, first`, { ...few, ...body })
    await lab.send(`${title}, again`, { ...few, ...body })
  }
  await twice('completion of a text', { prompt })
  await twice('completion of a text, streamed', { prompt: text(14, 100), stream: true })
  await twice('completion of token ids', { prompt: ids })
  await twice('chat with tools', { messages: chat, tools: [weatherTool], tool_choice: 'none' })
  await twice('chat with a template argument', { messages: chat, chat_template_kwargs: { enable_thinking: false } })
  await twice('chat with a tool call and its answer', {
    messages: toolCallChat,
    tools: [weatherTool],
    tool_choice: 'none',
  })
  await twice('a long prompt', { messages: [{ role: 'user', content: text(15, 4500) }] })
  await twice('completion with a salt', { prompt, cache_salt: 'tenant-1' })
  await twice('completion with another salt', { prompt, cache_salt: 'tenant-2' })
  await twice('chat with a salt', { messages: chat, cache_salt: 'tenant-1', stream: true })
  for (const length of [31, 32, 33, 64, 65])
    await twice(`${length} tokens`, { prompt: ids.slice(0, length).map((id) => id + length) })
}

/**
 * Several prompts in one request. vLLM 0.32 reports the cached tokens of one prompt only (the last one; when streaming,
 * that of the first answer), so that its figure is no measure of a prediction for all of them.
 */
export async function severalPrompts(lab: Lab): Promise<void> {
  const { report, router } = lab
  report.section('Several prompts in one request')
  const prompt = [text(16, 120), text(17, 200)]
  const ids = await Promise.all(prompt.map((each) => router.tokenize({ prompt: each })))
  const body = { prompt, max_tokens: 1, temperature: 0 }
  const { engine } = await lab.post(body)
  for (const tokens of ids) {
    report.check('the map holds each prompt', await lab.settle(engine, lab.held(engine).add(tokens, [], null), null))
  }
  const { agreement } = await router.worker(engine.url)
  const again = await lab.post(body)
  const cached = ids.map((tokens) => lab.held(again.engine).cachedTokens(tokens, null))
  report.equal('the request goes where the prompts are', again.engine.name, engine.name)
  report.equal('the prediction is of all prompts', again.predictedCachedTokens, cached[0]! + cached[1]!)
  report.equal('the report is of the last one', again.cachedTokens, cached[1])
  const after = (await router.worker(engine.url)).agreement
  const difference = after.predicted - agreement.predicted - (after.actual - agreement.actual)
  report.equal('which is not held against the prediction', difference, 0)
}

const toolCallChat = [
  { role: 'user', content: 'Weather in Zürich?' },
  {
    role: 'assistant',
    content: null,
    tool_calls: [
      { id: 'call12345', type: 'function', function: { name: 'weather', arguments: '{"city": "Zürich", "days": 2}' } },
    ],
  },
  { role: 'tool', tool_call_id: 'call12345', content: 'sunny' },
]

/** The router's /tokenize answers as the engine's own. */
export async function tokenize({ report, router, engines }: Lab): Promise<void> {
  report.section('/tokenize')
  const prompts: Record<string, unknown>[] = [
    { prompt: text(21, 200) },
    { prompt: ' two  spaces\n\n\tnaïve 👩‍🔬 <|im_start|>', add_special_tokens: false },
    { prompt: '' },
    {
      messages: [
        { role: 'system', content: 'Be brief. ' },
        { role: 'user', content: text(22, 40) },
      ],
    },
    { messages: toolCallChat, tools: [weatherTool] },
    {
      messages: [
        { role: 'user', content: 'a' },
        { role: 'assistant', content: 'The answer is' },
      ],
      add_generation_prompt: false,
      continue_final_message: true,
    },
  ]
  for (const [at, prompt] of prompts.entries()) {
    const asked = { model: 'model', ...prompt }
    const ours = await json(`${router.url}/tokenize`, asked)
    for (const engine of engines)
      report.equal(
        `prompt ${at + 1} as ${engine.name} has it`,
        tokensOf(ours),
        tokensOf(await json(`${engine.url}/tokenize`, asked)),
      )
  }
}

function tokensOf(answer: unknown): unknown {
  const { tokens, count, max_model_len: length } = answer as Record<string, unknown>
  return [length, count, tokens]
}

/** Through the router and straight from the engine, the same bytes but for the time of day. */
export async function bytes(lab: Lab): Promise<void> {
  const { report, router } = lab
  report.section('Bytes of answers')
  const bodies: readonly (readonly [string, string, Record<string, unknown>])[] = [
    ['chat', '/v1/chat/completions', { messages: [{ role: 'user', content: text(31, 90) }] }],
    [
      'streamed chat',
      '/v1/chat/completions',
      { messages: [{ role: 'user', content: text(31, 90) }], stream: true, stream_options: { include_usage: true } },
    ],
    ['completion', '/v1/completions', { prompt: text(32, 90) }],
    ['streamed completion', '/v1/completions', { prompt: text(32, 90), stream: true }],
    [
      'refused request',
      '/v1/chat/completions',
      { messages: [{ role: 'user', content: text(31, 90) }], temperature: -1 },
    ],
    ['prompt that is too long', '/v1/completions', { prompt: Array.from({ length: 9000 }, (_, at) => at + 100) }],
  ]
  for (const [title, path, body] of bodies) {
    const request = {
      body: { model: 'model', max_tokens: 12, temperature: 0, ...body },
      headers: { 'x-request-id': 'same-id' },
    }
    // Both engines are warmed, so that the two answers that are compared find the same blocks.
    for (const engine of lab.engines) await call(engine.url + path, request)
    // vLLM joins tokens into one event when its reader is late, so that two streams of the same tokens may be cut
    // differently on a busy machine: of those, some pair must be equal.
    const pairs = body['stream'] === true ? 8 : 1
    let through: Reply
    let straight: Reply
    let pair = 0
    do {
      through = await call(router.url + path, request)
      const origin = through.headers['x-warmroute-worker']
      straight = await call(`${typeof origin === 'string' ? origin : router.url}${path}`, request)
    } while (++pair < pairs && timeless(through.text) !== timeless(straight.text))
    report.equal(`${title}: status`, through.status, straight.status)
    report.equal(`${title}: ${straight.text.length} bytes`, timeless(through.text), timeless(straight.text))
    const own = Object.keys(through.headers).filter((name) => !(name in straight.headers))
    report.equal(
      `${title}: headers that the router adds`,
      own.filter((name) => !/^(connection|keep-alive)$/.test(name)).sort(),
      ['x-request-id', 'x-warmroute-cached-tokens', 'x-warmroute-worker'],
    )
    report.equal(`${title}: content type`, through.headers['content-type'], straight.headers['content-type'])
  }
}

function timeless(text: string): string {
  return text.replace(/"created":\d+/g, '"created":0')
}
