import type { FastifyInstance } from 'fastify'
import { ApiError } from './api-error.ts'
import { bodyOf, textOf } from './body.ts'
import { emptyResponse, finishedResponse, responseWording, type ResponseHead } from './response-answer.ts'
import { readResponseCall, responseNotFound, type ResponseCall } from './response-call.ts'
import { ResponseStore, type ResponseBody } from './response-store.ts'
import type { Exchange, Serving } from './serving.ts'

interface Params {
  readonly id: string
}

/** OpenAI's Responses API as vLLM serves it, with its store, whose responses later requests go on from. */
export function addResponsesRoutes(app: FastifyInstance, serving: Serving, storedResponses: number): void {
  const store = new ResponseStore(storedResponses)
  app.post('/v1/responses', async (request, reply) => {
    const exchange = serving.begin(request, reply)
    const body = bodyOf(request.body)
    const call = await readResponseCall(body, exchange.sessionHeader, serving.options, store)
    const head: ResponseHead = {
      id: textOf(body, 'request_id') ?? `resp_${serving.id(`response ${exchange.number}`)}`,
      itemId: `msg_${serving.id(`item ${exchange.number}`)}`,
      createdSeconds: exchange.createdSeconds,
      call,
    }
    if (call.background && !call.stream) return runInBackground(serving, store, exchange, head)
    return serving.answer(exchange, call, (choices) =>
      responseWording(head, choices, (answer) => keep(store, call, answer, choices[0]?.text ?? '')),
    )
  })
  app.get<{ Params: Params }>('/v1/responses/:id', ({ params: { id } }) => {
    const stored = store.get(id)
    if (stored === null) throw responseNotFound(id)
    return stored.body
  })
  app.post<{ Params: Params }>('/v1/responses/:id/cancel', ({ params: { id } }) => {
    const stored = store.get(id)
    if (stored === null) throw responseNotFound(id)
    if (stored.abort === null) {
      const message = 'Cannot cancel a synchronous response.'
      throw new ApiError(400, message, 'response_id', 'invalid_request_error')
    }
    stored.abort()
    const body = { ...stored.body, status: 'cancelled' }
    store.set({ ...stored, body, abort: null })
    return body
  })
}

function keep(store: ResponseStore, { keep, messages }: ResponseCall, body: ResponseBody, text: string): void {
  if (keep) store.set({ body, messages, text, abort: null })
}

/** Answers at once and generates without a client; what comes of it is there to be fetched. */
function runInBackground(serving: Serving, store: ResponseStore, exchange: Exchange, head: ResponseHead): ResponseBody {
  const { call } = head
  const generation = serving.generation(exchange, call)
  const body = emptyResponse(head, 'queued')
  store.set({ body, messages: call.messages, text: '', abort: () => generation.abort() })
  generation.start(serving.options.vocabulary, {
    onToken: () => undefined,
    onEnd: () => {
      keep(store, call, finishedResponse(head, generation.choices), generation.choices[0]?.text ?? '')
    },
  })
  return body
}
