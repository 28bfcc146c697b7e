import { anthropic } from './anthropic.ts'
import { openAi } from './openai.ts'
import { plain } from './plain.ts'
import type { Protocol, ProtocolName } from './protocol.ts'
import { responses } from './responses.ts'

/** Every client API by name. */
export const protocols: Readonly<Record<ProtocolName, Protocol>> = { openai: openAi, responses, anthropic, plain }
