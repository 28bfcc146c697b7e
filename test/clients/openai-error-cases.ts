import { chat, text } from './bodies.ts'
import type { Case, OpenAiApi } from './case.ts'
import { first, json, raw } from './wire.ts'

/** Clients that are told to wait 20 ms try again so soon that a test can wait for it. */
const soon = { 'retry-after-ms': '20' }

const nested = (status: number) => ({
  error: { message: `The engine says ${status}`, type: 'EngineError', param: 'model', code: status },
})

const kinds: Readonly<Record<number, string>> = {
  400: 'BadRequestError',
  401: 'AuthenticationError',
  403: 'PermissionDeniedError',
  404: 'NotFoundError',
  409: 'ConflictError',
  422: 'UnprocessableEntityError',
  429: 'RateLimitError',
  500: 'InternalServerError',
  502: 'InternalServerError',
  503: 'InternalServerError',
  504: 'InternalServerError',
  529: 'InternalServerError',
}

const retried = (status: number): boolean => status === 408 || status === 409 || status === 429 || status >= 500

const statuses: Case<OpenAiApi>[] = [400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529].map(
  (status) => {
    const kind = kinds[status]
    return {
      name: `${status} of an engine is raised as such, after ${retried(status) ? 'two retries' : 'one try'}`,
      api: 'chat',
      answer: json(status, nested(status), soon),
      expected: {
        tries: retried(status) ? 3 : 1,
        error: {
          ...(kind === undefined ? {} : { kind }),
          status,
          message: `The engine says ${status}`,
          type: 'EngineError',
          param: 'model',
          code: `${status}`,
        },
      },
    }
  },
)

const forms: Case<OpenAiApi>[] = [
  {
    name: 'SGLang’s flat error is read with all its fields',
    api: 'chat',
    answer: json(400, {
      object: 'error',
      message: 'Too many tokens',
      type: 'BadRequest',
      param: 'messages',
      code: 400,
    }),
    expected: {
      error: {
        kind: 'BadRequestError',
        status: 400,
        message: 'Too many tokens',
        type: 'BadRequest',
        param: 'messages',
      },
    },
  },
  {
    name: 'FastAPI’s detail is read as the message',
    api: 'chat',
    answer: json(404, { detail: 'Not Found' }),
    expected: { error: { kind: 'NotFoundError', status: 404, message: 'Not Found', type: 'NotFoundError' } },
  },
  {
    name: 'FastAPI’s list of faults is read as one message',
    api: 'chat',
    answer: json(422, { detail: [{ type: 'missing', loc: ['body', 'messages'], msg: 'Field required', input: {} }] }),
    expected: {
      error: { kind: 'UnprocessableEntityError', status: 422, message: 'messages: Field required', param: 'messages' },
    },
  },
  {
    name: 'an error that is a bare text is read as the message',
    api: 'chat',
    answer: json(401, { error: 'Unauthorized' }),
    expected: {
      error: {
        kind: 'AuthenticationError',
        status: 401,
        message: 'Unauthorized',
        type: 'AuthenticationError',
        code: '401',
      },
    },
  },
  {
    name: 'a page of a proxy becomes a message that a client can show',
    api: 'chat',
    answer: raw(502, '<html><h1>Bad Gateway</h1></html>', { 'content-type': 'text/html', ...soon }),
    expected: { tries: 3, error: { kind: 'InternalServerError', status: 502, message: 'status 502', code: '502' } },
  },
  {
    name: 'an error without a body has a message',
    api: 'chat',
    answer: raw(500, '', soon),
    expected: { tries: 3, error: { kind: 'InternalServerError', status: 500, message: 'status 500', code: '500' } },
  },
  {
    name: 'an error that begins where a stream was asked for is raised',
    api: 'chatStream',
    answer: json(400, { object: 'error', message: 'Too many tokens', type: 'BadRequest', param: null, code: 400 }),
    expected: { error: { kind: 'BadRequestError', status: 400, message: 'Too many tokens' } },
  },
  {
    name: 'an error with status 200 gets the status that it names',
    api: 'chat',
    answer: json(200, { error: { message: 'Bad schema', type: 'BadRequestError', param: null, code: 400 } }),
    expected: { error: { kind: 'BadRequestError', status: 400, message: 'Bad schema' } },
  },
  {
    name: 'a flat error with status 200 and no code is a 502',
    api: 'chat',
    answer: json(200, { object: 'error', message: 'Out of memory' }, soon),
    expected: { tries: 3, error: { kind: 'InternalServerError', status: 502, message: 'Out of memory' } },
  },
  {
    name: 'an error with status 200 in place of a stream is raised',
    api: 'chatStream',
    answer: json(200, { error: { message: 'Bad schema', type: 'BadRequestError', param: null, code: 400 } }),
    expected: { error: { kind: 'BadRequestError', status: 400, message: 'Bad schema' } },
  },
  {
    name: 'a redirect of an engine is a 502, and is not followed',
    api: 'chat',
    answer: raw(307, '', { location: '/elsewhere', ...soon }),
    expected: { tries: 3, error: { kind: 'InternalServerError', status: 502, message: 'redirect' } },
  },
]

