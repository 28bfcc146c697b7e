import { model } from '../support/fleet.ts'
import { data, named } from './wire.ts'

/** Answers of the text "Hello" in every API, and the streams that spell it. */
export const text = 'Hello'
const usage = { prompt_tokens: 4, completion_tokens: 2, total_tokens: 6 }
const head = { id: 'chatcmpl-1', created: 1, model }

export const chat = {
  ...head,
  object: 'chat.completion',
  choices: [{ index: 0, message: { role: 'assistant', content: text }, logprobs: null, finish_reason: 'stop' }],
  usage,
}

export const completion = {
  ...head,
  object: 'text_completion',
  choices: [{ index: 0, text, logprobs: null, finish_reason: 'stop' }],
  usage,
}

export function chatChunk(content: string, finish: string | null = null): object {
  const choices = [{ index: 0, delta: { role: 'assistant', content }, logprobs: null, finish_reason: finish }]
  return { ...head, object: 'chat.completion.chunk', choices }
}

export function completionChunk(content: string, finish: string | null = null): object {
  return { ...head, object: 'text_completion', choices: [{ index: 0, text: content, finish_reason: finish }] }
}

export const chatBegun = data(chatChunk('Hel'))
export const chatStream = data(chatChunk('Hel'), chatChunk('lo', 'stop'), '[DONE]')
export const completionBegun = data(completionChunk('Hel'))

const response = {
  id: 'resp_1',
  object: 'response',
  created_at: 1,
  model,
  status: 'in_progress',
  output: [] as object[],
  error: null,
  incomplete_details: null,
  instructions: null,
  metadata: null,
  parallel_tool_calls: true,
  tool_choice: 'auto',
  tools: [],
}
const place = { item_id: 'msg_1', output_index: 0, content_index: 0 }
const part = { type: 'output_text', text, annotations: [] }
const output = [{ id: 'msg_1', type: 'message', role: 'assistant', status: 'completed', content: [part] }]

export const responsesBody = { ...response, status: 'completed', output }

export const responsesBegun = named(
  { type: 'response.created', ...{ sequence_number: 0, response } },
  { type: 'response.output_text.delta', ...{ sequence_number: 1, ...place, delta: 'Hel', logprobs: [] } },
)
export const responsesStream =
  responsesBegun +
  named(
    { type: 'response.output_text.delta', ...{ sequence_number: 2, ...place, delta: 'lo', logprobs: [] } },
    { type: 'response.completed', ...{ sequence_number: 3, response: responsesBody } },
  )

const message = { id: 'msg_1', role: 'assistant', model, stop_sequence: null }
const spent = { input_tokens: 4, output_tokens: 2 }

export const messagesBody = {
  ...message,
  type: 'message',
  content: [{ type: 'text', text }],
  stop_reason: 'end_turn',
  usage: spent,
}

export const messagesBegun = named(
  {
    type: 'message_start',
    ...{ message: { ...message, type: 'message', content: [], stop_reason: null, usage: spent } },
  },
  { type: 'content_block_start', ...{ index: 0, content_block: { type: 'text', text: '' } } },
  { type: 'content_block_delta', ...{ index: 0, delta: { type: 'text_delta', text: 'Hel' } } },
)
export const messagesStream =
  messagesBegun +
  named(
    { type: 'ping' },
    { type: 'content_block_delta', ...{ index: 0, delta: { type: 'text_delta', text: 'lo' } } },
    { type: 'content_block_stop', ...{ index: 0 } },
    { type: 'message_delta', ...{ delta: { stop_reason: 'end_turn', stop_sequence: null }, usage: spent } },
    { type: 'message_stop' },
  )
