import type { RouterError } from '../errors.ts'
import { openAi } from './openai.ts'
import type { Protocol } from './protocol.ts'

/** OpenAI's /v1/responses. */
export const responses: Protocol = {
  ...openAi,
  name: 'responses',
  deathNote,
  // `response.created` and `response.in_progress` are sent before the engine has begun.
  firstToken: 'event: response.output_item.added',
  lastEvents: ['event: response.completed', 'event: response.failed', 'event: response.incomplete', 'data: [DONE]'],
}

/** The flat fields are those of the API's own `error` event; SDKs of all versions throw on the nested ones. */
function deathNote({ message, type, param, code }: RouterError): string {
  const flat = { code: code.toLowerCase(), message, param, sequence_number: 0 }
  return `event: error\ndata: ${JSON.stringify({ type: 'error', ...flat, error: { type, ...flat } })}\n\n`
}
