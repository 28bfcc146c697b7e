import type { RouterError } from '../errors.ts'
import type { Protocol } from '../protocol/protocol.ts'
import type { Worker } from '../workers/worker.ts'
import type { HeldAnswer } from './held-answer.ts'

export interface ForwardLimits {
  readonly connectMs: number
  readonly firstTokenMs: number
  readonly idleMs: number
  readonly totalMs: number
  readonly streamTotalMs: number
  readonly clientStallMs: number
  readonly heldEventBytes: number
  readonly heldAnswerBytes: number
  readonly answerHeaderBytes: number
  readonly connectionsPerWorker: number
}

export interface ForwardRequest {
  readonly worker: Worker
  readonly method: 'GET' | 'POST' | 'DELETE'
  /** Path and query as the client sent them. */
  readonly path: string
  /** Flat list of lower-case names and values. */
  readonly headers: string[]
  readonly body: Buffer | null
  readonly stream: boolean
  readonly protocol: Protocol
  /** Headers added to the answer, as a flat list. */
  readonly answerHeaders: readonly string[]
  /** The first token of a stream has come, or the first body byte of another 2xx answer. */
  readonly onFirstToken?: () => void
  /** Complete events of a stream that went by. */
  readonly onEvents?: (count: number) => void
}

/** What the answer itself told. */
export interface AnswerFacts {
  /** Null where the engine does not report it. */
  readonly cachedTokens: number | null
  /** As the engine reports them, else as many as events of a stream went by. */
  readonly generatedTokens: number
  /** `resp_…` of an answer of the Responses API. */
  readonly responseId: string | null
}

export type ForwardOutcome =
  | { readonly kind: 'answered'; readonly status: number; readonly facts: AnswerFacts }
  /** The worker answered with an error, which is held back: send it on, or try another worker. */
  | { readonly kind: 'errored'; readonly status: number; readonly answer: HeldAnswer }
  /** No answer came. Nothing was written to the client. */
  | {
      readonly kind: 'failed'
      readonly error: RouterError
      readonly mayRetry: boolean
      /** The worker did not even take the connection. */
      readonly refused: boolean
    }
  /** The answer had begun when the worker died; the client has been told. */
  | { readonly kind: 'died'; readonly status: number; readonly reason: string; readonly generatedTokens: number }
  | { readonly kind: 'clientGone'; readonly status: number; readonly generatedTokens: number }
