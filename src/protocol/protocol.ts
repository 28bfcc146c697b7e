import type { RouterError } from '../errors.ts'

/** One client API on the wire: how its errors look, how its streams end, and how a stream that cannot end well is told of it. */
export interface Protocol {
  readonly name: ProtocolName
  errorBody(error: RouterError): string
  /** The same form for an error that a worker told in another one. */
  upstreamErrorBody(error: UpstreamError): string
  /** Whether a worker's JSON error is in this form already, so that its bytes can go on as they are. */
  hasErrorForm(body: Readonly<Record<string, unknown>>): boolean
  /**
   * What a client of a stream is sent when the worker dies: an error event and what ends streams here, so that no client takes
   * a cut answer for a whole one (decision 21).
   */
  deathNote(error: RouterError): string
  /** Part of the first event that comes with a token; null where the first event of all does. */
  readonly firstToken: string | null
  /** Line beginnings of the events that end a stream; none where a stream has no such mark. */
  readonly lastEvents: readonly string[]
}

export type ProtocolName = 'openai' | 'responses' | 'anthropic' | 'plain'

/** An error answer of a worker, whatever form it had. */
export interface UpstreamError {
  readonly status: number
  readonly message: string
  readonly param: string | null
  /** As the worker named it; null where it did not. */
  readonly type: string | null
}
