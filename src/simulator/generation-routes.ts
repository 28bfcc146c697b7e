import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { openAiWording } from './answer.ts'
import { readCall } from './generation-call.ts'
import type { Serving } from './serving.ts'

/** POST /v1/chat/completions and /v1/completions. */
export function addGenerationRoutes(app: FastifyInstance, serving: Serving): void {
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
