import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fleetFor, model, postTo, prose, type Fleet } from '../support/fleet.ts'
import { rawRequest } from '../support/raw-http.ts'
import { scriptedEngine } from '../support/scripted-engine.ts'

interface ErrorAnswer {
  readonly error: {
    readonly message: string
    readonly type: string
    readonly param: string | null
    readonly code: string
  }
}

const errorKeys = ['code', 'message', 'param', 'type']

/** Ids and times differ between two answers to the same request; the rest must not. */
function masked(text: string): string {
  return text.replace(/"id":"(chatcmpl|cmpl)-[^"]*"/g, '"id":"$1"').replace(/"created":\d+/g, '"created":0')
}

async function assertError(answer: Response, status: number, code: string): Promise<ErrorAnswer['error']> {
  const text = await answer.text()
  assert.equal(answer.status, status, text)
  assert.match(answer.headers.get('content-type') ?? '', /^application\/json/)
  assert.ok(answer.headers.get('x-request-id'), 'an error has a request id')
  const { error } = JSON.parse(text) as ErrorAnswer
  assert.deepEqual(Object.keys(error).sort(), errorKeys)
  assert.equal(error.code, code)
  return error
}

async function assertServesAndIsIdle(fleet: Fleet): Promise<void> {
  const good = await fleet.chat('Still there?')
  assert.equal(good.status, 200, await good.text())
  await fleet.settled()
  for (const { inFlight } of await fleet.workers())
    assert.deepEqual(inFlight, { requests: 0, prefillTokens: 0, decodeBlocks: 0 })
}

test('every public endpoint of docs/http.md answers as it says', async (t) => {
  const fleet = await fleetFor(t, {
    simulators: { worker: { loras: [{ name: 'tuned', path: '/adapters/tuned' }] } },
    pool: { aliases: ['demo-alias'] },
  })
  const get = async (path: string): Promise<{ status: number; body: unknown }> => {
    const answer = await fetch(fleet.publicUrl + path)
    const text = await answer.text()
    return { status: answer.status, body: text === '' ? null : (JSON.parse(text) as unknown) }
  }

  assert.equal((await fleet.chat('Hi')).status, 200)
  assert.equal((await fleet.post('/v1/completions', { model, prompt: 'Hi', max_tokens: 2 })).status, 200)
  assert.deepEqual(await get('/health'), { status: 200, body: null })

  const models = (await get('/v1/models')).body as {
    object: string
    data: { id: string; parent: string | null; root: string; max_model_len: number }[]
  }
  assert.equal(models.object, 'list')
  assert.deepEqual(
    models.data.map(({ id, parent }) => [id, parent]),
    [
      ['demo', null],
      ['demo-alias', null],
      ['tuned', 'demo'],
    ],
  )
  assert.equal(models.data[0]?.max_model_len, 131_072)
  assert.equal(((await get('/v1/models/tuned')).body as { id: string }).id, 'tuned')
  assert.equal((await get('/v1/models/none')).status, 404)

  for (const body of [
    { model, prompt: 'Grüße, 世界 👩‍🔬' },
    { model, messages: [{ role: 'user', content: 'Hi' }], add_generation_prompt: false },
  ]) {
    const ours = (await (await fleet.post('/tokenize', body)).json()) as {
      count: number
      max_model_len: number
      tokens: number[]
    }
    const engines = (await (await postTo(`${fleet.worker(0).url}/tokenize`, body)).json()) as typeof ours
    assert.deepEqual(ours.tokens, engines.tokens)
    assert.equal(ours.count, ours.tokens.length)
    assert.equal(ours.max_model_len, engines.max_model_len)
    if ('prompt' in body)
      assert.deepEqual(await (await fleet.post('/detokenize', { model, tokens: ours.tokens })).json(), {
        prompt: body.prompt,
      })
  }
})

