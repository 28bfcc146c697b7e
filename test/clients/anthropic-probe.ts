import type Anthropic from '@anthropic-ai/sdk'
import type { APIError } from '@anthropic-ai/sdk'
import type { ProbeRequest } from './case.ts'
import type { Failure, Outcome } from './outcome.ts'

/** What Anthropic's library makes of a case. */
export async function probeAnthropic(client: Anthropic, request: ProbeRequest): Promise<Outcome> {
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

type Probe = (client: Anthropic, request: ProbeRequest, read: Read) => Promise<void>

const apis: Readonly<Record<string, Probe>> = {
  messages: async (client, request, read) => {
    const answer = await client.messages.create(bodyOf(request), optionsOf(request))
    for (const block of answer.content) if (block.type === 'text') read.text += block.text
    read.requestId = answer._request_id ?? null
  },
  messagesStream: async (client, request, read) => {
    const stream = await client.messages.create({ ...bodyOf(request), stream: true }, optionsOf(request))
    for await (const event of stream) {
      if (event.type === 'content_block_delta' && event.delta.type === 'text_delta') read.text += event.delta.text
      if (request.leaves && read.text !== '') break
    }
  },
  messagesWrapper: async (client, request, read) => {
    const stream = client.messages.stream(bodyOf(request), optionsOf(request))
    const left = new Promise<void>((resolve) => {
      stream.on('text', (text) => {
        read.text += text
        if (!request.leaves) return
        stream.abort()
        resolve()
      })
    })
    if (request.leaves) {
      await Promise.all([left, stream.done().catch(() => undefined)])
      return
    }
    const message = await stream.finalMessage()
    read.requestId = stream.request_id ?? null
    if (message.stop_reason === null) throw new Error('The final message is not complete')
  },
}

function bodyOf({ model }: ProbeRequest) {
  return { model, max_tokens: 16, messages: [{ role: 'user' as const, content: 'Hi' }] }
}

function optionsOf({ id }: ProbeRequest): { headers: Record<string, string> } {
  return { headers: { 'x-case': id, 'x-request-id': id } }
}

function failureOf(thrown: unknown): Failure {
  const error = thrown as Error & Partial<APIError>
  return {
    kind: error.constructor.name,
    status: error.status ?? null,
    message: error.message,
    type: error.type ?? null,
    code: null,
    param: null,
    requestId: error.requestID ?? null,
  }
}
