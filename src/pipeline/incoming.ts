import type { Caller } from '../admission/caller.ts'
import type { Protocol } from '../protocol/protocol.ts'
import type { PolicyFacts } from '../routing/policy.ts'
import type { PromptKind, ReadBody } from '../tokenize/service.ts'
import type { ModelTarget } from '../workers/pool.ts'
import type { Worker } from '../workers/worker.ts'

/** One path that is routed, and how its requests are read and answered. */
export interface Endpoint {
  readonly path: string
  /** How the prompt is read from the body. */
  readonly prompt: PromptKind
  readonly protocol: Protocol
  /** Whether the engines take requests that name no model; the only pool then takes them here. */
  readonly modelOptional: boolean
  /** A form with a file: only its `model` is read. */
  readonly multipart: boolean
}

/** A request as the front door hands it on. */
export interface Incoming {
  readonly requestId: string
  readonly endpoint: Endpoint
  readonly caller: Caller
  /** Path and query as the client sent them. */
  readonly path: string
  readonly rawHeaders: readonly string[]
  /** Headers that tell the worker where the request came from, as a flat list. */
  readonly forwarded: readonly string[]
  readonly contentType: string
  readonly body: Buffer
  readonly sessionId: string | null
  /** Whether this client may see `x-warmroute-*` (decision 24). */
  readonly trusted: boolean
  /** Whether it asked for the decision in a header. */
  readonly wantsDecision: boolean
  /** How often the client's library has tried before, as it says in `x-stainless-retry-count`; 0 where it does not. */
  readonly retryCount: number
}

/** What is known of a request once it has been read, resolved and tokenized. */
export interface Prepared {
  readonly incoming: Incoming
  readonly read: ReadBody
  readonly target: ModelTarget
  /** The only worker that can answer: it holds what the request goes on from. */
  readonly owner: Worker | null
  /** Empty where the prompt could not be tokenized. */
  readonly prompts: readonly Uint32Array[]
  /** The longest prompt: the request is routed by it (decision 17). */
  readonly longest: Uint32Array | null
  /** Above 0 the prompt is known up to its first media only, and this is a guess at the tokens after. */
  readonly unknownTokens: number
  /** Why the prefix match cannot be used, if it cannot. */
  readonly fallback: string | null
  readonly policy: PolicyFacts
  readonly tokenizeUs: number
  readonly arrivedMs: number
}

/** Prompt tokens of all prompts of a request, estimated where they were not tokenized. */
export function promptTokensOf({ prompts, policy }: Prepared): number {
  if (prompts.length < 2) return policy.promptTokensEstimate
  return prompts.reduce((total, prompt) => total + prompt.length, 0)
}
