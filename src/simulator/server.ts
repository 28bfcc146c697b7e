import { createHash } from 'node:crypto'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { RouterError } from '../errors.ts'
import { openAiWording } from './answer.ts'
import { ApiError, invalid, unsupportedMediaType } from './api-error.ts'
import { addAudioRoutes } from './audio.ts'
import { bodyOf, flagOf, tokenIds } from './body.ts'
import { knownModel } from './engine-call.ts'
import { faultOf } from './faults.ts'
import { chatPrompt, readCall } from './generation-call.ts'
import { addMessagesRoutes } from './messages.ts'
import { metricsText } from './metrics-text.ts'
import { addPoolingRoutes } from './pooling.ts'
import { addResponsesRoutes } from './responses.ts'
import { Serving, type ServedRank, type ServingOptions } from './serving.ts'
import { addSglangGenerateRoute } from './sglang-generate.ts'
import { addTokenGenerationRoute } from './token-generation.ts'

export interface ServerOptions extends ServingOptions {
  readonly startedSeconds: number
  readonly bodyLimitBytes: number
  /** Responses kept for those that go on from them. */
  readonly storedResponses: number
  /** vLLM's --enable-scale-out: whether prompts may come as token ids. */
  readonly scaleOut: boolean
  /** Whether POST /simulator/fault is there. */
  readonly faultControl: boolean
}

/** The routes of a vLLM 0.32 server that clients and routers use, SGLang's /generate, and the simulator's own. */
export function createServer(options: ServerOptions): FastifyInstance {
  // Idle connections end after 5 s, as uvicorn's do: a router that reuses one at that moment must cope.
  const app = Fastify({
    bodyLimit: options.bodyLimitBytes,
    exposeHeadRoutes: false,
    forceCloseConnections: true,
    keepAliveTimeout: 5_000,
  })
  const serving = new Serving(options)
  addFaultHandlers(app)
  addSimulatorRoutes(app, options)
  addGenerationRoutes(app, serving)
  addMessagesRoutes(app, serving)
  addResponsesRoutes(app, serving, options.storedResponses)
  addTokenizerRoutes(app, options)
  addOperationRoutes(app, serving, options)
  addPoolingRoutes(app, serving)
  addAudioRoutes(app, serving)
  addSglangGenerateRoute(app, serving)
  addScaleOutRoutes(app, serving, options.scaleOut)
  return app
}

/** Faults in vLLM's forms; what no route takes, in FastAPI's. */
function addFaultHandlers(app: FastifyInstance): void {
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
    return reply.code(refusal.status).send(refusal.body)
  })
  app.setNotFoundHandler((request, reply) => {
    const [path = ''] = request.url.split('?')
    const other = routes.find((route) => route.path.test(path))
    if (other === undefined) return reply.code(404).send({ detail: 'Not Found' })
    return reply.code(405).header('allow', other.method).send({ detail: 'Method Not Allowed' })
  })
}

/** The simulator's own: what came in, and the fault to have. All other requests are counted and meet that fault. */
function addSimulatorRoutes(app: FastifyInstance, { counters, faults, faultControl }: ServerOptions): void {
  const own = (request: FastifyRequest): boolean => request.url.startsWith('/simulator/')
  app.addHook('onRequest', (request, reply, done) => {
    if (!own(request)) counters.begin(request.routeOptions.url ?? 'unknown', reply.raw)
    done()
  })
  app.addHook('preHandler', async (request, reply) => {
    if (!own(request) && (await faults.meet(request, reply, counters))) return reply
    return undefined
  })
  app.get('/simulator/counters', () => counters.figures)
  if (!faultControl) return
  app.post('/simulator/fault', (request) => {
    const fault = faultOf(request.body)
    faults.set(fault)
    return { fault }
  })
}

function addGenerationRoutes(app: FastifyInstance, serving: Serving): void {
  const generate = (kind: 'chat' | 'completion') => async (request: FastifyRequest, reply: FastifyReply) => {
    const exchange = serving.begin(request, reply)
    const { requestId, createdSeconds, sessionHeader } = exchange
    const call = await readCall(kind, request.body, sessionHeader, serving.options)
    const id = `${kind === 'chat' ? 'chatcmpl' : 'cmpl'}-${requestId}`
    const { promptTokensDetails } = serving.options
    const head = { id, createdSeconds, call, promptTokensDetails }
    return serving.answer(exchange, call, (choices) => openAiWording(head, choices))
  }
  app.post('/v1/chat/completions', generate('chat'))
  app.post('/v1/completions', generate('completion'))
}

