import assert from 'node:assert/strict'
import { mkdtemp, writeFile, copyFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { RouterError } from '../../src/errors.ts'
import { silentLog } from '../../src/telemetry/log.ts'
import { probePrompts, probeTokenizer } from '../../src/tokenize/probe.ts'
import { createPromptService, longBodyBytes, type PromptKind, type PromptService } from '../../src/tokenize/service.ts'
import { loadTokenizer } from '../../src/tokenize/tokenizer.ts'
import { tokenizerNamed, tokenizerPaths } from './tokenizers.ts'

const services: PromptService[] = []
after(() => Promise.all(services.map((service) => service.close())))

async function serviceWith(options: { threads?: number; queued?: number } = {}): Promise<PromptService> {
  const service = createPromptService({
    threads: 1,
    queued: 100,
    cacheBytes: 8 * 1024 * 1024,
    log: silentLog,
    ...options,
  })
  services.push(service)
  await service.add('demo', { path: tokenizerPaths.demo })
  return service
}

const bytes = (body: unknown): Buffer => Buffer.from(JSON.stringify(body))
const chat = (content: string, more: object = {}): Buffer =>
  bytes({ model: 'demo', messages: [{ role: 'user', content }], ...more })
const longText = 'All work and no play makes Jack a dull boy. '.repeat(1500)

async function codeOf(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => null,
    (reason: unknown) => reason,
  )
  assert.ok(error instanceof RouterError, String(error))
  return error.code
}

test('a body is read into fields and tokens, the same on a thread as on the loop', async () => {
  const service = await serviceWith()
  const tokenizer = await tokenizerNamed('demo')
  const more = {
    stream: true,
    stream_options: { include_usage: true },
    max_tokens: 5,
    n: 2,
    cache_salt: 's',
    priority: -1,
    session_id: 'i',
    user: 'u',
  }
  for (const content of ['Hi', longText]) {
    const body = chat(content, more)
    const read = await service.read(body, 'chat')
    assert.equal(read.held.kind, body.length >= longBodyBytes ? 'thread' : 'here')
    assert.deepEqual(read.fields, {
      model: 'demo',
      stream: true,
      includeUsage: true,
      n: 2,
      maxTokens: 5,
      cacheSalt: 's',
      sessionId: 'i',
      priority: -1,
      user: 'u',
      previousResponseId: null,
    })
    const range = read.ranges.get('max_tokens')
    assert.equal(body.toString('utf8', range?.start, range?.end), '5')
    const { prompts, unusable } = await service.tokens(read, 'demo')
    assert.equal(unusable, null)
    assert.deepEqual(
      prompts.map((prompt) => [...prompt]),
      [[...(await tokenizer.chat({ messages: [{ role: 'user', content }] }))]],
    )
  }
})

test('the next turn of a long conversation finds the cache of its thread', async () => {
  const service = await serviceWith({ threads: 3 })
  const messages = [{ role: 'user', content: longText }]
  const tokens = async (): Promise<number> =>
    (await service.tokens(await service.read(bytes({ model: 'demo', messages }), 'chat'), 'demo')).cachedTokens
  assert.equal(await tokens(), 0)
  messages.push({ role: 'assistant', content: 'Indeed.' }, { role: 'user', content: 'Go on.' })
  assert.ok((await tokens()) > 10_000)
})

test('completions take a text, texts, token ids or lists of them, and no mixture', async () => {
  const service = await serviceWith()
  const tokens = async (prompt: unknown, model = 'demo'): Promise<number[][]> => {
    const read = await service.read(bytes({ model, prompt }), 'completion')
    return (await service.tokens(read, 'demo')).prompts.map((ids) => [...ids])
  }
  const [[a], [b]] = [await tokens('Hello'), await tokens('World')]
  assert.deepEqual(await tokens(['Hello', 'World']), [a, b])
  assert.deepEqual(await tokens([1, 2, 3]), [[1, 2, 3]])
  assert.deepEqual(await tokens([[1], [2, 3]]), [[1], [2, 3]])
  assert.equal(await codeOf(tokens([1, 'a'])), 'TOKEN_ID_INVALID')
  assert.equal(await codeOf(tokens(['a', 1])), 'BODY_INVALID')
  assert.equal(await codeOf(tokens([[1], 'a'])), 'BODY_INVALID')
  for (const id of [-1, 1.5, 4096, 2 ** 40]) assert.equal(await codeOf(tokens([id])), 'TOKEN_ID_INVALID')
  for (const prompt of [[], {}, null]) assert.equal(await codeOf(tokens(prompt)), 'BODY_INVALID')
})

test('errors keep their code, field and status on the way from a thread', async () => {
  const service = await serviceWith()
  const padding = 'x'.repeat(longBodyBytes)
  const failing: [Buffer, PromptKind, string, string | null][] = [
    [Buffer.from(`{"a":"${padding}"`), 'chat', 'BODY_NOT_JSON', null],
    [bytes({ model: 1, messages: [], padding }), 'chat', 'BODY_INVALID', 'model'],
    [bytes({ model: 'demo', padding }), 'chat', 'BODY_INVALID', 'messages'],
    [Buffer.from(`{"model":"a","model":"${padding}"}`), 'completion', 'BODY_DUPLICATE_KEY', 'model'],
  ]
  for (const [body, kind, code, param] of failing) {
    await assert.rejects(service.read(body, kind), (error) => {
      assert.ok(error instanceof RouterError)
      assert.deepEqual([error.code, error.param, error.status], [code, param, 400])
      return true
    })
  }
  const read = await service.read(bytes({ model: 'demo', messages: [{ role: 1 }], padding }), 'chat')
  assert.equal(await codeOf(service.tokens(read, 'demo')), 'BODY_INVALID')
})

