import { createHash } from 'node:crypto'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { RouterError } from '../errors.ts'
import { completeAnswer, StreamWriter, type AnswerHead } from './answer.ts'
import { ApiError } from './api-error.ts'
import type { EngineDrive } from './engine-drive.ts'
import { bodyOf, chatPrompt, flagOf, readCall, tokenIds, type CallContext } from './generation-call.ts'
import { Generation } from './generation.ts'
import { metricsText } from './metrics-text.ts'
import type { OutputVocabulary } from './tokenizer.ts'

/** What the HTTP surface shows of one data-parallel rank. */
export interface ServedRank {
  readonly drive: EngineDrive
  /** Its entry in /kv_event_sources; null without events. */
  readonly eventSource: object | null
}

export interface ServerOptions extends CallContext {
  readonly ranks: readonly ServedRank[]
  readonly vocabulary: OutputVocabulary
  readonly wallSeconds: () => number
  readonly startedSeconds: number
  /** Begins every id that clients did not choose; differs between processes. */
  readonly idSeed: string
  readonly promptTokensDetails: boolean
  /** vLLM's --enable-request-id-headers. */
  readonly requestIdHeaders: boolean
  readonly bodyLimitBytes: number
  /** A connection is destroyed after this many tokens of its answer; null: never. Asked anew for each token. */
  readonly dieAfterTokens: () => number | null
}

/** The routes of a vLLM 0.32 server that a router touches. */
export function createServer(options: ServerOptions): FastifyInstance {
  const { model, loras, tokenizer, ranks, vocabulary, maxModelLength } = options
  const createdSeconds = Math.floor(options.startedSeconds)
  let served = 0
  let inFlight = 0

  // Idle connections end after 5 s, as uvicorn's do: a router that reuses one at that moment must cope.
  const app = Fastify({ bodyLimit: options.bodyLimitBytes, forceCloseConnections: true, keepAliveTimeout: 5_000 })
  app.setErrorHandler((fault, _, reply) => {
    const refusal = refusalOf(fault)
    return reply.code(refusal.status).send(refusal.body)
  })
  app.setNotFoundHandler((_, reply) => reply.code(404).send(new ApiError(404, 'Not Found').body))

  const generate = (kind: 'chat' | 'completion') => async (request: FastifyRequest, reply: FastifyReply) => {
    const number = served++
    const requestId = headerOf(request, 'x-request-id') ?? randomId(options.idSeed, number)
    if (options.requestIdHeaders) reply.header('x-request-id', requestId)
    const call = await readCall(kind, request.body, headerOf(request, 'x-session-id'), options)
    const { drive } = rankOf(request, ranks)
    const head: AnswerHead = {
      id: `${kind === 'chat' ? 'chatcmpl' : 'cmpl'}-${requestId}`,
      createdSeconds: Math.floor(options.wallSeconds()),
      call,
      promptTokensDetails: options.promptTokensDetails,
    }
    const { raw } = reply
    // The client may have left while its prompt was being tokenized.
    if (raw.destroyed) return reply.hijack()
    inFlight++
    return new Promise<object>((resolve) => {
      let ended = false
      let tokens = 0
      const generation = new Generation(`${number}`, call, drive)
      const stream = new StreamWriter(head, generation.choices)
      generation.start(vocabulary, {
        onToken: (choice, token, text) => {
          if (ended) return
          if (call.stream) {
            if (!raw.headersSent) beginStream(reply)
            raw.write(stream.token(choice, token, text))
          }
          if (++tokens === options.dieAfterTokens()) raw.destroy()
        },
        onEnd: () => {
          if (ended) return
          ended = true
          if (call.stream) raw.end(stream.end())
          else resolve(completeAnswer(head, generation.choices))
        },
      })
      if (call.stream) resolve(reply.hijack())
      raw.once('close', () => {
        inFlight--
        if (ended) return
        ended = true
        generation.abort()
        if (!call.stream) resolve(reply.hijack())
      })
    })
  }

  app.post('/v1/chat/completions', generate('chat'))
  app.post('/v1/completions', generate('completion'))
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
  for (const path of ['/health', '/ping']) app.get(path, (_, reply) => reply.code(200).send())
  app.post('/ping', (_, reply) => reply.code(200).send())
  app.get('/version', () => ({ version: '0.32.0' }))
  app.get('/load', () => ({ server_load: inFlight }))
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
  for (const path of ['/inference/v1/generate', '/v1/chat/completions/render', '/v1/completions/render']) {
    app.post(path, () => {
      throw new ApiError(
        403,
        'Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out to enable them.',
      )
    })
  }
  return app
}

function beginStream(reply: FastifyReply): void {
  const { raw } = reply
  raw.socket?.setNoDelay(true)
  const requestId = reply.getHeader('x-request-id')
  raw.writeHead(200, {
    'content-type': 'text/event-stream; charset=utf-8',
    ...(requestId === undefined ? {} : { 'x-request-id': String(requestId) }),
  })
}

/** The rank that the client pinned, else the one with the least load, waiting requests weighing four times (vLLM's rule). */
function rankOf(request: FastifyRequest, ranks: readonly ServedRank[]): ServedRank {
  const pinned = headerOf(request, 'x-data-parallel-rank')
  const load = ({ drive }: ServedRank): number => 4 * drive.stats.waiting + drive.stats.running
  const rank =
    pinned === null
      ? ranks.reduce((least, other) => (load(other) < load(least) ? other : least))
      : /^\d+$/.test(pinned)
        ? ranks[Number(pinned)]
        : undefined
  if (rank === undefined) throw new ApiError(400, `There is no data parallel rank ${pinned ?? ''}.`)
  return rank
}

function knownModel(name: unknown, { model, loras }: CallContext): void {
  if (name === undefined || name === null || name === model || loras.some((lora) => lora.name === name)) return
  throw new ApiError(404, `The model \`${JSON.stringify(name)}\` does not exist.`, 'model')
}

function headerOf(request: FastifyRequest, name: string): string | null {
  const value = request.headers[name]
  return typeof value === 'string' && value !== '' ? value : null
}

function randomId(seed: string, number: number): string {
  return createHash('sha256').update(`${seed} ${number}`).digest('hex').slice(0, 16)
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
  const { statusCode, message } = fault as { readonly statusCode?: unknown; readonly message?: unknown }
  return new ApiError(typeof statusCode === 'number' ? statusCode : 500, String(message))
}
