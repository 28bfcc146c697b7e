import type Anthropic from '@anthropic-ai/sdk'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { generateText, jsonSchema, streamText, tool, type ToolSet } from 'ai'
import type OpenAI from 'openai'
import { model } from '../support/fleet.ts'
import type { Script } from '../support/scripted-engine.ts'
import type { Session } from './sessions.ts'
import { data, json, named, stream } from './wire.ts'

const schema = { type: 'object' as const, properties: { city: { type: 'string' as const } }, required: ['city'] }
const head = { id: 'chatcmpl-1', created: 1, model }
const call = { id: 'call_1', type: 'function', function: { name: 'weather', arguments: '{"city":"Zürich"}' } }
const usage = { prompt_tokens: 4, completion_tokens: 9, total_tokens: 13 }

/** An engine that calls the tool `weather`, whichever API asks it. */
export const callsTool: Script = ({ url, body }, response) => {
  const streamed = (JSON.parse(body.toString()) as { stream?: boolean }).stream === true
  const answers = url === '/v1/messages' ? messages : chats
  ;(streamed ? answers.stream : answers.whole)(response, 1)
}

const chunk = (delta: object, finish: string | null = null): object => ({
  ...head,
  object: 'chat.completion.chunk',
  choices: [{ index: 0, delta, finish_reason: finish }],
})
const part = (fields: object): object => chunk({ tool_calls: [{ index: 0, ...fields }] })

const chats = {
  whole: json(200, {
    ...head,
    object: 'chat.completion',
    choices: [
      { index: 0, message: { role: 'assistant', content: null, tool_calls: [call] }, finish_reason: 'tool_calls' },
    ],
    usage,
  }),
  stream: stream(
    data(
      chunk({ role: 'assistant', content: null }),
      part({ id: 'call_1', type: 'function', function: { name: 'weather', arguments: '' } }),
      part({ function: { arguments: '{"city":' } }),
      part({ function: { arguments: '"Zürich"}' } }),
      chunk({}, 'tool_calls'),
      '[DONE]',
    ),
    'close',
    { bytesAtOnce: 7 },
  ),
}

const message = { id: 'msg_1', type: 'message', role: 'assistant', model, stop_sequence: null }
const spent = { input_tokens: 4, output_tokens: 9 }
const input = (partial: string) => ({ index: 0, delta: { type: 'input_json_delta', partial_json: partial } })

const messages = {
  whole: json(200, {
    ...message,
    content: [{ type: 'tool_use', id: 'call_1', name: 'weather', input: { city: 'Zürich' } }],
    stop_reason: 'tool_use',
    usage: spent,
  }),
  stream: stream(
    named(
      { type: 'message_start', ...{ message: { ...message, content: [], stop_reason: null, usage: spent } } },
      {
        type: 'content_block_start',
        ...{ index: 0, content_block: { type: 'tool_use', id: 'call_1', name: 'weather', input: {} } },
      },
      { type: 'content_block_delta', ...input('{"city":') },
      { type: 'content_block_delta', ...input('"Zürich"}') },
      { type: 'content_block_stop', ...{ index: 0 } },
      { type: 'message_delta', ...{ delta: { stop_reason: 'tool_use', stop_sequence: null }, usage: spent } },
      { type: 'message_stop' },
    ),
    'close',
    { bytesAtOnce: 7 },
  ),
}

/** The tool calls that each client reads, streamed and not. */
export async function toolSession(openAi: OpenAI, anthropic: Anthropic, baseURL: string): Promise<Session> {
  const asked = [{ role: 'user' as const, content: 'Is it raining?' }]
  const chat = {
    model,
    messages: asked,
    tools: [{ type: 'function' as const, function: { name: 'weather', parameters: schema } }],
  }
  const body = { model, max_tokens: 64, messages: asked, tools: [{ name: 'weather', input_schema: schema }] }
  const provider = createOpenAICompatible({ name: 'warmroute', baseURL, apiKey: 'any' })
  const forAi = {
    model: provider.chatModel(model),
    prompt: 'Is it raining?',
    // Its types do not stand up to exactOptionalPropertyTypes.
    tools: { weather: tool({ inputSchema: jsonSchema(schema) }) } as unknown as ToolSet,
  }
  const whole = await openAi.chat.completions.create(chat)
  const streamed = await openAi.chat.completions.stream(chat).finalChatCompletion()
  return {
    openAi: [whole.choices[0]?.message.tool_calls, streamed.choices[0]?.message.tool_calls],
    anthropic: [
      (await anthropic.messages.create(body)).content,
      (await anthropic.messages.stream(body).finalMessage()).content,
    ],
    ai: [inputs((await generateText(forAi)).toolCalls), inputs(await streamText(forAi).toolCalls)],
  }
}

function inputs(calls: readonly { readonly toolName: string; readonly input: unknown }[]): unknown {
  return calls.map(({ toolName, input }) => [toolName, input])
}
