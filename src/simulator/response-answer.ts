import type { ResponseCall } from './response-call.ts'
import type { ResponseBody } from './response-store.ts'
import { tokenCounts, type Choice, type EventWording, type Wording } from './wording.ts'

/** Which response this is: its ids and the second it began. */
export interface ResponseHead {
  readonly id: string
  readonly itemId: string
  readonly createdSeconds: number
  readonly call: ResponseCall
}

/** The answers of /v1/responses. `complete` hears of a response that is whole, before its last event is written. */
export function responseWording(
  head: ResponseHead,
  choices: readonly Choice[],
  complete: (body: ResponseBody) => void,
): Wording {
  const finished = (): ResponseBody => {
    const body = finishedResponse(head, choices)
    complete(body)
    return body
  }
  return { whole: finished, events: head.call.stream ? responseEvents(head, choices, finished) : null }
}

/** The state of a response that has not generated anything. */
export function emptyResponse(head: ResponseHead, status: 'queued' | 'in_progress'): ResponseBody {
  return response(head, status, [], null)
}

export function finishedResponse(head: ResponseHead, choices: readonly Choice[]): ResponseBody {
  const { promptTokens, completionTokens, cachedTokens } = tokenCounts(choices, 1)
  const text = choices[0]?.text ?? ''
  const content = text === '' ? [] : [outputText(text, null)]
  const status = head.call.finishReason === 'length' ? 'incomplete' : 'completed'
  return response(head, status, [message(head, content, 'completed')], {
    input_tokens: promptTokens,
    input_tokens_details: {
      cached_tokens: cachedTokens,
      cache_write_tokens: 0,
      input_tokens_per_turn: [],
      cached_tokens_per_turn: [],
    },
    output_tokens: completionTokens,
    output_tokens_details: {
      reasoning_tokens: 0,
      tool_output_tokens: 0,
      output_tokens_per_turn: [],
      tool_output_tokens_per_turn: [],
    },
    total_tokens: promptTokens + completionTokens,
  })
}

/** Fields and their order as vLLM 0.32's response models write them out. */
function response(head: ResponseHead, status: string, output: readonly object[], usage: object | null): ResponseBody {
  const { body, maxOutputTokens, model } = head.call
  const tools = Array.isArray(body['tools']) ? (body['tools'] as readonly unknown[]) : []
  return {
    id: head.id,
    created_at: head.createdSeconds,
    incomplete_details: status === 'incomplete' ? { reason: 'max_output_tokens' } : null,
    instructions: body['instructions'] ?? null,
    metadata: body['metadata'] ?? null,
    model,
    object: 'response',
    output,
    parallel_tool_calls: body['parallel_tool_calls'] ?? true,
    temperature: body['temperature'] ?? 1,
    tool_choice: tools.length === 0 ? 'none' : (body['tool_choice'] ?? 'auto'),
    tools,
    top_p: body['top_p'] ?? 1,
    background: head.call.background,
    max_output_tokens: maxOutputTokens,
    max_tool_calls: body['max_tool_calls'] ?? null,
    previous_response_id: body['previous_response_id'] ?? null,
    prompt: null,
    reasoning: body['reasoning'] ?? null,
    service_tier: body['service_tier'] ?? 'auto',
    status,
    text: body['text'] ?? null,
    top_logprobs: null,
    truncation: body['truncation'] ?? 'disabled',
    usage,
    user: body['user'] ?? null,
    presence_penalty: body['presence_penalty'] ?? 0,
    frequency_penalty: body['frequency_penalty'] ?? 0,
    kv_transfer_params: null,
    ec_transfer_params: null,
    input_messages: null,
    output_messages: null,
  }
}

function message({ itemId }: ResponseHead, content: readonly object[], status: 'in_progress' | 'completed'): object {
  return { id: itemId, content, role: 'assistant', status, type: 'message', phase: null }
}

function outputText(text: string, logprobs: readonly [] | null): object {
  return { annotations: [], text, type: 'output_text', logprobs }
}

/** The events of one message with one part, numbered from 0. */
function responseEvents(head: ResponseHead, choices: readonly Choice[], finished: () => ResponseBody): EventWording {
  let number = 0
  const event = (type: string, before: object, after: object = {}): string =>
    `event: ${type}\ndata: ${JSON.stringify({ ...before, sequence_number: number++, ...after, type })}\n\n`
  const part = { content_index: 0, item_id: head.itemId, output_index: 0 }
  const added = (): string =>
    event('response.output_item.added', { item: message(head, [], 'in_progress'), output_index: 0 }) +
    event('response.content_part.added', { ...part, part: outputText('', []) })
  return {
    opening: () => {
      const initial = { response: emptyResponse(head, 'in_progress') }
      return event('response.created', initial) + event('response.in_progress', initial)
    },
    token: (choice, _token, delta) => {
      const { content_index, item_id, output_index } = part
      const words = { content_index, delta, item_id, logprobs: [], output_index }
      return (choice.tokens.length === 1 ? added() : '') + event('response.output_text.delta', words)
    },
    end: () => {
      const text = choices[0]?.text ?? ''
      const { content_index, item_id, output_index } = part
      const whole = outputText(text, null)
      return (
        event('response.output_text.done', { content_index, item_id, logprobs: [], output_index }, { text }) +
        event('response.content_part.done', { ...part, part: whole }) +
        event('response.output_item.done', { item: message(head, [whole], 'completed'), output_index }) +
        event('response.completed', { response: finished() })
      )
    },
  }
}
