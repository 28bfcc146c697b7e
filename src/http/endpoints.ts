import type { Endpoint } from '../pipeline.ts'
import type { Protocol } from '../protocol/protocol.ts'
import { protocols } from '../protocol/protocols.ts'
import type { PromptKind } from '../tokenize/service.ts'

/**
 * Every path whose requests are routed to a worker by what they hold. An allow-list: engines serve more than inference on
 * their port, some of it unguarded. A new endpoint is a line here.
 */
export const endpoints: readonly Endpoint[] = [
  routed('/v1/chat/completions', 'chat'),
  routed('/v1/completions', 'completion'),
  routed('/v1/responses', 'responses', { protocol: protocols.responses }),
  routed('/v1/messages', 'messages', { protocol: protocols.anthropic }),
  routed('/v1/messages/count_tokens', 'other', { protocol: protocols.anthropic }),
  routed('/inference/v1/generate', 'generate', { protocol: protocols.plain, modelOptional: true }),
  routed('/generate', 'sglang-generate', { protocol: protocols.plain, modelOptional: true }),
  // Nothing of these stays in a prefix cache that a later request could use: routed by load.
  ...[
    '/v1/embeddings',
    '/v1/rerank',
    '/v2/rerank',
    '/rerank',
    '/v1/score',
    '/score',
    '/v1/classify',
    '/classify',
    '/pooling',
  ].map((path) => routed(path, 'other', { modelOptional: true })),
  ...['/v1/audio/transcriptions', '/v1/audio/translations'].map((path) =>
    routed(path, 'other', { multipart: true, modelOptional: true }),
  ),
]

/** The stored responses of the Responses API: shown and cancelled by the worker that holds them. */
export const storedResponses: Endpoint = routed('/v1/responses', 'other', { protocol: protocols.responses })

/** How errors look on a path, whether it exists or not. */
export function protocolOf(url: string): Protocol {
  if (url.startsWith('/v1/messages')) return protocols.anthropic
  return protocols.openai
}

function routed(path: string, prompt: PromptKind, more: Partial<Endpoint> = {}): Endpoint {
  return { path, prompt, protocol: protocols.openai, modelOptional: false, multipart: false, ...more }
}
