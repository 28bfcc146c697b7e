import assert from 'node:assert/strict'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { endpoints } from '../../src/http/endpoints.ts'
import { fleetFor, model, postTo, type Fleet } from '../support/fleet.ts'
import { scriptedEngine, type ScriptedEngine } from '../support/scripted-engine.ts'
import type { TestContext } from 'node:test'

async function behind(t: TestContext): Promise<{ fleet: Fleet; engine: ScriptedEngine }> {
  const engine = await scriptedEngine(t, (_request, response) =>
    response.writeHead(200, { 'content-type': 'application/json' }).end('{}'),
  )
  return { engine, fleet: await fleetFor(t, { workers: 0, urls: [engine.url], worker: { blockSize: 16 } }) }
}

const messages = '"messages":[{"role":"user","content":"Hi"}]'
const named = `"model":"${model}"`

/** Bodies that no endpoint for JSON may take, with their error codes. */
const malformed: [string, string | Buffer, string][] = [
  ['depth 10,000', `{${named},${messages},"x":${'['.repeat(10_000)}${']'.repeat(10_000)}}`, 'body_too_deep'],
  ['depth 1,000,000', `{${named},"x":${'['.repeat(1_000_000)}${']'.repeat(1_000_000)}}`, 'body_too_deep'],
  ['depth 10,000 of objects', `${'{"a":'.repeat(10_000)}1${'}'.repeat(10_000)}`, 'body_too_deep'],
  ['two models', `{${named},${messages},"model":"other"}`, 'body_duplicate_key'],
  ['two prompts', `{${named},"prompt":"a","prompt":"b"}`, 'body_duplicate_key'],
  ['NaN', `{${named},${messages},"temperature":NaN}`, 'body_not_json'],
  ['a list', '[]', 'body_invalid'],
  ['a text', '"x"', 'body_invalid'],
  ['null', 'null', 'body_invalid'],
  ['a number', '1', 'body_invalid'],
  ['bad UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d]), 'body_not_utf8'],
  ['a byte order mark', `\ufeff{${named},${messages}}`, 'body_not_json'],
  ['UTF-16', Buffer.from(`{${named},${messages}}`, 'utf16le'), 'body_not_json'],
  ['nothing', '', 'body_not_json'],
  ['spaces', '   ', 'body_not_json'],
]

test('malformed JSON is refused on every endpoint within 20 ms, in the form of its API', async (t) => {
  const { fleet, engine } = await behind(t)
  for (const { path } of endpoints.filter(({ multipart }) => !multipart)) {
    for (const [name, body, code] of malformed) {
      let fastestMs = Infinity
      // The machine may be busy; the router is not.
      for (let attempt = 0; attempt < 5 && fastestMs > 20; attempt++) {
        const startMs = performance.now()
        const answer = await postTo(fleet.publicUrl + path, body)
        const text = await answer.text()
        fastestMs = Math.min(fastestMs, performance.now() - startMs)
        assert.equal(answer.status, 400, `${path}, ${name}: ${text}`)
        const { error, type } = JSON.parse(text) as { error: { code?: string; message: string }; type?: string }
        assert.ok(error.message)
        if (path.startsWith('/v1/messages')) assert.equal(type, 'error')
        else assert.equal(error.code, code, `${path}, ${name}`)
      }
      // A megabyte of brackets takes its time on the way here.
      if (body.length < 100_000) assert.ok(fastestMs <= 20, `${path}, ${name}: ${fastestMs} ms`)
    }
  }
  assert.equal(engine.received.length, 0)
})

test('names of the language’s own are keys like others, and lone surrogates go on as they came', async (t) => {
  const { fleet, engine } = await behind(t)
  for (const more of [
    '"__proto__":{"polluted":true}',
    '"constructor":{"prototype":{"polluted":true}}',
    '"toString":1,"hasOwnProperty":2,"valueOf":null',
    '"user":"\\ud800"',
    '"metadata":{"__proto__":{"polluted":true},"\\udfff":1}',
  ]) {
    const body = `{${named},${messages},${more}}`
    const answer = await fleet.post('/v1/chat/completions', body)
    assert.equal(answer.status, 200, await answer.text())
    assert.equal(engine.received.at(-1)?.body.toString(), body)
  }
  assert.equal(({} as { polluted?: boolean }).polluted, undefined)
})

const wrong = ['-1', '0', '1e18', '9007199254740993', '1.5', '"x"', 'true', 'null', '[]', '{}', '[[]]', '[null]', '""']
const fields = [
  ...['model', 'messages', 'prompt', 'input', 'system', 'instructions', 'stream', 'stream_options', 'n', 'max_tokens'],
  ...['max_completion_tokens', 'max_output_tokens', 'tools', 'tool_choice', 'priority', 'cache_salt', 'session_id'],
  ...[
    'chat_template_kwargs',
    'add_generation_prompt',
    'documents',
    'token_ids',
    'input_ids',
    'sampling_params',
    'text',
  ],
  ...['previous_response_id', 'reasoning_effort', 'thinking', 'best_of', 'echo', 'metadata', 'user', 'query'],
]

test('a field of any wrong type gets a 4xx, or the engine’s own answer: never a 5xx', async (t) => {
  const { fleet } = await behind(t)
  const usual: Readonly<Record<string, string>> = {
    model: `"${model}"`,
    messages: '[{"role":"user","content":"Hi"}]',
    prompt: '"Hi"',
    input: '"Hi"',
    max_tokens: '4',
  }
  // One path of each way to read a body.
  const kinds = new Map(endpoints.filter(({ multipart }) => !multipart).map((endpoint) => [endpoint.prompt, endpoint]))
  assert.ok(kinds.size >= 5)
  for (const { path } of kinds.values()) {
    const bodies = fields.flatMap((field) => wrong.map((value) => ({ ...usual, [field]: value })))
    for (const role of ['null', '5', '"nobody"', '[]'])
      bodies.push({ ...usual, messages: `[{"role":${role},"content":"Hi"}]` })
    for (const content of wrong) {
      bodies.push({ ...usual, messages: `[{"role":"user","content":${content}}]` })
      bodies.push({ ...usual, messages: `[{"role":"user","content":[${content}]}]` })
      bodies.push({ ...usual, messages: `[{"role":"user","content":[{"type":${content},"text":${content}}]}]` })
      bodies.push({ ...usual, input: `[{"type":"message","role":"user","content":${content}}]` })
      bodies.push({ ...usual, messages: `[{"role":"assistant","tool_calls":${content}}]` })
      bodies.push({ ...usual, tools: `[{"type":"function","function":${content}}]` })
    }
    await Promise.all(
      Array.from({ length: 8 }, async (_, lane) => {
        for (let index = lane; index < bodies.length; index += 8) {
          const body = `{${Object.entries(bodies[index] ?? {})
            .map(([key, value]) => `"${key}":${value}`)
            .join(',')}}`
          const answer = await postTo(fleet.publicUrl + path, body)
          const text = await answer.text()
          assert.ok(answer.status < 500, `${path} ${body}: ${answer.status} ${text}`)
        }
      }),
    )
  }
  assert.deepEqual(
    fleet.log.filter(({ level }) => level === 'error'),
    [],
  )
})

test('a compressed bomb is refused by its head and costs no memory', async (t) => {
  const { fleet, engine } = await behind(t)
  const bomb = gzipSync(Buffer.alloc(64 * 1024 * 1024))
  const before = process.memoryUsage().rss
  for (const encoding of ['gzip', 'deflate', 'br', 'zstd', 'gzip, identity', 'x-gzip']) {
    const answer = await postTo(`${fleet.publicUrl}/v1/chat/completions`, bomb, {
      headers: { 'content-encoding': encoding },
    })
    assert.equal(answer.status, 415, encoding)
    await answer.text()
  }
  assert.ok(process.memoryUsage().rss - before < 50 * 1024 * 1024)
  assert.equal(engine.received.length, 0)
})
