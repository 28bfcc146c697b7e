import type { AnthropicApi, Case } from './case.ts'
import { messagesBegun, messagesBody, messagesStream, text } from './bodies.ts'
import { data, first, json, raw, stream } from './wire.ts'

const soon = { 'retry-after-ms': '20' }

const told = (status: number, type: string) => ({
  type: 'error',
  error: { type, message: `The engine says ${status}` },
})

const statuses: Case<AnthropicApi>[] = (
  [
    [400, 'invalid_request_error', 'BadRequestError', 1],
    [401, 'authentication_error', 'AuthenticationError', 1],
    [403, 'permission_error', 'PermissionDeniedError', 1],
    [404, 'not_found_error', 'NotFoundError', 1],
    [413, 'request_too_large', 'ContentTooLargeError', 1],
    [429, 'rate_limit_error', 'RateLimitError', 3],
    [500, 'api_error', 'InternalServerError', 3],
    [503, 'overloaded_error', 'ServiceUnavailableError', 3],
    [529, 'overloaded_error', 'OverloadedError', 3],
  ] as const
).flatMap(([status, type, kind, tries]) => {
  const expected = { tries, error: { kind, status, type, message: `The engine says ${status}` } }
  const openAi = { error: { message: `The engine says ${status}`, type: 'EngineError', param: null, code: status } }
  return [
    {
      name: `${status} of an engine is raised as ${kind}`,
      api: 'messages',
      answer: json(status, told(status, type), soon),
      expected,
    },
    {
      name: `${status} of an engine in OpenAI’s form is raised as ${kind}`,
      api: 'messages',
      answer: json(status, openAi, soon),
      expected,
    },
  ]
})

const answers: Case<AnthropicApi>[] = [
  {
    name: 'FastAPI’s detail is read as the message',
    api: 'messages',
    answer: json(404, { detail: 'Not Found' }),
    expected: { error: { kind: 'NotFoundError', status: 404, message: 'Not Found', type: 'not_found_error' } },
  },
  {
    name: 'a page of a proxy becomes a message that a client can show',
    api: 'messages',
    answer: raw(502, '<html>Bad Gateway</html>', { 'content-type': 'text/html', ...soon }),
    expected: { tries: 3, error: { status: 502, message: 'status 502', type: 'api_error' } },
  },
  {
    name: 'an error without a body has a message',
    api: 'messages',
    answer: raw(500, '', soon),
    expected: { tries: 3, error: { status: 500, message: 'status 500', type: 'api_error' } },
  },
  {
    name: 'a redirect of an engine is a 502, and is not followed',
    api: 'messages',
    answer: raw(307, '', { location: '/elsewhere', ...soon }),
    expected: { tries: 3, error: { status: 502, message: 'redirect', type: 'api_error' } },
  },
  {
    name: 'x-should-retry: false of an engine is obeyed',
    api: 'messages',
    answer: json(503, told(503, 'overloaded_error'), { 'x-should-retry': 'false' }),
    expected: { error: { status: 503 } },
  },
  {
    name: 'retry-after of an engine is waited for',
    api: 'messages',
    answer: first(json(429, told(429, 'rate_limit_error'), { 'retry-after': '1' }), json(200, messagesBody)),
    expected: { tries: 2, text, atLeastMs: 990 },
  },
  {
    name: 'an unknown model is told once',
    api: 'messages',
    model: 'unknown',
    expected: { tries: 0, error: { kind: 'NotFoundError', status: 404, message: 'unknown', type: 'not_found_error' } },
  },
  {
    name: 'a model without a worker is 503, and each retry waits a second',
    api: 'messages',
    model: 'idle',
    expected: { tries: 0, error: { status: 503, type: 'overloaded_error' }, atLeastMs: 1990 },
  },
  {
    name: 'a good answer has its request id, whatever the engine says',
    api: 'messages',
    answer: json(200, messagesBody, { 'request-id': 'theirs', 'x-request-id': 'theirs' }),
    expected: { text, identified: true },
  },
]

const streams: Case<AnthropicApi>[] = (['messagesStream', 'messagesWrapper'] as const).flatMap((api) => {
  const way = api === 'messagesStream' ? 'iterator' : '.stream()'
  const died = { message: 'The worker', type: 'api_error' }
  return [
    {
      name: `a stream with pings, CRLF and one byte a segment is read (${way})`,
      api,
      answer: stream(`: ping\n\n${messagesStream.replace('Hel', 'Grüße 👩‍🔬 ').replaceAll('\n', '\r\n')}`, 'close', {
        bytesAtOnce: 1,
      }),
      expected: { text: 'Grüße 👩‍🔬 lo' },
    },
    {
      name: `message_stop ends a stream at once, though the engine leaves the connection open (${way})`,
      api,
      answer: stream(messagesStream, 'stayOpen'),
      expected: { text },
    },
    {
      name: `[DONE] after message_stop does no harm (${way})`,
      api,
      answer: stream(`${messagesStream}data: [DONE]\n\n`),
      expected: { text },
    },
    {
      name: `a stream that ends without message_stop is raised as cut (${way})`,
      api,
      answer: stream(messagesBegun),
      expected: { text: 'Hel', error: died },
    },
    {
      name: `a stream whose connection breaks is raised as cut (${way})`,
      api,
      answer: stream(messagesBegun, 'destroy'),
      expected: { text: 'Hel', error: died },
    },
    {
      name: `a stream that breaks within an event is raised as cut (${way})`,
      api,
      answer: stream(`${messagesBegun}event: content_block_delta\ndata: {"type":`, 'destroy'),
      expected: { text: 'Hel', error: died },
    },
    {
      name: `an error event of an engine is raised (${way})`,
      api,
      answer: stream(`${messagesBegun}event: error\ndata: ${JSON.stringify(told(500, 'api_error'))}\n\n`),
      expected: { text: 'Hel', error: { message: 'The engine says 500', type: 'api_error' } },
    },
    {
      name: `an error event in OpenAI’s form does not pass for a good end (${way})`,
      api,
      answer: stream(
        messagesBegun + data({ error: { message: 'No memory', type: 'x', param: null, code: 500 } }, '[DONE]'),
      ),
      expected: { text: 'Hel', error: { type: 'api_error' } },
    },
    {
      name: `an error in place of a stream is raised (${way})`,
      api,
      answer: json(529, told(529, 'overloaded_error'), soon),
      expected: { tries: 3, text: '', error: { kind: 'OverloadedError', status: 529 } },
    },
    {
      name: `a client that leaves is let go (${way})`,
      api,
      answer: stream(messagesBegun, 'stayOpen'),
      leaves: true,
      expected: { text: 'Hel' },
    },
  ]
})

/** For a client whose key is not among those of the router. */
export const wrongKeyCase: Case<AnthropicApi> = {
  name: 'a wrong key is told once, and never reaches an engine',
  api: 'messages',
  expected: { tries: 0, error: { kind: 'AuthenticationError', status: 401, type: 'authentication_error' } },
}

/** Cases for clients that speak Anthropic's API. */
export const anthropicCases: readonly Case<AnthropicApi>[] = [...statuses, ...answers, ...streams]
