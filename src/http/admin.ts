import type { FastifyInstance } from 'fastify'
import { anonymous } from '../admission/caller.ts'
import { RouterError } from '../errors.ts'
import type { Endpoint, Pipeline } from '../pipeline.ts'
import { bodyOf } from './public.ts'
import { requestIdOf, shortHeader } from './client.ts'
import { endpoints } from './endpoints.ts'

/** What the admin port shows of the other rooms; `main.ts` fills it in. */
export interface AdminPorts {
  readonly pipeline: Pipeline
  /** `reasons` says what is being waited for; empty when ready. */
  readonly readiness: () => { readonly ready: boolean; readonly reasons: readonly string[] }
  readonly metrics: () => Promise<{ readonly contentType: string; readonly text: string }>
  readonly workers: () => readonly object[]
  readonly map: () => object
  /** Changes the fleet, and answers the workers concerned. Each throws RouterError for what it cannot do. */
  readonly fleet: {
    add(given: unknown): readonly object[]
    change(id: string, given: unknown): readonly object[]
    remove(id: string, force: boolean): readonly object[]
  }
  readonly decisions: { latest(limit: number): readonly object[]; find(requestId: string): object | null }
}

/** The admin port: never reachable through the public one. */
export function addAdminRoutes(app: FastifyInstance, ports: AdminPorts): void {
  app.get('/healthz', () => ({ status: 'ok' }))
  app.get('/readyz', (_request, reply) => {
    const { ready, reasons } = ports.readiness()
    return reply.code(ready ? 200 : 503).send({ status: ready ? 'ready' : 'not ready', reasons })
  })
  app.get('/metrics', async (_request, reply) => {
    const { contentType, text } = await ports.metrics()
    return reply.header('content-type', contentType).send(text)
  })
  app.get('/admin/workers', () => ({ workers: ports.workers() }))
  app.post('/admin/workers', (request, reply) =>
    reply.code(201).send({ workers: ports.fleet.add(jsonOf(bodyOf(request))) }),
  )
  app.patch<Named>('/admin/workers', (request) => ({
    workers: ports.fleet.change(idOf(request.query), jsonOf(bodyOf(request))),
  }))
  app.delete<Named>('/admin/workers', (request, reply) =>
    reply.code(202).send({ workers: ports.fleet.remove(idOf(request.query), request.query.force === '1') }),
  )
  app.get('/admin/map', () => ports.map())
  app.get<{ Querystring: { limit?: string } }>('/admin/decisions', (request) => ({
    decisions: ports.decisions.latest(limitOf(request.query.limit)),
  }))
  app.get<{ Params: { id: string } }>('/admin/decisions/:id', (request) => {
    const record = ports.decisions.find(request.params.id)
    if (record === null)
      throw new RouterError('RECORD_NOT_FOUND', `No decision is kept for request "${request.params.id}"`)
    return record
  })
  app.post('/admin/explain', async (request) => {
    const { endpoint, body } = explained(bodyOf(request))
    return ports.pipeline.explain({
      requestId: requestIdOf(request.raw),
      endpoint,
      caller: anonymous,
      path: endpoint.path,
      rawHeaders: request.raw.rawHeaders,
      forwarded: [],
      contentType: 'application/json',
      body,
      sessionId: shortHeader(request.raw, 'x-session-id'),
      trusted: true,
      wantsDecision: false,
      retryCount: 0,
    })
  })
}

interface Named {
  Querystring: { id?: string; force?: string }
}

/** Ids may hold "#", which ends a URL's query unless it is written %23. */
function idOf({ id }: Named['Querystring']): string {
  if (typeof id !== 'string' || id === '')
    throw new RouterError('BODY_INVALID', 'Name the worker as ?id=, its "#" written %23', { param: 'id' })
  return id
}

const defaultLimit = 50

function limitOf(text: string | undefined): number {
  if (text === undefined) return defaultLimit
  const limit = Number(text)
  if (!Number.isInteger(limit) || limit < 1 || limit > 100_000) {
    throw new RouterError('BODY_INVALID', '"limit" must be a whole number from 1 to 100000', { param: 'limit' })
  }
  return limit
}

/** A bare request body, or `{ path?, body }` around one; `messages` make a chat, `prompt` a completion. */
function explained(bytes: Buffer): { endpoint: Endpoint; body: Buffer } {
  const given = jsonOf(bytes)
  if (typeof given !== 'object' || given === null || Array.isArray(given))
    throw new RouterError('BODY_INVALID', 'The body must be a JSON object')
  const { path, body } = given as { path?: unknown; body?: unknown }
  const wrapped = typeof body === 'object' && body !== null && !Array.isArray(body)
  const request = wrapped ? body : given
  const assumed = 'messages' in request ? '/v1/chat/completions' : '/v1/completions'
  const endpoint = endpoints.find((known) => known.path === (path ?? assumed) && !known.multipart)
  if (endpoint === undefined) {
    const known = endpoints.filter(({ multipart }) => !multipart).map((candidate) => candidate.path)
    throw new RouterError('BODY_INVALID', `"path" must be one of ${known.join(', ')}`, { param: 'path' })
  }
  return { endpoint, body: wrapped ? Buffer.from(JSON.stringify(body)) : bytes }
}

function jsonOf(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8')) as unknown
  } catch (cause) {
    throw new RouterError('BODY_NOT_JSON', `The body is not valid JSON: ${cause instanceof Error ? cause.message : ''}`)
  }
}
