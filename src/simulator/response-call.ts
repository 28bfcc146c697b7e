import { chatOfResponses } from '../tokenize/responses.ts'
import { ApiError, invalid, missing } from './api-error.ts'
import { flagOf, textOf, wholeOf, type Body } from './body.ts'
import { callerOf, outputOf, type CallContext, type EngineCall } from './engine-call.ts'
import { chatPrompt } from './generation-call.ts'
import type { ResponseStore } from './response-store.ts'

/** A request of POST /v1/responses, read. */
export interface ResponseCall extends EngineCall {
  readonly body: Body
  readonly stream: boolean
  readonly background: boolean
  readonly keep: boolean
  /** The whole chat, earlier responses' included. */
  readonly messages: readonly unknown[]
  /** What the engine may generate: the request's limit, else what the model's length leaves. */
  readonly maxOutputTokens: number
}

export async function readResponseCall(
  body: Body,
  sessionHeader: string | null,
  context: CallContext,
  store: ResponseStore,
): Promise<ResponseCall> {
  const { input } = body
  if (input === undefined) throw missing(body, 'input')
  if (typeof input !== 'string' && !Array.isArray(input)) {
    throw invalid(
      { field: 'input', kind: 'string_type', message: 'Input should be a valid string', value: input },
      { field: 'input', kind: 'list_type', message: 'Input should be a valid list', value: input },
    )
  }
  const background = flagOf(body, 'background')
  const keep = body['store'] === undefined || body['store'] === null || flagOf(body, 'store')
  if (background && !keep) throw new ApiError(400, 'background can only be used when `store` is true', 'background')
  const caller = callerOf(body, sessionHeader, context)
  if (background && !store.enabled) throw noBackground()
  const chat = chatOf(body, store)
  const prompt = await chatPrompt(chat, context)
  const named = wholeOf(body, 'max_output_tokens', 1)
  return {
    ...caller,
    ...outputOf(body, named, [prompt], 1, context),
    body,
    stream: flagOf(body, 'stream'),
    background,
    keep: keep && store.enabled,
    messages: chat.messages,
    maxOutputTokens: named ?? context.maxModelLength - prompt.length,
  }
}

/** Earlier messages come behind the new instructions; the instructions of then do not count any more. */
function chatOf(body: Body, store: ResponseStore): Body & { readonly messages: readonly unknown[] } {
  const previousId = textOf(body, 'previous_response_id')
  const previous = previousId === null ? null : store.get(previousId)
  if (previousId !== null && previous === null) throw responseNotFound(previousId)
  const chat = chatOfResponses({ ...body, previous_response_id: null })
  if (chat === null || !Array.isArray(chat.messages)) {
    throw invalid({ field: 'input', kind: 'list_type', message: 'Input should be a valid list', value: body['input'] })
  }
  const messages: readonly unknown[] = chat.messages
  if (previous === null) return { ...chat, messages }
  const instructions = (textOf(body, 'instructions') ?? '') === '' ? 0 : 1
  const earlier = previous.messages.filter((message) => (message as { role?: unknown }).role !== 'system')
  const answer = previous.text === '' ? [] : [{ role: 'assistant', content: previous.text }]
  return {
    ...chat,
    messages: [...messages.slice(0, instructions), ...earlier, ...answer, ...messages.slice(instructions)],
  }
}

export function responseNotFound(id: string): ApiError {
  return new ApiError(404, `Response with id '${id}' not found.`, 'response_id', 'invalid_request_error')
}

function noBackground(): ApiError {
  const message =
    'This vLLM engine does not support `store=True` and therefore does not support the background mode. To enable these ' +
    'features, set the environment variable `VLLM_ENABLE_RESPONSES_API_STORE=1` when launching the vLLM server.'
  return new ApiError(400, message, 'background', 'invalid_request_error')
}
