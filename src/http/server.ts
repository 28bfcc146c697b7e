import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { RouterError } from '../errors.ts'
import type { Log } from '../telemetry/log.ts'
import { readBody, type BodyBudget } from './bodies.ts'
import { requestIdOf } from './client.ts'
import { protocolOf } from './endpoints.ts'
import { asRouterError, errorBody, errorHeaders } from './errors.ts'
import { bodyPending, headFault } from './head.ts'
import { continueIfAwaited, createListener, type TlsFiles } from './listener.ts'
import { answerBroken, refuseUnread } from './refusal.ts'

export interface ServerOptions {
  readonly limits: {
    readonly bodyBytes: number
    readonly headerBytes: number
    readonly headers: number
    readonly connections: number
  }
  readonly timeouts: {
    readonly headersMs: number
    readonly requestMs: number
    readonly keepAliveMs: number
    readonly lingerMs: number
  }
  readonly tls: TlsFiles | null
  /** Memory for the bodies of this server's requests. */
  readonly bodies: BodyBudget
  readonly log: Log
  /** Whether a request is let in at all; asked before its body is read. */
  readonly admit?: (request: IncomingMessage) => RouterError | undefined
  /** Told of each request that is refused before its body was read: the error's code; `connections` for a connection. */
  readonly onRefused: (reason: string) => void
}

declare module 'fastify' {
  interface FastifyRequest {
    /** The answer to this very request; its end is the end of what the request holds. */
    answer: ServerResponse
  }
  interface FastifyInstance {
    /** Reads the body of a request whose head was let in, as bytes; an error is what the client is to be told. */
    takeBody(request: FastifyRequest, done: (error: RouterError | null, body?: Buffer) => void): void
  }
}

/** Paths keep their bodies as bytes: what is read of them is read by the pipeline, and they go on untouched. */
export function createServer(options: ServerOptions): FastifyInstance {
  const { limits, timeouts, onRefused } = options
  /** The latest answer of each connection. */
  const exchanges = new WeakMap<Socket, ServerResponse>()
  const app = Fastify({
    logger: false,
    requestIdHeader: false,
    return503OnClosing: false,
    forceCloseConnections: false,
    serverFactory: (handler) => createListener(handler, { ...limits, ...timeouts }, options.tls),
    routerOptions: { maxParamLength: 512 },
    frameworkErrors: (error, request, reply: FastifyReply) => answerError(error, request, reply),
    clientErrorHandler: (error, socket) => {
      const code = answerBroken(error, socket, exchanges.get(socket))
      if (code !== null) onRefused(code.toLowerCase())
    },
  })
  app.server.on('drop', () => onRefused('connections'))

  app.decorateRequest('answer')
  app.addHook('onRequest', (request, reply, done) => {
    request.answer = reply.raw
    exchanges.set(request.raw.socket, reply.raw)
    // A path that does not exist is refused here and not by its handler, which would come after the body.
    const fault =
      headFault(request.raw, limits) ??
      options.admit?.(request.raw) ??
      (request.is404 ? pathNotFound(request) : undefined)
    if (fault !== undefined) onRefused(fault.code.toLowerCase())
    done(fault)
  })
  app.removeAllContentTypeParsers()
  app.decorate(
    'takeBody',
    (request: FastifyRequest, done: (error: RouterError | null, body?: Buffer) => void): void => {
      continueIfAwaited(request.answer)
      readBody(request.raw, request.answer, { bodyBytes: limits.bodyBytes, budget: options.bodies }, (error, body) => {
        // A connection that ended was not refused by anybody.
        if (error !== null && error.code !== 'BODY_INVALID') onRefused(error.code.toLowerCase())
        done(error, body)
      })
    },
  )
  app.addContentTypeParser('*', (request, _payload, done) => app.takeBody(request, done))
  app.setNotFoundHandler((request, reply) => answerError(pathNotFound(request), request, reply))
  app.setErrorHandler((error, request, reply) => {
    const known = asRouterError(error)
    if (known.code === 'INTERNAL') {
      options.log.error(
        { path: request.routeOptions.url, error: error instanceof Error ? error.stack : String(error) },
        'a request failed inside the router',
      )
    }
    answerError(known, request, reply)
  })

  function answerError(error: unknown, request: FastifyRequest, reply: FastifyReply): void {
    const known = asRouterError(error)
    const requestId = requestIdOf(request.raw)
    if (bodyPending(request.raw) && !reply.raw.headersSent && !reply.raw.destroyed) {
      void reply.hijack()
      refuseUnread(reply.raw, known, requestId, { lingerMs: timeouts.lingerMs, lingerBytes: limits.bodyBytes })
      return
    }
    void reply
      .code(known.status)
      .headers(errorHeaders(known, requestId))
      .send(errorBody(known, protocolOf(request.url)))
  }
  return app
}

function pathNotFound(request: FastifyRequest): RouterError {
  const path = request.url.split('?')[0] ?? ''
  return new RouterError('PATH_NOT_FOUND', `There is no ${request.method} ${path} here; docs/http.md lists the paths`)
}
