import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import Fastify, { type FastifyInstance, type FastifyReply } from 'fastify'
import { RouterError } from '../errors.ts'
import type { Log } from '../telemetry/log.ts'
import { requestIdOf } from './client.ts'
import { asRouterError, errorBody, errorHeaders } from './errors.ts'

export interface ServerLimits {
  readonly bodyBytes: number
  readonly headerBytes: number
}

/** Paths keep their bodies as bytes: what is read of them is read by the pipeline, and they go on untouched. */
export function createServer(limits: ServerLimits, log: Log): FastifyInstance {
  const app = Fastify({
    logger: false,
    bodyLimit: limits.bodyBytes,
    requestIdHeader: false,
    return503OnClosing: false,
    forceCloseConnections: false,
    keepAliveTimeout: 75_000,
    http: { maxHeaderSize: limits.headerBytes },
    routerOptions: { maxParamLength: 512 },
    frameworkErrors: (error, request, reply: FastifyReply) => {
      const known = asRouterError(error)
      void reply
        .code(known.status)
        .headers(errorHeaders(known, requestIdOf(request.raw)))
        .send(errorBody(known))
    },
    clientErrorHandler: answerBrokenRequest,
  })
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
  app.addHook('onRequest', (request, _reply, done) => done(ambiguousTarget(request.raw)))
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split('?')[0] ?? ''
    const known = new RouterError(
      'PATH_NOT_FOUND',
      `There is no ${request.method} ${path} here; docs/http.md lists the paths`,
    )
    void reply
      .code(known.status)
      .headers(errorHeaders(known, requestIdOf(request.raw)))
      .send(errorBody(known))
  })
  app.setErrorHandler((error, request, reply) => {
    const known = asRouterError(error)
    if (known.code === 'INTERNAL') {
      log.error(
        { path: request.routeOptions.url, error: error instanceof Error ? error.stack : String(error) },
        'a request failed inside the router',
      )
    }
    void reply
      .code(known.status)
      .headers(errorHeaders(known, requestIdOf(request.raw)))
      .send(errorBody(known))
  })
  return app
}

/**
 * Two hosts, or one in the request line: proxies before and behind us may each believe another one. Node takes both
 * (RFC 9112, 3.2 asks for a 400 to the first).
 */
function ambiguousTarget(request: IncomingMessage): RouterError | undefined {
  let hosts = 0
  for (let i = 0; i < request.rawHeaders.length; i += 2) if (request.rawHeaders[i]?.toLowerCase() === 'host') hosts++
  if (hosts > 1) return new RouterError('HEADER_INVALID', 'The request names more than one host')
  if (request.url?.startsWith('/') !== true)
    return new RouterError('HEADER_INVALID', 'The request line must hold a path, not a whole URL')
  return undefined
}

/** What node refuses before there is a request: the parser's errors and heads that never end. */
function answerBrokenRequest(error: Error & { code?: string }, socket: Socket): void {
  if (socket.destroyed || !socket.writable || error.code === 'ECONNRESET') {
    socket.destroy()
    return
  }
  const known =
    error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
      ? new RouterError('HEADER_INVALID', 'The request head did not arrive in time')
      : asRouterError(Object.assign(error, { statusCode: 400 }))
  const body = errorBody(known)
  socket.end(
    `HTTP/1.1 ${known.status} ${known.status === 431 ? 'Request Header Fields Too Large' : 'Bad Request'}\r\n` +
      `content-type: application/json\r\nconnection: close\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  )
}
