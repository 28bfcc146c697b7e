import type { FastifyInstance, FastifyReply, FastifyRequest, onRequestHookHandler } from 'fastify'
import { anonymous, mayUse, type Caller } from '../admission/caller.ts'
import { RouterError } from '../errors.ts'
import type { Endpoint, Incoming, Pipeline } from '../pipeline.ts'
import { modelTarget } from '../pipeline/model-target.ts'
import type { PromptService } from '../tokenize/service.ts'
import type { Pool, Pools } from '../workers/pool.ts'
import { isTrusted, requestIdOf, shortHeader, type Exposure } from './client.ts'
import { endpoints, storedResponses } from './endpoints.ts'
import { asRouterError, errorBody, errorHeaders, writeError } from './errors.ts'
import { forwardedOf, type TrustedProxies } from './forwarded.ts'

export interface PublicPorts {
  readonly pipeline: Pipeline
  readonly pools: Pools
  readonly prompts: PromptService
  readonly exposure: Exposure
  readonly proxies: TrustedProxies
  /** Who sends these headers. @throws RouterError AUTHENTICATION_FAILED */
  readonly authenticate: (headers: FastifyRequest['headers']) => Caller
  readonly ready: () => boolean
  readonly draining: () => boolean
  /** Told of what failed inside the router, never of a client's own mistakes. */
  readonly onInternalError: (error: unknown, requestId: string) => void
}

declare module 'fastify' {
  interface FastifyRequest {
    caller: Caller
  }
}

/** The public port: an allow-list of the paths that clients of inference use. */
export function addPublicRoutes(app: FastifyInstance, ports: PublicPorts): void {
  app.decorateRequest('caller')
  app.get('/health', (_request, reply) => reply.code(ports.ready() ? 200 : 503).send())
  void app.register((guarded, _options, done) => {
    // Before the body is read: who may not send one need not be listened to.
    guarded.addHook('onRequest', (request, _reply, next) => next(admit(ports, request)))
    addGuardedRoutes(guarded, ports)
    done()
  })
}

function addGuardedRoutes(app: FastifyInstance, ports: PublicPorts): void {
  const { pipeline, pools, prompts } = ports
  for (const endpoint of endpoints) {
    // Taken over before fastify would find a parser and a handler: of all that, requests whose bodies stay bytes need nothing.
    const onRequest: onRequestHookHandler = (request, reply, done) => {
      app.takeBody(request, (error, body) => {
        if (error !== null) {
          done(error)
          return
        }
        request.body = body
        void serve(ports, endpoint, request, reply, (incoming) => pipeline.serve(incoming, reply.raw))
      })
    }
    app.post(endpoint.path, { onRequest }, takenBefore)
  }
  app.get<{ Params: { id: string } }>('/v1/responses/:id', (request, reply) =>
    serve(ports, storedResponses, request, reply, (incoming) =>
      pipeline.serveOwned(incoming, 'GET', request.params.id, reply.raw),
    ),
  )
  app.post<{ Params: { id: string } }>('/v1/responses/:id/cancel', (request, reply) =>
    serve(ports, storedResponses, request, reply, (incoming) =>
      pipeline.serveOwned(incoming, 'POST', request.params.id, reply.raw),
    ),
  )
  app.get('/v1/models', ({ caller }) => ({ object: 'list', data: modelRows(pools, caller) }))
  app.get<{ Params: { '*': string } }>('/v1/models/*', ({ params, caller }) => {
    const id = params['*']
    const row = modelRows(pools, caller).find((candidate) => candidate.id === id)
    if (row === undefined)
      throw new RouterError('MODEL_NOT_FOUND', `The model "${id}" does not exist`, { param: 'model' })
    return row
  })
  const poolFor =
    ({ caller }: FastifyRequest) =>
    (model: string): Pool =>
      modelTarget(model, caller, pools, true).pool
  for (const path of ['/tokenize', '/v1/tokenize'])
    app.post(path, async (request, reply) => reply.send(await prompts.tokenize(bodyOf(request), poolFor(request))))
  for (const path of ['/detokenize', '/v1/detokenize'])
    app.post(path, async (request, reply) => reply.send(await prompts.detokenize(bodyOf(request), poolFor(request))))
}

function takenBefore(): never {
  throw new RouterError('INTERNAL', 'The request should have been taken over before its handler')
}

/** Notes who the client is; an error is what it gets instead of an answer. */
function admit(ports: PublicPorts, request: FastifyRequest): RouterError | undefined {
  if (ports.draining()) {
    return new RouterError('DRAINING', 'The router is shutting down; try another replica', { retryAfterSeconds: 1 })
  }
  try {
    request.caller = ports.authenticate(request.headers)
    return undefined
  } catch (error) {
    return asRouterError(error)
  }
}

async function serve(
  ports: PublicPorts,
  endpoint: Endpoint,
  request: FastifyRequest,
  reply: FastifyReply,
  send: (incoming: Incoming) => Promise<void>,
): Promise<void> {
  const requestId = requestIdOf(request.raw)
  const { protocol } = endpoint
  try {
    const incoming = incomingOf(ports, endpoint, request, requestId)
    reply.hijack()
    await send(incoming)
  } catch (error) {
    const known = asRouterError(error)
    if (known.code === 'INTERNAL') ports.onInternalError(error, requestId)
    if (reply.sent) writeError(reply.raw, known, requestId, protocol)
    else await reply.code(known.status).headers(errorHeaders(known, requestId)).send(errorBody(known, protocol))
  }
}

function incomingOf(ports: PublicPorts, endpoint: Endpoint, request: FastifyRequest, requestId: string): Incoming {
  const { raw, caller } = request
  return {
    requestId,
    endpoint,
    caller,
    path: request.url,
    rawHeaders: raw.rawHeaders,
    forwarded: forwardedOf(raw, ports.proxies),
    contentType: raw.headers['content-type'] ?? '',
    body: bodyOf(request),
    sessionId: shortHeader(raw, 'x-session-id'),
    trusted: isTrusted(raw, ports.exposure, caller !== anonymous),
    wantsDecision: raw.headers['x-warmroute-explain'] === '1',
    retryCount: Math.min(99, Number(shortHeader(raw, 'x-stainless-retry-count') ?? 0) || 0),
  }
}

/** The body's bytes as they came. */
export function bodyOf(request: FastifyRequest): Buffer {
  return Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0)
}

/** The models that the caller may use, among those that some worker can answer for. */
function modelRows(pools: Pools, caller: Caller) {
  return pools
    .names()
    .filter(({ name, pool }) => mayUse(caller, name) || mayUse(caller, pool.model))
    .filter(({ pool }) => pool.workers.some(({ standing }) => standing.up && !standing.draining))
    .map(({ name, pool, parent }) => ({
      id: name,
      object: 'model',
      created: pool.createdSeconds,
      owned_by: 'warmroute',
      root: pool.model,
      parent,
      max_model_len: pool.maxModelLength,
    }))
}
