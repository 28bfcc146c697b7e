import { RouterError } from '../errors.ts'

/**
 * How a body is read: by the endpoint that it was sent to. `generate` is vLLM's /inference/v1/generate, `sglang-generate`
 * SGLang's /generate; `other` has no prompt that an engine would keep in its cache.
 */
export type PromptKind =
  'chat' | 'completion' | 'messages' | 'responses' | 'generate' | 'sglang-generate' | 'tokenize' | 'other'

/** What the router itself needs of a request body. */
export interface RequestFields {
  /** Empty if the body names none, which the kinds `generate`, `sglang-generate` and `other` allow. */
  readonly model: string
  readonly stream: boolean
  /** Whether the stream is to end with a usage chunk (`stream_options.include_usage`). */
  readonly includeUsage: boolean
  /** Answers asked for; 1 if absent. */
  readonly n: number
  /** The limit of generated tokens, null if the request sets none. */
  readonly maxTokens: number | null
  readonly cacheSalt: string | null
  readonly sessionId: string | null
  /** As the body has it: lower goes first for vLLM, higher for SGLang; 0 if absent. */
  readonly priority: number
  readonly user: string | null
  /** The response that a body of /v1/responses goes on from: only the worker that gave it knows the prompt. */
  readonly previousResponseId: string | null
}

type Body = Readonly<Record<string, unknown>>

/** @throws RouterError BODY_INVALID naming the field */
export function requestFields(body: Body, kind: PromptKind): RequestFields {
  const options = body['stream_options']
  const usage = isObject(options) ? options['include_usage'] : undefined
  return {
    model: text(body, 'model') ?? '',
    stream: flag(body, 'stream') ?? false,
    includeUsage: usage === true,
    ...answersAsked(body, kind),
    ...(kind === 'messages' ? ofMessages(body) : ofOthers(body, kind)),
    previousResponseId: kind === 'responses' ? text(body, 'previous_response_id') : null,
  }
}

function answersAsked(body: Body, kind: PromptKind): Pick<RequestFields, 'n' | 'maxTokens'> {
  switch (kind) {
    case 'chat':
    case 'completion':
    case 'tokenize':
    case 'other':
      return {
        n: integer(body, 'n', 1) ?? 1,
        maxTokens:
          integer(body, 'max_completion_tokens', 0) ??
          integer(body, 'max_tokens', 0) ??
          integer(body, 'max_output_tokens', 0),
      }
    case 'messages':
      return { n: 1, maxTokens: integer(body, 'max_tokens', 0) }
    case 'responses':
      return { n: 1, maxTokens: integer(body, 'max_output_tokens', 0) }
    case 'generate': {
      const sampling = isObject(body['sampling_params']) ? body['sampling_params'] : {}
      const where = 'sampling_params.'
      return { n: integer(sampling, 'n', 1, where) ?? 1, maxTokens: integer(sampling, 'max_tokens', 0, where) }
    }
    case 'sglang-generate': {
      // A list has parameters for each prompt; the most that one of them asks for stands for all.
      const given = body['sampling_params']
      const sampling = (Array.isArray(given) ? (given as unknown[]) : [given]).filter(isObject)
      const limits = sampling.map((one) => one['max_new_tokens']).filter((limit) => isCount(limit, 0))
      const counts = sampling.map((one) => one['n']).filter((n) => isCount(n, 1))
      return { n: Math.max(1, ...counts), maxTokens: limits.length === 0 ? null : Math.max(...limits) }
    }
    default:
      return kind satisfies never
  }
}

type Sender = Pick<RequestFields, 'cacheSalt' | 'sessionId' | 'priority' | 'user'>

/** Anthropic's own API has neither session nor priority: engines take them from headers, and ignore such fields in the body. */
function ofMessages(body: Body): Sender {
  const metadata = body['metadata']
  const user = isObject(metadata) ? metadata['user_id'] : null
  return {
    cacheSalt: text(body, 'cache_salt'),
    sessionId: null,
    priority: 0,
    user: typeof user === 'string' ? user : null,
  }
}

function ofOthers(body: Body, kind: PromptKind): Sender {
  const ownSalts = kind === 'sglang-generate' && typeof body['cache_salt'] !== 'string'
  return {
    cacheSalt: ownSalts ? null : text(body, 'cache_salt'),
    sessionId: text(body, 'session_id'),
    priority: integer(body, 'priority', Number.MIN_SAFE_INTEGER) ?? 0,
    user: typeof body['user'] === 'string' ? body['user'] : null,
  }
}

function text(body: Body, key: string): string | null {
  const value = body[key]
  if (value === undefined || value === null) return null
  if (typeof value !== 'string') throw invalid(key, 'must be a string')
  return value
}

function flag(body: Body, key: string): boolean | null {
  const value = body[key]
  if (value === undefined || value === null) return null
  if (typeof value !== 'boolean') throw invalid(key, 'must be true or false')
  return value
}

/** @param where the body lies in the request's, for the error */
function integer(body: Body, key: string, least: number, where = ''): number | null {
  const value = body[key]
  if (value === undefined || value === null) return null
  if (typeof value !== 'number' || !Number.isInteger(value)) throw invalid(where + key, 'must be an integer')
  if (value < least) throw invalid(where + key, `must be at least ${least}`)
  return value
}

function isCount(value: unknown, least: number): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= least
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function invalid(param: string, what: string): RouterError {
  return new RouterError('BODY_INVALID', `"${param}" ${what}.`, { param })
}
