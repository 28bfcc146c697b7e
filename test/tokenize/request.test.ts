import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RouterError } from '../../src/errors.ts'
import { scanBody } from '../../src/tokenize/body.ts'
import { promptSource } from '../../src/tokenize/prompt-source.ts'
import { requestFields, type PromptKind, type RequestFields } from '../../src/tokenize/request.ts'

const absent: RequestFields = {
  model: '',
  stream: false,
  includeUsage: false,
  n: 1,
  maxTokens: null,
  cacheSalt: null,
  sessionId: null,
  priority: 0,
  user: null,
  previousResponseId: null,
}

function refused(act: () => unknown): { code: string; param: string | null } {
  try {
    act()
  } catch (error) {
    assert.ok(error instanceof RouterError)
    assert.equal(error.status, 400)
    return { code: error.code, param: error.param }
  }
  return assert.fail('the body was accepted')
}

test('a body without any fields has them all by default, whatever its kind', () => {
  const kinds = [
    'chat',
    'completion',
    'messages',
    'responses',
    'generate',
    'sglang-generate',
    'tokenize',
    'other',
  ] as const
  for (const kind of kinds) assert.deepEqual(requestFields({}, kind), absent)
})

test('each kind reads its own limit of tokens and its own count of answers', () => {
  const limits = { max_tokens: 1, max_completion_tokens: 2, max_output_tokens: 3, n: 4 }
  const asked = (body: object, kind: PromptKind): [number, number | null] => {
    const fields = requestFields(body as Record<string, unknown>, kind)
    return [fields.n, fields.maxTokens]
  }
  assert.deepEqual(asked(limits, 'chat'), [4, 2])
  assert.deepEqual(asked(limits, 'messages'), [1, 1])
  assert.deepEqual(asked(limits, 'responses'), [1, 3])
  assert.deepEqual(asked({ ...limits, sampling_params: { max_tokens: 5, n: 2 } }, 'generate'), [2, 5])
  assert.deepEqual(asked({ ...limits, sampling_params: { max_new_tokens: 6, n: 3 } }, 'sglang-generate'), [3, 6])
  const several = [{ max_new_tokens: 6 }, { max_new_tokens: 9, n: 2 }, 'odd']
  assert.deepEqual(asked({ sampling_params: several }, 'sglang-generate'), [2, 9])
  assert.deepEqual(asked({ sampling_params: { max_new_tokens: 'many' } }, 'sglang-generate'), [1, null])
  const wrong = refused(() => requestFields({ sampling_params: { max_tokens: 'many' } }, 'generate'))
  assert.deepEqual(wrong, { code: 'BODY_INVALID', param: 'sampling_params.max_tokens' })
})

test('fields that the engine does not read in a body of /v1/messages count for nothing there', () => {
  const body = { model: 'm', stream: true, cache_salt: 's', priority: -5, session_id: 7, user: 'a' }
  assert.deepEqual(requestFields({ ...body, metadata: { user_id: 'u' } }, 'messages'), {
    ...absent,
    model: 'm',
    stream: true,
    cacheSalt: 's',
    user: 'u',
  })
})

test('only a body of /v1/responses goes on from an earlier response, and then its prompt is not known', () => {
  const body = { model: 'm', input: 'Hi', previous_response_id: 'resp_1' }
  assert.equal(requestFields(body, 'responses').previousResponseId, 'resp_1')
  assert.equal(requestFields(body, 'chat').previousResponseId, null)
  assert.equal(promptSource(body, 'responses').kind, 'none')
  assert.equal(promptSource({ ...body, previous_response_id: null }, 'responses').kind, 'responses')
  assert.equal(refused(() => requestFields({ ...body, previous_response_id: 1 }, 'responses')).code, 'BODY_INVALID')
})

test('token ids for vLLM are taken as they are, and media beside them leave the prompt unknown', () => {
  const ids = promptSource({ token_ids: [1, 2, 3] }, 'generate')
  assert.deepEqual(ids, { kind: 'ids', prompts: [Uint32Array.of(1, 2, 3)], param: 'token_ids' })
  assert.equal(promptSource({ token_ids: [1], features: {} }, 'generate').kind, 'none')
  assert.equal(promptSource({ token_ids: [1], content_parts: [{}] }, 'generate').kind, 'none')
  assert.equal(promptSource({ token_ids: [1], features: null }, 'generate').kind, 'ids')
  for (const token_ids of [undefined, null, [], 'x']) {
    assert.equal(refused(() => promptSource({ token_ids }, 'generate')).param, 'token_ids')
  }
  assert.equal(refused(() => promptSource({ token_ids: [-1] }, 'generate')).code, 'TOKEN_ID_INVALID')
})

test('SGLang takes ids before texts, one prompt or several, and refuses itself what is neither', () => {
  const source = (body: object): unknown => promptSource(body as Record<string, unknown>, 'sglang-generate')
  const texts = (...texts: string[]): object => ({ kind: 'texts', texts, addSpecialTokens: true })
  assert.deepEqual(source({ text: 'Hi' }), texts('Hi'))
  assert.deepEqual(source({ text: ['a', 'b'] }), texts('a', 'b'))
  const ids = { kind: 'ids', param: 'input_ids' }
  assert.deepEqual(source({ input_ids: [1, 2], text: 'Hi' }), { ...ids, prompts: [Uint32Array.of(1, 2)] })
  assert.deepEqual(source({ input_ids: [[1], [2, 3]] }), { ...ids, prompts: [Uint32Array.of(1), Uint32Array.of(2, 3)] })
  const unknown = [{}, { text: 1 }, { text: [] }, { text: ['a', 1] }, { input_ids: 'x' }, { input_ids: [[1], 2] }]
  for (const body of unknown) assert.deepEqual(source(body), { kind: 'none' })
  for (const more of [{ image_data: 'x' }, { lora_path: 'a' }, { cache_salt: ['a'] }]) {
    assert.deepEqual(source({ text: ['Hi'], ...more }), { kind: 'none' })
  }
  assert.equal(requestFields({ text: ['Hi'], cache_salt: ['a'] }, 'sglang-generate').cacheSalt, null)
})

test('nothing is predicted of a chat or completion with what engines read differently', () => {
  const messages = [{ role: 'user', content: 'Hi' }]
  for (const more of [{ lora_path: 'sql' }, { extra_key: 'tenant' }]) {
    assert.deepEqual(promptSource({ messages, ...more }, 'chat'), { kind: 'none' })
    assert.deepEqual(promptSource({ prompt: 'Hi', ...more }, 'completion'), { kind: 'none' })
  }
  assert.deepEqual(promptSource({ messages, input_ids: [1, 2] }, 'chat'), { kind: 'none' })
  assert.equal(promptSource({ messages, lora_path: null, input_ids: null }, 'chat').kind, 'chat')
})

test('every field that decides what is tokenized may stand in a body once', () => {
  for (const key of ['token_ids', 'input_ids', 'text', 'system', 'input', 'thinking', 'sampling_params', 'reasoning']) {
    const body = Buffer.from(`{"model":"m","${key}":[1],"${key}":[2]}`)
    assert.deepEqual(
      refused(() => scanBody(body)),
      { code: 'BODY_DUPLICATE_KEY', param: key },
    )
  }
})
