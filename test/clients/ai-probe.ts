import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { APICallError, generateText, RetryError, streamText } from 'ai'
import type { ProbeRequest } from './case.ts'
import type { Failure, Outcome } from './outcome.ts'

/** What the AI SDK makes of a case. */
export async function probeAi(baseURL: string, request: ProbeRequest): Promise<Outcome> {
  const startMs = performance.now()
  const provider = createOpenAICompatible({ name: 'warmroute', baseURL, apiKey: 'any' })
  const call = {
    model: provider.chatModel(request.model),
    prompt: 'Hi',
    headers: { 'x-case': request.id, 'x-request-id': request.id },
  }
  const read = { text: '', requestId: null as string | null }
  let error: Failure | null = null
  try {
    if (request.api === 'chat') {
      const answer = await generateText(call)
      read.text = answer.text
      read.requestId = answer.finalStep.response.headers?.['x-request-id'] ?? null
    } else {
      const leaving = new AbortController()
      const { stream } = streamText({ ...call, abortSignal: leaving.signal, onError: () => undefined })
      for await (const part of stream) {
        if (part.type === 'text-delta') {
          read.text += part.text
          if (request.leaves) leaving.abort()
        }
        if (part.type === 'error') throw part.error
      }
    }
  } catch (thrown) {
    error = failureOf(thrown)
  }
  return { ...read, error, durationMs: performance.now() - startMs }
}

function failureOf(thrown: unknown): Failure {
  const error: unknown = RetryError.isInstance(thrown) ? thrown.lastError : thrown
  const nameless = { kind: '', status: null, type: null, code: null, param: null, requestId: null }
  if (!APICallError.isInstance(error)) return { ...nameless, message: messageOf(error) }
  const { error: told } = (error.data ?? {}) as { error?: { type?: string; code?: string | number; param?: string } }
  return {
    ...nameless,
    type: told?.type ?? null,
    code: told?.code === undefined ? null : String(told.code),
    param: told?.param ?? null,
    message: error.message,
    status: error.statusCode ?? null,
    requestId: error.responseHeaders?.['x-request-id'] ?? null,
  }
}

/** Error events of a stream come as their text, or as what they hold. */
function messageOf(error: unknown): string {
  if (error instanceof Error) return error.message
  if (typeof error === 'string') return error
  return (error as { message?: string } | null)?.message ?? JSON.stringify(error)
}
