import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { RouterError } from '../errors.ts'
import type { Incoming, Pipeline } from '../pipeline.ts'
import type { PromptKind, PromptService } from '../tokenize/service.ts'
import type { Pool, Pools } from '../workers/pool.ts'
import { isTrusted, requestIdOf, shortHeader, type Exposure } from './client.ts'
import { asRouterError, errorBody, errorHeaders, writeError } from './errors.ts'

export interface PublicPorts {
  readonly pipeline: Pipeline
  readonly pools: Pools
  readonly prompts: PromptService
  readonly exposure: Exposure
  readonly ready: () => boolean
  readonly draining: () => boolean
  /** Told of what failed inside the router, never of a client's own mistakes. */
  readonly onInternalError: (error: unknown, requestId: string) => void
}

/** Paths whose requests are routed, and how their bodies are read. */
const routed: Readonly<Record<string, PromptKind>> = {
  '/v1/chat/completions': 'chat',
  '/v1/completions': 'completion',
}

/** The public port: an allow-list of OpenAI's paths. */
export function addPublicRoutes(app: FastifyInstance, ports: PublicPorts): void {
  for (const [path, kind] of Object.entries(routed)) {
    app.post(path, (request, reply) => serve(ports, kind, request, reply))
  }
  app.get('/v1/models', () => ({ object: 'list', data: modelRows(ports.pools) }))
  app.get<{ Params: { '*': string } }>('/v1/models/*', (request) => {
    const id = request.params['*']
    const row = modelRows(ports.pools).find((candidate) => candidate.id === id)
    if (row === undefined)
      throw new RouterError('MODEL_NOT_FOUND', `The model "${id}" does not exist`, { param: 'model' })
    return row
  })
  const poolOf = (model: string): Pool => poolNamed(ports.pools, model)
  app.post('/tokenize', async (request, reply) => reply.send(await ports.prompts.tokenize(bodyOf(request), poolOf)))
  app.post('/detokenize', async (request, reply) => reply.send(await ports.prompts.detokenize(bodyOf(request), poolOf)))
  app.get('/health', (_request, reply) => reply.code(ports.ready() ? 200 : 503).send())
}

async function serve(
  ports: PublicPorts,
  kind: PromptKind,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<void> {
  const requestId = requestIdOf(request.raw)
  try {
    const incoming = incomingOf(ports, kind, request, requestId)
    reply.hijack()
    await ports.pipeline.serve(incoming, reply.raw)
  } catch (error) {
    const known = asRouterError(error)
    if (known.code === 'INTERNAL') ports.onInternalError(error, requestId)
    if (reply.sent) writeError(reply.raw, known, requestId)
    else await reply.code(known.status).headers(errorHeaders(known, requestId)).send(errorBody(known))
  }
}

function incomingOf(ports: PublicPorts, kind: PromptKind, request: FastifyRequest, requestId: string): Incoming {
  if (ports.draining())
    throw new RouterError('DRAINING', 'The router is shutting down; try another replica', { retryAfterSeconds: 1 })
  const { raw } = request
  return {
    requestId,
    kind,
    path: request.url,
    rawHeaders: raw.rawHeaders,
    body: bodyOf(request),
    sessionId: shortHeader(raw, 'x-session-id'),
    trusted: isTrusted(raw, ports.exposure),
    wantsDecision: raw.headers['x-warmroute-explain'] === '1',
  }
}

/** The body's bytes as they came. */
export function bodyOf(request: FastifyRequest): Buffer {
  const encoding = request.headers['content-encoding']
  if (encoding !== undefined && encoding !== 'identity') {
    throw new RouterError(
      'CONTENT_ENCODING_UNSUPPORTED',
      `Content-encoding "${encoding}" is not supported; send the body uncompressed`,
    )
  }
  return Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0)
}

/** The pool that a model name stands for; with no name given, the only pool there is. */
function poolNamed(pools: Pools, model: string): Pool {
  const [only, second] = pools.list()
  if (model === '' && only !== undefined && second === undefined) return only
  if (model === '')
    throw new RouterError('BODY_INVALID', '"model" is missing, and several models are served', { param: 'model' })
  const target = pools.target(model)
  if (target === null)
    throw new RouterError('MODEL_NOT_FOUND', `The model "${model}" does not exist`, { param: 'model' })
  return target.pool
}

function modelRows(pools: Pools) {
  return pools
    .names()
    .filter(({ pool }) => pool.workers.some((worker) => worker.standing.state === 'healthy'))
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
