import { RouterError } from '../errors.ts'
import type { Protocol, UpstreamError } from './protocol.ts'

/** OpenAI's nested error, in the order of fields that vLLM writes. */
function openAiErrorBody(error: RouterError): string {
  const { message, type, param, code } = error
  return JSON.stringify({ error: { message, type, param, code: code.toLowerCase() } })
}

/** As vLLM 0.32 names them. */
const typesByStatus: Readonly<Record<number, string>> = {
  400: 'BadRequestError',
  401: 'AuthenticationError',
  403: 'PermissionDeniedError',
  404: 'NotFoundError',
  422: 'UnprocessableEntityError',
  429: 'RateLimitError',
  503: 'ServiceUnavailableError',
  529: 'OverloadedError',
}

function openAiUpstreamErrorBody({ status, message, param, type }: UpstreamError): string {
  const known = type ?? typesByStatus[status] ?? (status < 500 ? 'BadRequestError' : 'InternalServerError')
  return JSON.stringify({ error: { message, type: known, param, code: status } })
}

/** A client reads message, type, param and code out of an `error` object; anything else loses the message in some client. */
function hasNestedError(body: Readonly<Record<string, unknown>>): boolean {
  const { error } = body
  return (
    typeof error === 'object' && error !== null && typeof (error as Record<string, unknown>)['message'] === 'string'
  )
}

/** /v1/chat/completions, /v1/completions and everything else in OpenAI's style. */
export const openAi: Protocol = {
  name: 'openai',
  errorBody: openAiErrorBody,
  upstreamErrorBody: openAiUpstreamErrorBody,
  hasErrorForm: hasNestedError,
  // The error first and the mark last, as vLLM orders them.
  deathNote: (error) => `data: ${openAiErrorBody(error)}\n\ndata: [DONE]\n\n`,
  firstToken: null,
  lastEvents: ['data: [DONE]', 'data:[DONE]'],
}