test('every admin endpoint answers on the admin port, and none of it on the public one', async (t) => {
  const fleet = await fleetFor(t)
  await fleet.chat('Hi', {}, { headers: { 'x-request-id': 'first' } })
  await fleet.settled()
  const paths = [
    '/healthz',
    '/readyz',
    '/metrics',
    '/admin/workers',
    '/admin/map',
    '/admin/decisions',
    '/admin/decisions/first',
  ]
  for (const path of paths) {
    assert.equal((await fetch(fleet.adminUrl + path)).status, 200, path)
    await assertError(await fetch(fleet.publicUrl + path), 404, 'path_not_found')
  }
  assert.equal((await fleet.explain({ model, prompt: 'Hi' })).status, 200)
  await assertError(await fleet.post('/admin/explain', { model, prompt: 'Hi' }), 404, 'path_not_found')
  await assertError(await fetch(`${fleet.adminUrl}/v1/models`), 404, 'path_not_found')
  await assertError(await fetch(`${fleet.adminUrl}/admin/decisions/none`), 404, 'record_not_found')
  await assertError(await fetch(`${fleet.adminUrl}/admin/decisions?limit=0`), 400, 'body_invalid')
  for (const path of ['/reset_prefix_cache', '/v1/load_lora_adapter', '/invocations', '/kv_event_sources']) {
    await assertError(await fleet.post(path, {}), 404, 'path_not_found')
  }
  await assertError(await fetch(`${fleet.publicUrl}/v1/chat/completions`), 404, 'path_not_found')
  await assertError(await fetch(`${fleet.publicUrl}/v1/models`, { method: 'DELETE' }), 404, 'path_not_found')
})

test('request bodies reach the worker and answers the client byte for byte', async (t) => {
  const answerBody = Buffer.from(
    '{ "id":"x",\n "big":123456789012345678901234567890, "text":"\\u00e9\\ud83d\\ude00 é", "usage":{"prompt_tokens":3} }\n',
  )
  const engine = await scriptedEngine(t, (_request, response) => {
    response
      .writeHead(200, { 'content-type': 'application/json', 'X-Engine': 'kept', 'set-cookie': 'a=1' })
      .end(answerBody)
  })
  const fleet = await fleetFor(t, { workers: 0, urls: [engine.url], worker: { blockSize: 16 } })
  const bodies = [
    `{"model":"demo","messages":[{"role":"user","content":"Hi"}]}`,
    `\n\t { "unknown" : {"b":1,"a":[1.0,1e2,-0.0]},"messages"  :[ {"content":"\\u0048i \\ud83d\\ude00 \\/ é","role":"user"} ]  ,"seed":9007199254740993,"model":"demo" }\r\n `,
    `{"model":"demo","messages":[{"role":"user","content":"lone \\ud800 surrogate"}],"temperature":0.10000000000000000555}`,
  ]
  for (const body of bodies) {
    const answer = await fleet.post('/v1/chat/completions?a=%20b', body)
    const bytes = Buffer.from(await answer.arrayBuffer())
    assert.equal(answer.status, 200, bytes.toString())
    assert.deepEqual(bytes, answerBody)
    assert.equal(answer.headers.get('x-engine'), 'kept')
    assert.equal(answer.headers.get('set-cookie'), 'a=1')
    const received = engine.received.at(-1)
    assert.equal(received?.url, '/v1/chat/completions?a=%20b')
    assert.deepEqual(received.body.toString('latin1'), Buffer.from(body).toString('latin1'))
  }
})

test('an answer is the same as straight from the engine, streamed and not', async (t) => {
  const fleet = await fleetFor(t)
  const requests: [string, object][] = [
    ['/v1/chat/completions', { model, messages: [{ role: 'user', content: 'Tell me' }], max_tokens: 9 }],
    ['/v1/chat/completions', { model, messages: [{ role: 'user', content: 'Tell me' }], max_tokens: 9, n: 3 }],
    [
      '/v1/chat/completions',
      {
        model,
        messages: [{ role: 'user', content: 'Tell me' }],
        max_tokens: 9,
        stream: true,
        stream_options: { include_usage: true },
      },
    ],
    ['/v1/completions', { model, prompt: [301, 302, 303], max_tokens: 5, stream: true }],
    ['/v1/completions', { model, prompt: ['One', 'Two'], max_tokens: 5 }],
    ['/v1/chat/completions', { model, messages: [{ role: 'user', content: 'Hi' }], max_tokens: 1_000_000 }],
  ]
  for (const [path, body] of requests) {
    // The first answer warms the cache, so that the two that are compared find the same there.
    await (await postTo(fleet.worker(0).url + path, body)).text()
    const direct = await postTo(fleet.worker(0).url + path, body)
    const routed = await fleet.post(path, body)
    const [expected, got] = [await direct.text(), await routed.text()]
    assert.equal(routed.status, direct.status)
    assert.equal(routed.headers.get('content-type'), direct.headers.get('content-type'))
    assert.equal(masked(got), masked(expected))
  }
})

