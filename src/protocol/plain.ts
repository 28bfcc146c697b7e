import { hasNestedError, openAiErrorBody, openAiUpstreamErrorBody } from './openai.ts'
import type { Protocol } from './protocol.ts'

/** Engines' own endpoints, whose streams have no agreed end: a clean end is believed. */
export const plain: Protocol = {
  name: 'plain',
  errorBody: openAiErrorBody,
  upstreamErrorBody: openAiUpstreamErrorBody,
  hasErrorForm: hasNestedError,
  deathNote: (error) => `data: ${openAiErrorBody(error)}\n\ndata: [DONE]\n\n`,
  firstToken: null,
  lastEvents: [],
}
