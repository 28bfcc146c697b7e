import { RouterError } from '../errors.ts'
import type { ChatPrompt } from './chat.ts'

/** How a body is read: by the endpoint that it was sent to. */
export type PromptKind = 'chat' | 'completion' | 'tokenize' | 'other'

/** What the router itself needs of a request body. */
export interface RequestFields {
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
  /** vLLM's: lower goes first; 0 if absent. */
  readonly priority: number
  readonly user: string | null
}

/** What a request is to be tokenized from. */
export type PromptSource =
  | { readonly kind: 'chat'; readonly chat: ChatPrompt }
  | { readonly kind: 'texts'; readonly texts: readonly string[]; readonly addSpecialTokens: boolean }
  | { readonly kind: 'ids'; readonly prompts: readonly Uint32Array[] }
  | { readonly kind: 'none' }

/** @throws RouterError BODY_INVALID naming the field */
export function requestFields(body: Readonly<Record<string, unknown>>): RequestFields {
  const options = body['stream_options']
  const usage = isObject(options) ? options['include_usage'] : undefined
  return {
    model: text(body, 'model') ?? '',
    stream: flag(body, 'stream') ?? false,
    includeUsage: usage === true,
    n: integer(body, 'n', 1) ?? 1,
    maxTokens:
      integer(body, 'max_completion_tokens', 0) ??
      integer(body, 'max_tokens', 0) ??
      integer(body, 'max_output_tokens', 0),
    cacheSalt: text(body, 'cache_salt'),
    sessionId: text(body, 'session_id'),
    priority: integer(body, 'priority', Number.MIN_SAFE_INTEGER) ?? 0,
    user: typeof body['user'] === 'string' ? body['user'] : null,
  }
}

/**
 * What to tokenize, by the endpoint. Token ids are taken as they are, checked for being integers from 0 on; whether the
 * vocabulary has them is checked when the tokenizer is known.
 *
 * @throws RouterError BODY_INVALID, TOKEN_ID_INVALID
 */
export function promptSource(body: Readonly<Record<string, unknown>>, kind: PromptKind): PromptSource {
  switch (kind) {
    case 'chat':
      if (body['messages'] === undefined) throw invalid('messages', 'is missing')
      return { kind: 'chat', chat: body as unknown as ChatPrompt }
    case 'completion':
      return completionPrompt(body['prompt'], flag(body, 'add_special_tokens') ?? true)
    case 'tokenize':
      return promptSource(body, body['messages'] === undefined ? 'completion' : 'chat')
    case 'other':
      return { kind: 'none' }
    default:
      return kind satisfies never
  }
}

/** Prompts of one completion request at most. */
const maxPrompts = 2048

/** OpenAI's four forms: a text, a list of texts, token ids, a list of lists of token ids. */
function completionPrompt(prompt: unknown, addSpecialTokens: boolean): PromptSource {
  if (prompt === undefined || prompt === null) throw invalid('prompt', 'is missing')
  if (typeof prompt === 'string') return { kind: 'texts', texts: [prompt], addSpecialTokens }
  if (!Array.isArray(prompt) || prompt.length === 0) {
    throw invalid('prompt', 'must be a text, token ids, or a list of either that is not empty')
  }
  const items = prompt as readonly unknown[]
  if (typeof items[0] === 'number') return { kind: 'ids', prompts: [tokenIds(items, 'prompt')] }
  if (items.length > maxPrompts) throw invalid('prompt', `holds more than ${maxPrompts} prompts`)
  if (typeof items[0] === 'string') {
    const other = items.findIndex((item) => typeof item !== 'string')
    if (other >= 0) throw invalid(`prompt[${other}]`, 'must be a text as the first prompt is')
    return { kind: 'texts', texts: items as readonly string[], addSpecialTokens }
  }
  return {
    kind: 'ids',
    prompts: items.map((item, index) => {
      if (!Array.isArray(item)) throw invalid(`prompt[${index}]`, 'must be a text or a list of token ids')
      return tokenIds(item, `prompt[${index}]`)
    }),
  }
}

function tokenIds(ids: readonly unknown[], where: string): Uint32Array {
  const result = new Uint32Array(ids.length)
  for (let index = 0; index < ids.length; index += 1) {
    const id = ids[index]
    if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id > 0xffff_ffff) {
      throw new RouterError('TOKEN_ID_INVALID', `"${where}[${index}]" is not a token id.`, { param: where })
    }
    result[index] = id
  }
  return result
}

/** @throws RouterError TOKEN_ID_INVALID for an id that the vocabulary does not have */
export function checkTokenIds(prompts: readonly Uint32Array[], vocabularySize: number): void {
  for (const prompt of prompts) {
    for (let index = 0; index < prompt.length; index += 1) {
      if ((prompt[index] as number) >= vocabularySize) {
        throw new RouterError(
          'TOKEN_ID_INVALID',
          `Token id ${prompt[index] as number} is out of vocabulary (${vocabularySize} tokens).`,
          {
            param: 'prompt',
          },
        )
      }
    }
  }
}

function text(body: Readonly<Record<string, unknown>>, key: string): string | null {
  const value = body[key]
  if (value === undefined || value === null) return null
  if (typeof value !== 'string') throw invalid(key, 'must be a string')
  return value
}

function flag(body: Readonly<Record<string, unknown>>, key: string): boolean | null {
  const value = body[key]
  if (value === undefined || value === null) return null
  if (typeof value !== 'boolean') throw invalid(key, 'must be true or false')
  return value
}

function integer(body: Readonly<Record<string, unknown>>, key: string, least: number): number | null {
  const value = body[key]
  if (value === undefined || value === null) return null
  if (typeof value !== 'number' || !Number.isInteger(value)) throw invalid(key, 'must be an integer')
  if (value < least) throw invalid(key, `must be at least ${least}`)
  return value
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function invalid(param: string, what: string): RouterError {
  return new RouterError('BODY_INVALID', `"${param}" ${what}.`, { param })
}