test('headers go on, are replaced or dropped as docs/headers.md says', async (t) => {
  const engine = await scriptedEngine(t, (_request, response) =>
    response.writeHead(200, { 'content-type': 'application/json' }).end('{}'),
  )
  const fleet = await fleetFor(t, { workers: 0, urls: [engine.url] })
  const body = JSON.stringify({ model, messages: [{ role: 'user', content: 'Hi' }] })
  const send = (headers: readonly string[]): Promise<{ status: number; head: string; body: string }> =>
    rawRequest(
      fleet.publicUrl,
      [
        'POST /v1/chat/completions HTTP/1.1',
        'host: router.example',
        `content-length: ${body.length}`,
        ...headers,
        '',
        body,
      ].join('\r\n'),
    )
  const answer = await send([
    'connection: close, x-hop',
    'x-hop: 1',
    'te: trailers',
    'accept-encoding: gzip',
    'authorization: Bearer clients',
    'X-Request-Id: my-id_1.2',
    'x-data-parallel-rank: 3',
    'x-override-rid: evil',
    'x-smg-routing-key: evil',
    'x-body-compressed: 1',
    'x-warmroute-explain: 1',
    'proxy-authorization: Basic x',
    'traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    'x-session-id: s1',
    'X-Custom: kept',
    'content-type: application/json',
  ])
  assert.equal(answer.status, 200, answer.body)
  assert.match(answer.head, /^x-request-id: my-id_1\.2$/im)
  const { headers } = engine.received[0]!
  assert.deepEqual(
    { ...headers },
    {
      host: new URL(engine.url).host,
      connection: 'keep-alive',
      'content-length': String(body.length),
      'accept-encoding': 'identity',
      authorization: 'Bearer clients',
      'x-request-id': 'my-id_1.2',
      'x-forwarded-for': '127.0.0.1',
      'x-forwarded-proto': 'http',
      'x-forwarded-host': 'router.example',
      traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
      'x-session-id': 's1',
      'x-custom': 'kept',
      'content-type': 'application/json',
    },
  )
  for (const bad of ['x'.repeat(129), 'with space', 'ü']) {
    const replaced = await send(['connection: close', `x-request-id: ${bad}`])
    const id = /^x-request-id: (.*)$/im.exec(replaced.head)?.[1] ?? ''
    assert.match(id, /^[A-Za-z0-9._-]{8,128}$/)
    assert.notEqual(id, bad)
    assert.equal(engine.received.at(-1)?.headers['x-request-id'], id)
  }
})

test('a worker’s own key replaces the client’s', async (t) => {
  const engine = await scriptedEngine(t, (_request, response) =>
    response.writeHead(200, { 'content-type': 'application/json' }).end('{}'),
  )
  const fleet = await fleetFor(t, {
    workers: 0,
    urls: [engine.url],
    worker: { apiKey: 'engines', headers: { 'X-Tenant': 'a' } },
  })
  await fleet.chat('Hi', {}, { headers: { authorization: 'Bearer clients', 'x-tenant': 'b' } })
  const received = engine.received.at(-1)
  assert.equal(received?.headers.authorization, 'Bearer engines')
  assert.equal(received.headers['x-tenant'], 'a')
})

test('x-warmroute-* is shown as `expose` says, and the decision on request', async (t) => {
  const text = prose('expose', 100)
  for (const [expose, seen] of [
    ['loopback', true],
    ['all', true],
    ['keys', false],
  ] as const) {
    const fleet = await fleetFor(t, { config: { expose } })
    const answer = await fleet.chat(text, {}, { headers: { 'x-warmroute-explain': '1', 'x-request-id': 'explained' } })
    const ours = [...answer.headers.keys()].filter((name) => name.startsWith('x-warmroute-'))
    assert.deepEqual(
      ours.sort(),
      seen ? ['x-warmroute-cached-tokens', 'x-warmroute-decision', 'x-warmroute-worker'] : [],
    )
    if (!seen) continue
    assert.equal(answer.headers.get('x-warmroute-worker'), fleet.worker(0).url)
    assert.equal(answer.headers.get('x-warmroute-cached-tokens'), '0')
    const decision = JSON.parse(answer.headers.get('x-warmroute-decision') ?? '') as {
      requestId: string
      chosen: string
    }
    assert.equal(decision.requestId, 'explained')
    assert.equal(decision.chosen, fleet.worker(0).url)
    const plain = await fleet.chat(text, { stream: true })
    assert.equal(plain.headers.has('x-warmroute-decision'), false)
    assert.ok(plain.headers.has('x-warmroute-worker'))
    await plain.text()
  }
})

