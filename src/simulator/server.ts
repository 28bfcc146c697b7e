import Fastify, { type FastifyInstance, type FastifyRequest } from 'fastify'
import { RouterError } from '../errors.ts'
import { ApiError, invalid, unsupportedMediaType } from './api-error.ts'
import { faultOf } from './faults.ts'
import type { Surface, SurfaceOptions } from './flavour.ts'
import { Serving } from './serving.ts'

export interface ServerOptions extends SurfaceOptions {
  readonly bodyLimitBytes: number
  /** Whether POST /simulator/fault is there. */
  readonly faultControl: boolean
}

/** The HTTP server of an engine: its flavour's routes and the simulator's own. */
export function createServer(options: ServerOptions, surface: Surface): FastifyInstance {
  // Idle connections end after 5 s, as uvicorn's do: a router that reuses one at that moment must cope.
  const app = Fastify({
    bodyLimit: options.bodyLimitBytes,
    exposeHeadRoutes: false,
    forceCloseConnections: true,
    keepAliveTimeout: 5_000,
  })
  addFaultHandlers(app, surface.refusal ?? (({ body }) => body))
  addSimulatorRoutes(app, options)
  surface.addRoutes(app, new Serving(options), options)
  return app
}

/** Faults in the engine's form; what no route takes, in FastAPI's. */
function addFaultHandlers(app: FastifyInstance, bodyOf: (fault: ApiError) => object): void {
  const routes: { readonly path: RegExp; readonly method: string }[] = []
  app.addHook('onRoute', ({ url, method }) => {
    const path = new RegExp(`^${url.replace(/:[a-z]+/g, '[^/]+')}$`)
    routes.push({ path, method: String(method) })
  })
  app.removeContentTypeParser(['text/plain', 'application/json'])
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (_, text, done) => {
    try {
      done(null, JSON.parse(String(text)))
    } catch (fault) {
      const at = /position (\d+)/.exec((fault as Error).message)?.[1] ?? `${text.length}`
      done(invalid({ field: at, kind: 'json_invalid', message: 'JSON decode error', value: {} }))
    }
  })
  app.setErrorHandler((fault, _, reply) => {
    const refusal = refusalOf(fault)
    return reply.code(refusal.status).send(bodyOf(refusal))
  })
  app.setNotFoundHandler((request, reply) => {
    const [path = ''] = request.url.split('?')
    const other = routes.find((route) => route.path.test(path))
    if (other === undefined) return reply.code(404).send({ detail: 'Not Found' })
    return reply.code(405).header('allow', other.method).send({ detail: 'Method Not Allowed' })
  })
}

/** The simulator's own: what came in, and the fault to have. All other requests are counted and meet that fault. */
function addSimulatorRoutes(app: FastifyInstance, { counters, faults, faultControl, ranks }: ServerOptions): void {
  const own = (request: FastifyRequest): boolean => request.url.startsWith('/simulator/')
  app.addHook('onRequest', (request, reply, done) => {
    if (!own(request)) counters.begin(request.routeOptions.url ?? 'unknown', reply.raw)
    done()
  })
  app.addHook('preHandler', async (request, reply) => {
    if (!own(request) && (await faults.meet(request, reply, counters))) return reply
    return undefined
  })
  app.get('/simulator/counters', () => {
    const busyMs = ranks.reduce((sum, { stats }) => sum + stats.busyMs, 0)
    return { ...counters.figures, busyMs }
  })
  if (!faultControl) return
  app.post('/simulator/fault', (request) => {
    const fault = faultOf(request.body)
    faults.set(fault)
    return { fault }
  })
}

/** Faults of the body's reading and of the tokenizer, in vLLM's form. */
function refusalOf(fault: unknown): ApiError {
  if (fault instanceof ApiError) return fault
  if (fault instanceof RouterError) return new ApiError(fault.status, fault.message, fault.param)
  const { code, statusCode, message } = fault as { code?: unknown; statusCode?: unknown; message?: unknown }
  if (code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE') return unsupportedMediaType()
  return new ApiError(typeof statusCode === 'number' ? statusCode : 500, String(message))
}
