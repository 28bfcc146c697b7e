import { RouterError } from '../errors.ts'

/**
 * What a client of a stream is sent when the worker dies: an error event, then the end marker, in vLLM's order, so that no
 * client takes a cut answer for a whole one (decision 21).
 */
export function openAiDeathNote(message: string): string {
  const { type, code, param } = new RouterError('UPSTREAM_DIED', message)
  const error = { message, type, param, code: code.toLowerCase() }
  return `data: ${JSON.stringify({ error })}\n\ndata: [DONE]\n\n`
}
