import { STATUS_CODES, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { RouterError } from '../errors.ts'
import { protocolOf } from './endpoints.ts'
import { asRouterError, errorBody, errorHeaders } from './errors.ts'

/**
 * Refuses a request whose body is still coming. The whole answer is written at once, and the rest of the body is thrown
 * away for a while before the connection closes: a socket closed with unread bytes is reset, and the reset may overtake the
 * answer (RFC 9112, 9.6).
 */
export function refuseUnread(
  response: ServerResponse,
  error: RouterError,
  requestId: string,
  linger: { readonly lingerMs: number; readonly lingerBytes: number },
): void {
  const request = response.req
  const body = errorBody(error, protocolOf(request.url ?? ''))
  response.writeHead(error.status, {
    ...errorHeaders(error, requestId),
    connection: 'close',
    'content-length': Buffer.byteLength(body),
  })
  response.write(body)
  let leftBytes = linger.lingerBytes
  const end = (): void => {
    clearTimeout(timer)
    response.end()
  }
  const timer = setTimeout(end, linger.lingerMs)
  request.on('data', (chunk: Buffer) => {
    leftBytes -= chunk.length
    if (leftBytes < 0) end()
  })
  request.once('end', end)
  request.once('error', end)
  request.once('close', end)
  request.resume()
}

/**
 * Answers what node refuses before or while it parses: malformed heads and chunks, heads too large, requests too slow.
 * `exchange` is the latest response of the connection, if it had any.
 *
 * @returns the error's code, or null where nothing could be said
 */
export function answerBroken(
  error: Error & { readonly code?: string },
  socket: Duplex,
  exchange: ServerResponse | undefined,
): string | null {
  if (socket.destroyed || !socket.writable || mayNotBeAnswered(error.code)) {
    socket.destroy()
    return null
  }
  const known = brokenRequest(error)
  const open = exchange !== undefined && !exchange.writableFinished ? exchange : null
  const body = errorBody(known, protocolOf(open?.req.url ?? ''))
  if (open === null) {
    socket.end(
      `HTTP/1.1 ${known.status} ${STATUS_CODES[known.status] ?? ''}\r\ncontent-type: application/json\r\n` +
        `connection: close\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    )
    return known.code
  }
  // What is broken is the body of the open exchange, or a request pipelined behind it, which would spoil its answer.
  if (open.headersSent || open.req.complete) {
    socket.destroy()
    return null
  }
  open.writeHead(known.status, {
    ...errorHeaders(known, null),
    connection: 'close',
    'content-length': Buffer.byteLength(body),
  })
  open.end(body)
  return known.code
}

function brokenRequest(error: Error & { readonly code?: string }): RouterError {
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') {
    return new RouterError(
      'REQUEST_TIMEOUT',
      'The request did not arrive in time (timeouts.headersMs, timeouts.requestMs)',
    )
  }
  return asRouterError(Object.assign(error, { statusCode: 400 }))
}

/** Nobody listens any more, or the peer never got through the TLS handshake. */
function mayNotBeAnswered(code = ''): boolean {
  return code === 'ECONNRESET' || code === 'EPIPE' || code.startsWith('ERR_SSL_') || code.startsWith('ERR_TLS_')
}

/** Refuses what is no request to this server at all, on the bare socket: CONNECT. */
export function refuseConnect(_request: IncomingMessage, socket: Duplex): void {
  socket.on('error', () => socket.destroy())
  const body = errorBody(new RouterError('PATH_NOT_FOUND', 'There is no CONNECT here; this is no forward proxy'))
  socket.end(
    `HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\nconnection: close\r\n` +
      `content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  )
}
