import type Anthropic from '@anthropic-ai/sdk'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { embed, generateText, streamText } from 'ai'
import type OpenAI from 'openai'
import { model, prose } from '../support/fleet.ts'

/** All that a client learns from a server in one go through its API. */
export type Session = Readonly<Record<string, unknown>>

const text = prose('session', 60)
const messages = [
  { role: 'system' as const, content: prose('manner', 40) },
  { role: 'user' as const, content: text },
]

export async function openAiSession(client: OpenAI): Promise<Session> {
  const chat = { model, messages, max_completion_tokens: 9 }
  const prompt = { model, prompt: text, max_tokens: 7 }
  const first = await client.responses.create({ model, input: text, max_output_tokens: 6 })
  return {
    chat: await client.chat.completions.create({ ...chat, n: 2 }),
    chatStream: await all(await client.chat.completions.create({ ...chat, stream: true })),
    chatUsage: await all(
      await client.chat.completions.create({ ...chat, stream: true, stream_options: { include_usage: true } }),
    ),
    chatHelper: await client.chat.completions.stream(chat).finalChatCompletion(),
    completion: await client.completions.create(prompt),
    completionStream: await all(await client.completions.create({ ...prompt, stream: true })),
    response: first,
    responseStream: await all(
      await client.responses.create({ model, input: text, max_output_tokens: 6, stream: true }),
    ),
    retrieved: await client.responses.retrieve(first.id),
    goneOnFrom: await client.responses.create({ model, previous_response_id: first.id, input: 'And then?' }),
    cancelled: await cancelled(client),
    notCancelled: await told(client.responses.cancel(first.id)),
    unknown: await statusOf(client.responses.retrieve('resp_unknown')),
    unknownPrevious: await statusOf(
      client.responses.create({ model, previous_response_id: 'resp_unknown', input: 'Hi' }),
    ),
    embedding: await client.embeddings.create({ model, input: [text, 'Hi'] }),
    models: (await all(await client.models.list())).map(({ id }) => id),
    tooLong: await told(client.chat.completions.create({ ...chat, max_completion_tokens: 1_000_000 })),
  }
}

async function cancelled(client: OpenAI): Promise<unknown> {
  const { id, status } = await client.responses.create({
    model,
    input: text,
    background: true,
    max_output_tokens: 5000,
  })
  return [status, await client.responses.cancel(id), (await client.responses.retrieve(id)).status]
}

export async function anthropicSession(client: Anthropic): Promise<Session> {
  const body = {
    model,
    max_tokens: 9,
    system: [{ type: 'text' as const, text: prose('manner', 40), cache_control: { type: 'ephemeral' as const } }],
    messages: [{ role: 'user' as const, content: text }],
  }
  const wrapper = client.messages.stream(body)
  return {
    message: await client.messages.create(body),
    iterated: await all(await client.messages.create({ ...body, stream: true })),
    wrapped: await wrapper.finalMessage(),
    count: await client.messages.countTokens({ model, system: body.system, messages: body.messages }),
    tooLong: await told(client.messages.create({ ...body, max_tokens: 1_000_000, stream: true })),
  }
}

export async function aiSession(baseURL: string): Promise<Session> {
  const provider = createOpenAICompatible({ name: 'warmroute', baseURL, apiKey: 'any', includeUsage: true })
  const call = { model: provider.chatModel(model), instructions: prose('manner', 40), prompt: text, maxOutputTokens: 9 }
  const whole = await generateText(call)
  const streamed = streamText(call)
  return {
    whole: [whole.text, whole.finishReason, whole.usage],
    streamed: [await all(streamed.textStream), await streamed.finishReason, await streamed.usage],
    embedding: (await embed({ model: provider.embeddingModel(model), value: text })).embedding,
  }
}

/** Ids and times differ between two answers to the same request; the rest must not. */
export function masked(session: Session): Session {
  const ids = /\b(chatcmpl|cmpl|embd|resp|msg)[-_][\w-]+/g
  const times = /"(created|created_at|completed_at)":[\d.]+/g
  return JSON.parse(JSON.stringify(session).replace(ids, '$1').replace(times, '"$1":0')) as Session
}

async function all<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const list: Item[] = []
  for await (const item of items) list.push(item)
  return list
}

/** What an error tells. */
async function told(promise: Promise<unknown>): Promise<unknown> {
  try {
    return await promise
  } catch (thrown) {
    const { status, type, param, message } = thrown as Error & Readonly<Record<string, unknown>>
    return { status, type, param, message }
  }
}

/** Where the router answers itself, in its own words. */
async function statusOf(promise: Promise<unknown>): Promise<unknown> {
  const { status, param } = (await told(promise)) as { status?: unknown; param?: unknown }
  return { status, param }
}