test('a pool without a tokenizer, and a request without a prompt, say so', async () => {
  const service = await serviceWith()
  const read = await service.read(chat('Hi'), 'chat')
  assert.equal((await service.tokens(read, 'other')).unusable, 'no_tokenizer')
  const other = await service.read(bytes({ model: 'demo', input: 'x' }), 'other')
  assert.equal((await service.tokens(other, 'demo')).unusable, 'no_prompt')
})

test('a full queue refuses long prompts, and short ones still go', async () => {
  const service = await serviceWith({ queued: 2 })
  const waiting = Array.from({ length: 8 }, () =>
    service.read(chat(longText), 'chat').then(
      () => 'read',
      (error: unknown) => (error as RouterError).code,
    ),
  )
  const read = await service.read(chat('Hi'), 'chat')
  assert.equal((await service.tokens(read, 'demo')).prompts.length, 1)
  const outcomes = await Promise.all(waiting)
  assert.ok(outcomes.includes('TOKENIZER_BUSY'))
  assert.ok(outcomes.includes('read'))
})

test('a thread that dies is started again, and bodies that it had read are sent again', async () => {
  const service = await serviceWith()
  const read = await service.read(chat(longText), 'chat')
  assert.equal(read.held.kind, 'thread')
  await read.held.ticket.thread.kill()
  const { prompts } = await service.tokens(read, 'demo')
  assert.equal(prompts.length, 1)
  assert.equal(service.stats().restarts, 1)
})

test('what runs on a thread that dies fails, what waits for it goes on', async () => {
  const service = await serviceWith()
  const first = await service.read(chat(longText), 'chat')
  const running = service.tokens(first, 'demo')
  const waiting = service.read(chat(longText), 'chat')
  if (first.held.kind === 'thread') void first.held.ticket.thread.kill()
  assert.equal(await codeOf(running), 'TOKENIZER_FAILED')
  assert.equal((await waiting).fields.model, 'demo')
})

test('tokenize and detokenize answer in the form of vLLM', async () => {
  const service = await serviceWith()
  const poolOf = (): { model: string; maxModelLength: number } => ({ model: 'demo', maxModelLength: 4096 })
  const { count, tokens, max_model_len } = await service.tokenize(
    bytes({ model: 'demo', prompt: 'Hello world' }),
    poolOf,
  )
  assert.deepEqual([count, max_model_len], [tokens.length, 4096])
  assert.deepEqual(await service.detokenize(bytes({ model: 'demo', tokens }), poolOf), { prompt: 'Hello world' })
  const asChat = await service.tokenize(bytes({ model: 'demo', messages: [{ role: 'user', content: 'Hi' }] }), poolOf)
  assert.equal(asChat.tokens[0], 1)
  assert.equal(await codeOf(service.detokenize(bytes({ model: 'demo', tokens: 'x' }), poolOf)), 'BODY_INVALID')
  assert.equal(await codeOf(service.detokenize(bytes({ model: 'demo', tokens: [99999] }), poolOf)), 'TOKEN_ID_INVALID')
})

test('a tokenizer that cannot be read names the file and what to do', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'tokenizer-'))
  await assert.rejects(loadTokenizer({ path: directory }), /tokenizer\.json does not exist\. Point "tokenizer" at/)
  await writeFile(join(directory, 'tokenizer.json'), '{')
  await assert.rejects(loadTokenizer({ path: directory }), /tokenizer\.json is not valid JSON/)
  await writeFile(join(directory, 'tokenizer.json'), '{"added_tokens":[],"model":{}}')
  await assert.rejects(loadTokenizer({ path: directory }), { code: 'TOKENIZER_UNREADABLE' })
  await copyFile(join(tokenizerPaths.demo, 'tokenizer.json'), join(directory, 'tokenizer.json'))
  const bare = await loadTokenizer({ path: directory })
  assert.throws(() => bare.renderChat({ messages: [{ role: 'user', content: 'a' }] }), { code: 'TEMPLATE_REFUSED' })
  await writeFile(join(directory, 'chat_template.jinja'), '{% for %}')
  await assert.rejects(loadTokenizer({ path: directory }), /chat template cannot be parsed/)
})

test('the probe tells equal, different with the first difference, and unverified apart', async () => {
  const tokenizer = await tokenizerNamed('demo')
  const honest = async (body: Readonly<Record<string, unknown>>): Promise<number[]> =>
    'messages' in body
      ? [...(await tokenizer.chat(body as { messages: unknown }))]
      : [...(await tokenizer.text(String(body['prompt']), body['add_special_tokens'] === true))]
  assert.deepEqual(await probeTokenizer(tokenizer, honest), { kind: 'equal', compared: probePrompts.length })
  const differing = await probeTokenizer(tokenizer, async (body) =>
    'messages' in body ? [...(await honest(body)), 7] : honest(body),
  )
  assert.ok(differing.kind === 'different')
  assert.deepEqual([differing.probe, differing.ours, differing.theirs], [2, null, 7])
  for (const reason of ['unsupported', 'unreachable'] as const) {
    assert.deepEqual(await probeTokenizer(tokenizer, () => Promise.resolve(reason)), { kind: 'unverified', reason })
  }
})
