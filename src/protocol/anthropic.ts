import type { RouterError } from '../errors.ts'
import type { Protocol, UpstreamError } from './protocol.ts'

const typesByStatus: Readonly<Record<number, string>> = {
  400: 'invalid_request_error',
  401: 'authentication_error',
  403: 'permission_error',
  404: 'not_found_error',
  413: 'request_too_large',
  415: 'invalid_request_error',
  429: 'rate_limit_error',
  503: 'overloaded_error',
  529: 'overloaded_error',
}

function typeOf(status: number): string {
  return typesByStatus[status] ?? (status < 500 ? 'invalid_request_error' : 'api_error')
}

function bodyOf(status: number, message: string): string {
  return JSON.stringify({ type: 'error', error: { type: typeOf(status), message } })
}

/** Anthropic's /v1/messages. */
export const anthropic: Protocol = {
  name: 'anthropic',
  errorBody: ({ status, message }: RouterError) => bodyOf(status, message),
  upstreamErrorBody: ({ status, message }: UpstreamError) => bodyOf(status, message),
  hasErrorForm({ type, error }) {
    if (type !== 'error' || typeof error !== 'object' || error === null) return false
    const { type: kind, message } = error as Record<string, unknown>
    return typeof kind === 'string' && typeof message === 'string'
  },
  // Without the event's name the SDK's iterator would take the error for nothing.
  deathNote: ({ status, message }) => `event: error\ndata: ${bodyOf(status, message)}\n\n`,
  firstToken: null,
  lastEvents: ['event: message_stop', 'event: error'],
}