test('a model name that is not ASCII does not break the explain header', async (t) => {
  const fleet = await fleetFor(t, { pool: { aliases: ['modèle-世界'] } })
  const answer = await fleet.post('/tokenize', { model: 'modèle-世界', prompt: 'a' })
  assert.equal(answer.status, 200)
  const chat = await fleet.chat('Hi', { model: 'modèle-世界' }, { headers: { 'x-warmroute-explain': '1' } })
  assert.equal(chat.status, 200)
  assert.equal(
    (JSON.parse(chat.headers.get('x-warmroute-decision') ?? '{}') as { model?: string }).model,
    'modèle-世界',
  )
})

test('an alias that the engine does not know reaches it as the model’s name, the rest byte for byte', async (t) => {
  const engine = await scriptedEngine(t, (_request, response) =>
    response.writeHead(200, { 'content-type': 'application/json' }).end('{}'),
  )
  const fleet = await fleetFor(t, { workers: 0, urls: [engine.url], pool: { aliases: ['alias "x" é'] } })
  const body = (name: string): string => `{ "x": "é",  "model" : ${name} ,"messages":[{"role":"user","content":"Hi"}] }`
  for (const name of ['"alias \\"x\\" é"', '"alias \\u0022x\\" \\u00e9"', '"demo"', '"d\\u0065mo"']) {
    assert.equal((await fleet.post('/v1/chat/completions', body(name))).status, 200)
    assert.equal(engine.received.at(-1)?.body.toString(), body(name.includes('alias') ? '"demo"' : name))
  }
})

test('completions take a text, texts, ids and lists of ids, and n above 1', async (t) => {
  const fleet = await fleetFor(t, { engine: { capacityBlocks: 256 } })
  const long = Array.from({ length: 70 }, (_, index) => 300 + index)
  const forms: [unknown, number, number][] = [
    ['One text', 1, 1],
    [['One text', 'and another'], 2, 1],
    [long, 1, 1],
    [[long, long.slice(0, 40).reverse()], 2, 1],
    ['One text', 1, 3],
    [[long, long.slice(0, 50)], 2, 2],
  ]
  for (const [prompt, prompts, n] of forms) {
    const body = { model, prompt, n, max_tokens: 3 }
    const answer = await fleet.post('/v1/completions', body)
    const text = await answer.text()
    assert.equal(answer.status, 200, text)
    assert.equal((JSON.parse(text) as { choices: unknown[] }).choices.length, prompts * n)
    await fleet.settled()
    const predicted = (await fleet.decisions(1))[0]
    assert.equal(predicted?.predictedCachedTokens, predicted?.actualCachedTokens)
  }
  // Each prompt's cached tokens count: 64 of the 70 ids and 48 of the 50 are held by now.
  const warm = await fleet.post('/v1/completions', { model, prompt: [long, long.slice(0, 50)], max_tokens: 1 })
  assert.equal(warm.headers.get('x-warmroute-cached-tokens'), String(64 + 48))
  await assertServesAndIsIdle(fleet)
})

test('token ids are routed by prefix where the pool has no tokenizer, long ones too', async (t) => {
  const fleet = await fleetFor(t, { workers: 2, pool: { tokenizer: undefined } })
  for (const length of [80, 9000]) {
    const prompt = Array.from({ length }, (_, index) => 1000 + ((index * 7 + length) % 900))
    const first = await fleet.post('/v1/completions', { model, prompt, max_tokens: 1 })
    assert.equal(first.status, 200, await first.text())
    await fleet.settled()
    const second = await fleet.post('/v1/completions', { model, prompt, max_tokens: 1 })
    assert.equal(second.headers.get('x-warmroute-worker'), first.headers.get('x-warmroute-worker'))
    assert.equal(second.headers.get('x-warmroute-cached-tokens'), String(Math.floor((length - 1) / 16) * 16))
    await fleet.settled()
  }
  const text = await fleet.chat('Hi')
  assert.equal(text.status, 200)
  assert.equal((await fleet.decisions(1))[0]?.fallback, 'no_tokenizer')
})

