import type { ServerResponse } from 'node:http'
import { RouterError, type ErrorCode } from '../errors.ts'
import type { Protocol } from '../protocol/protocol.ts'
import { protocols } from '../protocol/protocols.ts'

/** Errors for which another try by the client cannot help; SDKs obey `x-should-retry`. */
const final: ReadonlySet<ErrorCode> = new Set([
  'MODEL_NOT_FOUND',
  'PROMPT_TOO_LONG',
  'TEMPLATE_REFUSED',
  'PATH_NOT_FOUND',
  'RESPONSE_NOT_FOUND',
])

export function errorBody(error: RouterError, protocol: Protocol = protocols.openai): string {
  return protocol.errorBody(error)
}

export function errorHeaders(error: RouterError, requestId: string | null): Record<string, string> {
  return {
    'content-type': 'application/json',
    // Anthropic's SDK reads the second one; no other minds it.
    ...(requestId === null ? {} : { 'x-request-id': requestId, 'request-id': requestId }),
    ...(error.retryAfterSeconds === null ? {} : { 'retry-after': String(error.retryAfterSeconds) }),
    ...(final.has(error.code) ? { 'x-should-retry': 'false' } : {}),
  }
}

/** Answers with the error, or, where an answer has begun, cuts the connection: never a silent clean end. */
export function writeError(
  response: ServerResponse,
  error: RouterError,
  requestId: string,
  protocol: Protocol = protocols.openai,
): void {
  if (response.headersSent || response.destroyed) {
    response.destroy()
    return
  }
  const body = errorBody(error, protocol)
  response.writeHead(error.status, { ...errorHeaders(error, requestId), 'content-length': Buffer.byteLength(body) })
  response.end(body)
}

/** What fastify and node report about a request, as our own error. */
export function asRouterError(error: unknown): RouterError {
  if (error instanceof RouterError) return error
  const { code, statusCode, message } = (error ?? {}) as { code?: string; statusCode?: number; message?: string }
  switch (code) {
    case 'HPE_HEADER_OVERFLOW':
      return new RouterError(
        'HEADERS_TOO_LARGE',
        'The request head is larger than the configured limit (limits.headerBytes)',
      )
    case 'FST_ERR_BAD_URL':
      return new RouterError('PATH_NOT_FOUND', 'The path is not a valid URL path')
    default:
      if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
        return new RouterError('HEADER_INVALID', `The request is malformed: ${message ?? code ?? 'unknown reason'}`)
      }
      return new RouterError('INTERNAL', 'Warmroute failed to handle the request; the log has the reason', {
        cause: error,
      })
  }
}