const retries: Case<OpenAiApi>[] = [
  {
    name: 'retry-after of an engine is waited for',
    api: 'chat',
    answer: first(json(429, nested(429), { 'retry-after': '1' }), json(200, chat)),
    expected: { tries: 2, text, atLeastMs: 990 },
  },
  {
    name: 'a date as retry-after of an engine is waited for',
    api: 'chat',
    answer: first(
      (response, tries) => {
        // Dates are whole seconds: between one and two from now.
        const date = new Date(Date.now() + 2000).toUTCString()
        json(429, nested(429), { 'retry-after': date })(response, tries)
      },
      json(200, chat),
    ),
    expected: { tries: 2, text, atLeastMs: 900 },
  },
  {
    name: 'retry-after-ms of an engine is waited for',
    api: 'chat',
    answer: first(json(503, nested(503), { 'retry-after-ms': '50' }), json(200, chat)),
    // By themselves clients wait 375 ms or more.
    expected: { tries: 2, text, atLeastMs: 49 },
  },
  {
    name: 'an engine that is too busy and says no time is given a second',
    api: 'chat',
    answer: first(json(529, nested(529)), json(200, chat)),
    expected: { tries: 2, text, atLeastMs: 990 },
  },
  {
    name: 'x-should-retry: false of an engine is obeyed',
    api: 'chat',
    answer: json(503, nested(503), { 'x-should-retry': 'false' }),
    expected: { tries: 1, error: { status: 503, message: 'The engine says 503' } },
  },
  {
    name: 'x-should-retry: true of an engine is obeyed',
    api: 'chat',
    answer: first(json(400, nested(400), { 'x-should-retry': 'true', ...soon }), json(200, chat)),
    expected: { tries: 2, text },
  },
  {
    name: 'an engine that closes the connection is tried again by the router, then by the client',
    api: 'chat',
    answer: (response) => response.destroy(),
    // Each try of the client is sent on once more: the connection might have been an idle one that was just closing.
    expected: { tries: 6, error: { kind: 'InternalServerError', status: 502, code: 'upstream_unreachable' } },
  },
]

const own: Case<OpenAiApi>[] = [
  {
    name: 'an unknown model is told once',
    api: 'chat',
    model: 'unknown',
    expected: {
      tries: 0,
      error: { kind: 'NotFoundError', status: 404, message: '"unknown"', code: 'model_not_found', param: 'model' },
    },
  },
  {
    name: 'an unknown model of the Responses API is told once',
    api: 'responses',
    model: 'unknown',
    expected: { tries: 0, error: { kind: 'NotFoundError', status: 404, code: 'model_not_found', param: 'model' } },
  },
  {
    name: 'a path that is not served is told once',
    api: 'image',
    expected: { tries: 0, error: { kind: 'NotFoundError', status: 404, code: 'path_not_found' } },
  },
  {
    name: 'a model without a worker is 503, and each retry waits a second',
    api: 'chat',
    model: 'idle',
    expected: { tries: 0, error: { kind: 'InternalServerError', status: 503, code: 'no_worker' }, atLeastMs: 1990 },
  },
]

/** For a client whose key is not among those of the router. */
export const wrongKeyCase: Case<OpenAiApi> = {
  name: 'a wrong key is told once, and never reaches an engine',
  api: 'chat',
  expected: {
    tries: 0,
    error: { kind: 'AuthenticationError', status: 401, type: 'AuthenticationError', code: 'authentication_failed' },
  },
}

/** What clients of OpenAI's API make of errors: those of engines, whole, and the router's own. */
export const openAiErrorCases: readonly Case<OpenAiApi>[] = [...statuses, ...forms, ...retries, ...own]
