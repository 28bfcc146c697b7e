import { RouterError, type ErrorCode } from '../errors.ts'
import type { ByteRange } from './body.ts'
import type { PromptSource } from './prompt-source.ts'
import type { PromptKind, RequestFields } from './request.ts'

/** What a tokenizer is loaded from. */
export interface TokenizerSource {
  readonly path: string
  readonly chatTemplate?: string
}

/** Thread 0 to a tokenizer thread. */
export type ThreadCommand =
  | { readonly kind: 'add'; readonly name: string; readonly source: TokenizerSource }
  | { readonly kind: 'remove'; readonly name: string }
  | {
      readonly kind: 'read'
      readonly job: number
      /** In memory that is shared, and overwritten by the next command, or transferred if it is longer than that. */
      readonly body: Uint8Array
      /** Names of the body's beginnings (see Affinity). */
      readonly names: readonly number[]
      /** The pool that the conversation's last turn was for: its tokens are made right away. Null if not known. */
      readonly pool: string | null
      readonly prompt: PromptKind
    }
  /** Without a body: that of an earlier `read` under the same job. */
  | {
      readonly kind: 'tokens'
      readonly job: number
      readonly name: string
      readonly body: Uint8Array | null
      readonly prompt: PromptKind
    }

export interface ReadAnswer {
  readonly kind: 'read'
  readonly fields: RequestFields
  readonly ranges: ReadonlyMap<string, ByteRange>
  /** What the prompt is made of. */
  readonly source: PromptSource['kind']
  /** The tokens for the pool that the command named; null if it named none or they cannot be made. */
  readonly tokens: TokensAnswer | null
}

export interface TokensAnswer {
  readonly kind: 'tokens'
  readonly prompts: readonly Uint32Array[]
  readonly cachedTokens: number
  readonly unknownTokens: number
}

/** A tokenizer thread to thread 0. `gone`: the body of that job is not kept any more; send it again. */
export interface ThreadAnswer {
  readonly job: number
  readonly result:
    ReadAnswer | TokensAnswer | { readonly kind: 'gone' } | { readonly kind: 'failed'; readonly error: SentError }
  readonly cacheBytes: number
}

/** A RouterError between threads: structured clone keeps neither class nor fields of an Error. */
export interface SentError {
  readonly code: ErrorCode
  readonly message: string
  readonly param: string | null
}

export function toSentError(error: unknown): SentError {
  if (error instanceof RouterError) return { code: error.code, message: error.message, param: error.param }
  const reason = error instanceof Error ? error.message : String(error)
  return { code: 'TOKENIZER_FAILED', message: `Tokenizing failed: ${reason}`, param: null }
}

export function fromSentError(error: SentError): RouterError {
  return new RouterError(error.code, error.message, { param: error.param })
}

/** The commands that are answered. */
export type ThreadJob = Exclude<ThreadCommand, { kind: 'add' | 'remove' }>
