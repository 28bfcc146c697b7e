import { openAi } from './openai.ts'
import type { Protocol } from './protocol.ts'

/** Engines' own endpoints, whose streams have no agreed end: a clean end is believed. */
export const plain: Protocol = { ...openAi, name: 'plain', lastEvents: [] }
