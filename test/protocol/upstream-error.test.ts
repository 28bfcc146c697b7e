import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RouterError } from '../../src/errors.ts'
import { protocols } from '../../src/protocol/protocols.ts'
import { rewrittenError, statusOfErrorBody } from '../../src/protocol/upstream-error.ts'

const { openai, anthropic, responses, plain } = protocols
const rewritten = (status: number, body: unknown, protocol = openai): unknown => {
  const text = rewrittenError(
    protocol,
    status,
    Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)),
    true,
  )
  return text === null ? null : (JSON.parse(text) as unknown)
}

test('an error in the client’s form goes on as it is', () => {
  assert.equal(rewritten(400, { error: { message: 'no', type: 'BadRequestError', param: null, code: 400 } }), null)
  assert.equal(rewritten(400, { error: { message: 'no' }, more: 1 }), null)
  assert.equal(
    rewritten(400, { type: 'error', error: { type: 'invalid_request_error', message: 'no' } }, anthropic),
    null,
  )
})

test('SGLang’s flat error, FastAPI’s detail, a bare text and HTML become OpenAI’s form', () => {
  assert.deepEqual(
    rewritten(400, { object: 'error', message: 'too long', type: 'BadRequest', param: 'input', code: 400 }),
    {
      error: { message: 'too long', type: 'BadRequest', param: 'input', code: 400 },
    },
  )
  assert.deepEqual(rewritten(404, { detail: 'Not Found' }), {
    error: { message: 'Not Found', type: 'NotFoundError', param: null, code: 404 },
  })
  assert.deepEqual(rewritten(401, { error: 'Unauthorized' }), {
    error: { message: 'Unauthorized', type: 'AuthenticationError', param: null, code: 401 },
  })
  for (const body of ['<html>Bad Gateway</html>', '', '[]', '"x"', '{"error":null}', '{"error":{"message":5}}'])
    assert.deepEqual(rewritten(502, body), {
      error: { message: 'The worker answered with status 502', type: 'InternalServerError', param: null, code: 502 },
    })
})

test('a validation error names the field and never repeats the input', () => {
  const detail = [
    {
      type: 'int_parsing',
      loc: ['body', 'messages', 0, 'content'],
      msg: 'Input should be a string',
      input: 'secret prompt',
    },
    { loc: ['body'], msg: 'Field required' },
  ]
  assert.deepEqual(rewritten(422, { detail }), {
    error: {
      message: 'messages.0.content: Input should be a string; Field required',
      type: 'UnprocessableEntityError',
      param: 'messages.0.content',
      code: 422,
    },
  })
})

test('an OpenAI error becomes Anthropic’s on the paths of its API', () => {
  assert.deepEqual(
    rewritten(404, { error: { message: 'no such model', type: 'NotFoundError', code: 404 } }, anthropic),
    {
      type: 'error',
      error: { type: 'not_found_error', message: 'no such model' },
    },
  )
})

test('a body that was cut is not read', () => {
  const body = Buffer.from('{"error":{"message":"half')
  assert.match(rewrittenError(openai, 500, body, false) ?? '', /The worker answered with status 500/)
})

test('a 200 that holds an error has that error’s status', () => {
  const status = (body: unknown): number | null => statusOfErrorBody(Buffer.from(JSON.stringify(body)))
  assert.equal(status({ error: { message: 'no', code: 404 } }), 404)
  assert.equal(status({ object: 'error', message: 'no', code: 400 }), 400)
  assert.equal(status({ error: { message: 'no', code: 'x' } }), 502)
  assert.equal(status({ error: null, id: 'resp_1', status: 'completed' }), null)
  assert.equal(status({ error: { message: 'odd' }, choices: [] }), null)
})

test('every protocol tells of a death by an event that clients throw on', () => {
  const error = new RouterError('UPSTREAM_DIED', 'gone')
  for (const protocol of [openai, plain]) {
    assert.equal(
      protocol.deathNote(error),
      'data: {"error":{"message":"gone","type":"InternalServerError","param":null,"code":"upstream_died"}}\n\ndata: [DONE]\n\n',
    )
  }
  assert.equal(
    anthropic.deathNote(error),
    'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"gone"}}\n\n',
  )
  const [event = '', data = ''] = responses.deathNote(error).split('\n')
  assert.equal(event, 'event: error')
  const told = JSON.parse(data.slice(6)) as { type: string; message: string; error: { message: string } }
  assert.deepEqual([told.type, told.message, told.error.message], ['error', 'gone', 'gone'])
})
