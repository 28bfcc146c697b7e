import type { FastifyInstance, FastifyReply } from 'fastify'
import { chatOfMessages } from '../tokenize/anthropic.ts'
import { ApiError, invalid, missing } from './api-error.ts'
import { bodyOf, flagOf, wholeOf, type Body } from './body.ts'
import { callerOf, knownModel, outputOf, type CallContext, type EngineCall } from './engine-call.ts'
import { chatPrompt } from './generation-call.ts'
import type { Exchange, Serving } from './serving.ts'
import { tokenCounts, type Choice, type EventWording, type Wording } from './wording.ts'

/** Anthropic's Messages API as vLLM serves it: the body becomes a chat, the chat's answer becomes a message. */
export function addMessagesRoutes(app: FastifyInstance, serving: Serving): void {
  const { options } = serving
  app.post('/v1/messages', async (request, reply) => {
    const exchange = serving.begin(request, reply)
    const body = bodyOf(request.body)
    fieldsThere(body, 'model', 'messages', 'max_tokens')
    const maxTokens = wholeOf(body, 'max_tokens', -Infinity) ?? 0
    if (maxTokens <= 0) {
      const message = 'Value error, max_tokens must be positive'
      throw invalid({ field: 'max_tokens', kind: 'value_error', message, value: maxTokens })
    }
    return inAnthropicForm(reply, async () => {
      const caller = callerOf(body, exchange.sessionHeader, options)
      const prompt = await messagesPrompt(body, options)
      const call: EngineCall = { ...caller, ...outputOf(body, maxTokens, [prompt], 1, options) }
      const stream = flagOf(body, 'stream')
      return serving.answer(exchange, call, (choices) =>
        messageWording(exchange, call, choices, stream, options.promptTokensDetails),
      )
    })
  })
  app.post('/v1/messages/count_tokens', (request, reply) => {
    const body = bodyOf(request.body)
    fieldsThere(body, 'model', 'messages')
    return inAnthropicForm(reply, async () => {
      knownModel(body['model'], options)
      const { length } = await messagesPrompt(body, options)
      return { input_tokens: length, context_management: { original_input_tokens: length } }
    })
  })
}

function fieldsThere(body: Body, ...fields: readonly string[]): void {
  const absent = fields.filter((field) => body[field] === undefined)
  if (absent.length > 0) throw missing(body, ...absent)
}

/** vLLM words in Anthropic's form what its handler refuses; what its request model refuses keeps the OpenAI form. */
async function inAnthropicForm(reply: FastifyReply, answer: () => Promise<object>): Promise<object> {
  try {
    return await answer()
  } catch (fault) {
    if (!(fault instanceof ApiError) || fault.type === 'Bad Request') throw fault
    const { status, type, message } = fault
    return reply.code(status).send({ type: 'error', error: { type, message } })
  }
}

async function messagesPrompt(body: Body, context: CallContext): Promise<Uint32Array> {
  const rules = context.tokenizer.messagesRules()
  // What a template would do with later system messages only an engine can tell; this one keeps them where they are.
  const inlineSystem = rules.inlineSystem === 'unknown' ? 'kept' : rules.inlineSystem
  const chat = chatOfMessages(body, { ...rules, inlineSystem })
  if (chat === null) {
    const message = 'Input should be a valid list'
    throw invalid({ field: 'messages', kind: 'list_type', message, value: body['messages'] })
  }
  return chatPrompt({ ...chat }, context)
}

function messageWording(
  { requestId }: Exchange,
  call: EngineCall,
  choices: readonly Choice[],
  stream: boolean,
  promptTokensDetails: boolean,
): Wording {
  const id = `chatcmpl-${requestId}`
  const stopReason = call.finishReason === 'length' ? 'max_tokens' : 'end_turn'
  /** Cached tokens come out of the input's count; the first event of a stream does not know of them yet. */
  const usage = (withDetails: boolean): object => {
    const { promptTokens, completionTokens, cachedTokens } = tokenCounts(choices, 1)
    if (!withDetails) return { input_tokens: promptTokens, output_tokens: completionTokens }
    return {
      input_tokens: promptTokens - cachedTokens,
      output_tokens: completionTokens,
      cache_read_input_tokens: cachedTokens,
    }
  }
  return {
    whole: () => ({
      id,
      type: 'message',
      role: 'assistant',
      content: [{ type: 'text', text: choices[0]?.text ?? '' }],
      model: call.model,
      stop_reason: stopReason,
      usage: usage(promptTokensDetails),
    }),
    events: stream ? messageEvents() : null,
  }

  function messageEvents(): EventWording {
    const event = (fields: Readonly<Record<string, unknown>> & { readonly type: string }): string =>
      `event: ${fields.type}\ndata: ${JSON.stringify(fields)}\n\n`
    const start = (): string => {
      const head = { id, type: 'message', role: 'assistant', content: [], model: call.model }
      const { length } = choices[0]?.prompt ?? []
      const counts = { input_tokens: length, output_tokens: 0 }
      const message = { ...head, stop_reason: null, stop_sequence: null, usage: counts }
      const block = { type: 'content_block_start', content_block: { type: 'text', text: '' }, index: 0 }
      return event({ type: 'message_start', message }) + event(block)
    }
    return {
      opening: () => '',
      token: (choice, _token, text) => {
        const delta = { type: 'content_block_delta', delta: { type: 'text_delta', text }, index: 0 }
        return (choice.tokens.length === 1 ? start() : '') + event(delta)
      },
      end: () => {
        const stop = { type: 'content_block_stop', index: 0 }
        const delta = { stop_reason: stopReason, stop_sequence: null }
        const last = { type: 'message_delta', delta, usage: usage(promptTokensDetails) }
        return event(stop) + event(last) + event({ type: 'message_stop' })
      },
    }
  }
}