const chatBody = (more: string): string => `{"model":"demo","messages":[{"role":"user","content":"Hi"}]${more}}`
const chatPath = '/v1/chat/completions'
const completionPath = '/v1/completions'

/** Path, body, status, code, and the field named. */
const malformed: [string, string, string | Buffer, number, string, (string | null)?][] = [
  ['an empty body', chatPath, '', 400, 'body_not_json'],
  ['half a body', chatPath, '{"model":"demo","messages":[', 400, 'body_not_json'],
  ['a list', chatPath, '[]', 400, 'body_invalid'],
  ['a text', chatPath, '"demo"', 400, 'body_invalid'],
  ['null', chatPath, 'null', 400, 'body_invalid'],
  ['two values', chatPath, '{} {}', 400, 'body_not_json'],
  ['NaN', chatPath, chatBody(',"temperature":NaN'), 400, 'body_not_json'],
  ['Infinity', chatPath, chatBody(',"temperature":-Infinity'), 400, 'body_not_json'],
  [
    'a byte that is not UTF-8',
    chatPath,
    Buffer.concat([
      Buffer.from('{"model":"demo","messages":[{"role":"user","content":"'),
      Buffer.from([0xff]),
      Buffer.from('"}]}'),
    ]),
    400,
    'body_not_utf8',
  ],
  [
    'a surrogate in UTF-8',
    chatPath,
    Buffer.concat([
      Buffer.from('{"model":"demo","messages":[{"role":"user","content":"'),
      Buffer.from([0xed, 0xa0, 0x80]),
      Buffer.from('"}]}'),
    ]),
    400,
    'body_not_utf8',
  ],
  ['depth 200', chatPath, chatBody(`,"x":${'['.repeat(200)}${']'.repeat(200)}`), 400, 'body_too_deep'],
  ['depth 10,000', chatPath, chatBody(`,"x":${'['.repeat(10_000)}${']'.repeat(10_000)}`), 400, 'body_too_deep'],
  ['two models', chatPath, chatBody(',"model":"other"'), 400, 'body_duplicate_key'],
  ['two models, one escaped', chatPath, chatBody(',"\\u006dodel":"other"'), 400, 'body_duplicate_key'],
  ['no model', chatPath, '{"messages":[{"role":"user","content":"Hi"}]}', 400, 'body_invalid', 'model'],
  ['a number as the model', chatPath, '{"model":5,"messages":[]}', 400, 'body_invalid', 'model'],
  ['no messages', chatPath, '{"model":"demo"}', 400, 'body_invalid', 'messages'],
  ['a text as the messages', chatPath, '{"model":"demo","messages":"Hi"}', 400, 'body_invalid', 'messages'],
  ['no message', chatPath, '{"model":"demo","messages":[]}', 400, 'body_invalid', 'messages'],
  ['a number among the messages', chatPath, '{"model":"demo","messages":[5]}', 400, 'body_invalid'],
  ['a text for stream', chatPath, chatBody(',"stream":"yes"'), 400, 'body_invalid', 'stream'],
  ['n below 1', chatPath, chatBody(',"n":-1'), 400, 'body_invalid', 'n'],
  ['a fraction for max_tokens', chatPath, chatBody(',"max_tokens":1.5'), 400, 'body_invalid', 'max_tokens'],
  ['a number as the salt', chatPath, chatBody(',"cache_salt":1'), 400, 'body_invalid', 'cache_salt'],
  ['no prompt', completionPath, '{"model":"demo"}', 400, 'body_invalid', 'prompt'],
  ['an empty list of prompts', completionPath, '{"model":"demo","prompt":[]}', 400, 'body_invalid', 'prompt'],
  ['texts and ids mixed', completionPath, '{"model":"demo","prompt":["a",5]}', 400, 'body_invalid'],
  ['a negative id', completionPath, '{"model":"demo","prompt":[-1]}', 400, 'token_id_invalid'],
  ['a huge id', completionPath, '{"model":"demo","prompt":[9007199254740993]}', 400, 'token_id_invalid'],
  ['an id beyond the vocabulary', completionPath, '{"model":"demo","prompt":[4000000]}', 400, 'token_id_invalid'],
  ['a fraction as id', completionPath, '{"model":"demo","prompt":[[1.5]]}', 400, 'token_id_invalid'],
  ['1e400 as id', completionPath, '{"model":"demo","prompt":[1e400]}', 400, 'token_id_invalid'],
  [
    'an unknown model',
    chatPath,
    '{"model":"other","messages":[{"role":"user","content":"Hi"}]}',
    404,
    'model_not_found',
    'model',
  ],
  [
    'a model name of 10 kB',
    chatPath,
    `{"model":"${'m'.repeat(10_000)}","messages":[{"role":"user","content":"Hi"}]}`,
    404,
    'model_not_found',
    'model',
  ],
  ['over the limit', chatPath, chatBody(`,"x":"${'x'.repeat(100_000)}"`), 413, 'body_too_large'],
]

