import type { Expected } from './outcome.ts'
import type { Answer } from './wire.ts'

export type OpenAiApi =
  'chat' | 'chatStream' | 'completion' | 'completionStream' | 'responses' | 'responsesStream' | 'image'
export type AnthropicApi = 'messages' | 'messagesStream' | 'messagesWrapper'

/** One answer of an engine, or of the router itself, and what clients are to make of it. */
export interface Case<Api extends string = OpenAiApi | AnthropicApi> {
  /** A fact. */
  readonly name: string
  readonly api: Api
  /** What the engine answers; left out where nothing may reach it. */
  readonly answer?: Answer
  readonly expected: Expected
  /** In place of the model that the engine serves. */
  readonly model?: string
  /** Clients leave a stream after its first chunk. */
  readonly leaves?: boolean
  /** Clients give up after so long. */
  readonly timeoutMs?: number
}

/** What a probe is told of a case, in any language. */
export interface ProbeRequest {
  readonly id: string
  readonly api: string
  readonly model: string
  readonly leaves: boolean
  readonly timeoutMs: number | null
}
