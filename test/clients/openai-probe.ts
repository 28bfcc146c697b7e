import type OpenAI from 'openai'
import type { ProbeRequest } from './case.ts'
import type { Failure, Outcome } from './outcome.ts'

/**
 * What OpenAI's library for JavaScript makes of a case. Imports nothing that runs, so that it can be run by an older Node with its
 * types taken away.
 */
export async function probeOpenAi(client: OpenAI, request: ProbeRequest): Promise<Outcome> {
  const startMs = performance.now()
  const read = { text: '', requestId: null as string | null }
  let error: Failure | null = null
  try {
    await apis[request.api]?.(client, request, read)
  } catch (thrown) {
    error = failureOf(thrown)
  }
  return { ...read, error, durationMs: performance.now() - startMs }
}

interface Read {
  text: string
  requestId: string | null
}

type Probe = (client: OpenAI, request: ProbeRequest, read: Read) => Promise<void>

const messages = [{ role: 'user' as const, content: 'Hi' }]

const apis: Readonly<Record<string, Probe>> = {
  chat: async (client, request, read) => {
    const answer = await client.chat.completions.create({ model: request.model, messages }, optionsOf(request))
    read.text = answer.choices[0]?.message.content ?? ''
    read.requestId = answer._request_id ?? null
  },
  chatStream: async (client, request, read) => {
    const stream = await client.chat.completions.create(
      { model: request.model, messages, stream: true },
      optionsOf(request),
    )
    for await (const chunk of stream) {
      read.text += chunk.choices[0]?.delta.content ?? ''
      if (request.leaves) break
    }
  },
  completion: async (client, request, read) => {
    const answer = await client.completions.create({ model: request.model, prompt: 'Hi' }, optionsOf(request))
    read.text = answer.choices[0]?.text ?? ''
    read.requestId = answer._request_id ?? null
  },
  completionStream: async (client, request, read) => {
    const stream = await client.completions.create(
      { model: request.model, prompt: 'Hi', stream: true },
      optionsOf(request),
    )
    for await (const chunk of stream) read.text += chunk.choices[0]?.text ?? ''
  },
  responses: async (client, request, read) => {
    const answer = await client.responses.create({ model: request.model, input: 'Hi' }, optionsOf(request))
    read.text = answer.output_text
    read.requestId = answer._request_id ?? null
  },
  responsesStream: async (client, request, read) => {
    const stream = await client.responses.create(
      { model: request.model, input: 'Hi', stream: true },
      optionsOf(request),
    )
    for await (const event of stream) if (event.type === 'response.output_text.delta') read.text += event.delta
  },
  image: async (client, request) => {
    await client.images.generate({ model: request.model, prompt: 'Hi' }, optionsOf(request))
  },
}

function optionsOf({ id, timeoutMs }: ProbeRequest): { headers: Record<string, string>; timeout?: number } {
  return { headers: { 'x-case': id, 'x-request-id': id }, ...(timeoutMs === null ? {} : { timeout: timeoutMs }) }
}

function failureOf(thrown: unknown): Failure {
  const error = thrown as Error & {
    status?: number
    type?: string
    code?: string | number | null
    param?: string | null
    requestID?: string | null
  }
  return {
    kind: error.constructor.name,
    status: error.status ?? null,
    message: error.message,
    type: error.type ?? null,
    code: error.code === undefined || error.code === null ? null : String(error.code),
    param: error.param ?? null,
    requestId: error.requestID ?? null,
  }
}