test('malformed bodies are refused in OpenAI’s form and leave nothing behind', async (t) => {
  const engine = await scriptedEngine(t, (_request, response) =>
    response.writeHead(200, { 'content-type': 'application/json' }).end('{}'),
  )
  const fleet = await fleetFor(t, { workers: 0, urls: [engine.url], config: { limits: { bodyBytes: 64 * 1024 } } })
  for (const [name, path, body, status, code, param] of malformed) {
    await t.test(name, async () => {
      const answer = await fleet.post(path, body)
      const error = await assertError(answer, status, code)
      if (param !== undefined) assert.equal(error.param, param)
      assert.equal(answer.headers.get('x-should-retry'), status === 404 ? 'false' : null)
    })
  }
  await t.test('a compressed body', async () => {
    await assertError(
      await fleet.post(chatPath, chatBody(''), { headers: { 'content-encoding': 'gzip' } }),
      415,
      'content_encoding_unsupported',
    )
  })
  await t.test('a head of 20 kB', async () => {
    const answer = await rawRequest(
      fleet.publicUrl,
      `POST ${chatPath} HTTP/1.1\r\nhost: a\r\nx-long: ${'x'.repeat(20_000)}\r\n\r\n`,
    )
    assert.equal(answer.status, 431)
    assert.equal((JSON.parse(answer.body) as ErrorAnswer).error.code, 'headers_too_large')
  })
  const heads: [string, string][] = [
    [
      'two hosts',
      `POST ${chatPath} HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}`,
    ],
    [
      'a whole URL in the request line',
      `POST http://other.example${chatPath} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}`,
    ],
    ['no host', `POST ${chatPath} HTTP/1.1\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}`],
    [
      'a length and chunks',
      `POST ${chatPath} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`,
    ],
    ['a space before the colon', `POST ${chatPath} HTTP/1.1\r\nhost: a\r\nx-a : b\r\n\r\n`],
    ['a length below 0', `POST ${chatPath} HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n`],
    ['a TLS hello', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03'],
  ]
  for (const [name, bytes] of heads) {
    await t.test(name, async () =>
      assert.equal((await rawRequest(fleet.publicUrl, Buffer.from(bytes, 'latin1'))).status, 400),
    )
  }
  assert.equal(engine.received.length, 0, 'no malformed request reaches a worker')
  await assertServesAndIsIdle(fleet)
})

test('a template’s refusal is a 400 that says what the template says', async (t) => {
  const { mkdtempSync, writeFileSync } = await import('node:fs')
  const folder = mkdtempSync('/tmp/warmroute-')
  const chatTemplate = `${folder}/template.jinja`
  writeFileSync(
    chatTemplate,
    `{%- if messages[0].role != 'user' %}{{ raise_exception('Begin with the user') }}{%- endif %}{{ messages[0].content }}`,
  )
  const fleet = await fleetFor(t, { pool: { chatTemplate } })
  const answer = await fleet.chat([{ role: 'assistant', content: 'Hi' }])
  assert.match((await assertError(answer, 400, 'template_refused')).message, /Begin with the user/)
  assert.equal(answer.headers.get('x-should-retry'), 'false')
  await assertServesAndIsIdle(fleet)
})