function addTokenizerRoutes(app: FastifyInstance, options: ServerOptions): void {
  const { maxModelLength, tokenizer } = options
  app.post('/tokenize', async (request) => {
    const body = bodyOf(request.body)
    knownModel(body['model'], options)
    const { prompt, add_special_tokens: special } = body
    const chat = body['messages'] !== undefined
    if (!chat && typeof prompt !== 'string') throw new ApiError(400, 'Field `prompt` must be a string.', 'prompt')
    const withSpecial = special === undefined || special === null || flagOf(body, 'add_special_tokens')
    const tokens = chat ? await chatPrompt(body, options) : await tokenizer.text(String(prompt), withSpecial)
    return { count: tokens.length, max_model_len: maxModelLength, tokens: [...tokens], token_strs: null }
  })
  app.post('/detokenize', async (request) => {
    const body = bodyOf(request.body)
    knownModel(body['model'], options)
    return { prompt: await tokenizer.detokenize(tokenIds(body['tokens'], tokenizer.vocabularySize, 'tokens')) }
  })
}

function addOperationRoutes(app: FastifyInstance, serving: Serving, options: ServerOptions): void {
  const { loras, maxModelLength, model, ranks } = options
  const createdSeconds = Math.floor(options.startedSeconds)
  app.get('/v1/models', () => {
    const row = (id: string, root: string, parent: string | null) => ({
      id,
      object: 'model',
      created: createdSeconds,
      owned_by: 'vllm',
      root,
      parent,
      max_model_len: parent === null ? maxModelLength : null,
      permission: [permission(id, options.idSeed, createdSeconds)],
    })
    return { object: 'list', data: [row(model, model, null), ...loras.map(({ name, path }) => row(name, path, model))] }
  })
  for (const path of ['/health', '/ping']) app.get(path, (_, reply) => reply.code(200).send())
  app.post('/ping', (_, reply) => reply.code(200).send())
  app.get('/version', () => ({ version: '0.32.0' }))
  app.get('/load', () => ({ server_load: serving.inFlight }))
  app.get('/is_sleeping', () => ({ is_sleeping: false }))
  app.get('/metrics', (_, reply) => {
    const { blockSize, capacityBlocks } = (ranks[0] as ServedRank).drive.options
    const { startedSeconds } = options
    const stats = ranks.map(({ drive }) => drive.stats)
    reply.type('text/plain; version=0.0.4; charset=utf-8')
    return metricsText({ model, blockSize, capacityBlocks, startedSeconds, ranks: stats })
  })
  app.get('/kv_event_sources', () =>
    Object.fromEntries(ranks.map(({ eventSource }, rank) => [rank, eventSource ?? { enable_kv_cache_events: false }])),
  )
  app.post('/reset_prefix_cache', () => ({
    success: ranks.map(({ drive }) => drive.resetPrefixCache()).every(Boolean),
  }))
}

function addScaleOutRoutes(app: FastifyInstance, serving: Serving, enabled: boolean): void {
  const refuse = (): never => {
    throw new ApiError(
      403,
      'Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out to enable them.',
    )
  }
  if (enabled) addTokenGenerationRoute(app, serving)
  else app.post('/inference/v1/generate', refuse)
  for (const path of ['/v1/chat/completions/render', '/v1/completions/render']) app.post(path, refuse)
}

function permission(model: string, seed: string, created: number): object {
  return {
    id: `modelperm-${createHash('sha256').update(`${seed} ${model}`).digest('hex').slice(0, 16)}`,
    object: 'model_permission',
    created,
    allow_create_engine: false,
    allow_sampling: true,
    allow_logprobs: true,
    allow_search_indices: false,
    allow_view: true,
    allow_fine_tuning: false,
    organization: '*',
    group: null,
    is_blocking: false,
  }
}

/** Faults of the body's reading and of the tokenizer, in vLLM's form. */
function refusalOf(fault: unknown): ApiError {
  if (fault instanceof ApiError) return fault
  if (fault instanceof RouterError) return new ApiError(fault.status, fault.message, fault.param)
  const { code, statusCode, message } = fault as { code?: unknown; statusCode?: unknown; message?: unknown }
  if (code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE') return unsupportedMediaType()
  return new ApiError(typeof statusCode === 'number' ? statusCode : 500, String(message))
}
