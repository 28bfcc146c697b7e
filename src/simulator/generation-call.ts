import { ApiError } from './api-error.ts'
import type { SimulatorTokenizer } from './tokenizer.ts'

/** An adapter that the engine serves beside its model. */
export interface LoraAdapter {
  readonly name: string
  readonly path: string
}

export interface CallContext {
  readonly model: string
  readonly loras: readonly LoraAdapter[]
  readonly tokenizer: SimulatorTokenizer
  readonly maxModelLength: number
  /** Tokens of an answer whose request names no limit; it then ends with `stop` as at an end-of-text token. */
  readonly defaultOutputTokens: number
  /** vLLM's bound on `n` times prompts is its queue; ours is a number. */
  readonly maxSequences: number
}

/** A chat or completion request, read and tokenized. */
export interface GenerationCall {
  readonly kind: 'chat' | 'completion'
  readonly model: string
  readonly prompts: readonly Uint32Array[]
  readonly choices: number
  readonly outputTokens: number
  readonly finishReason: 'length' | 'stop'
  readonly stream: boolean
  readonly includeUsage: boolean
  readonly continuousUsage: boolean
  readonly returnTokenIds: boolean
  readonly reportWhole: boolean
  readonly cacheSalt: string | null
  readonly sessionId: string | null
  readonly lora: { readonly name: string; readonly id: number; readonly path: string } | null
}

type Body = Readonly<Record<string, unknown>>

/** Reads a request body. Throws ApiError: 404 for an unknown model, 400 for the rest. */
export async function readCall(
  kind: 'chat' | 'completion',
  value: unknown,
  sessionHeader: string | null,
  context: CallContext,
): Promise<GenerationCall> {
  const body = bodyOf(value)
  const model = textOf(body, 'model') ?? context.model
  const loraIndex = context.loras.findIndex(({ name }) => name === model)
  const adapter = context.loras[loraIndex]
  if (model !== context.model && adapter === undefined) {
    throw new ApiError(404, `The model \`${model}\` does not exist.`, 'model')
  }
  const stream = flagOf(body, 'stream')
  const streamOptions = recordOf(body, 'stream_options')
  if (streamOptions !== null && !stream) {
    throw new ApiError(400, 'Stream options can only be defined when `stream=True`.', 'stream_options')
  }
  const choices = wholeOf(body, 'n', 1) ?? 1
  const named = (kind === 'chat' ? wholeOf(body, 'max_completion_tokens', 1) : null) ?? wholeOf(body, 'max_tokens', 1)
  const cacheSalt = textOf(body, 'cache_salt')
  if (cacheSalt === '') throw new ApiError(400, 'Parameter `cache_salt` must be a non-empty string.', 'cache_salt')
  const xargs = recordOf(body, 'vllm_xargs')
  const prompts = kind === 'chat' ? [await chatPrompt(body, context)] : await completionPrompts(body, context)
  if (prompts.length * choices > context.maxSequences) {
    throw new ApiError(400, `A request may ask for at most ${context.maxSequences} answers.`, 'n')
  }
  const longest = prompts.reduce((most, prompt) => Math.max(most, prompt.length), 0)
  const outputTokens = named ?? Math.min(context.defaultOutputTokens, context.maxModelLength - longest)
  if (outputTokens < 1 || longest + outputTokens > context.maxModelLength) {
    throw new ApiError(
      400,
      `This model's maximum context length is ${context.maxModelLength} tokens. However, you requested ` +
        `${Math.max(1, outputTokens)} output tokens and your prompt contains ${longest} input tokens. ` +
        'Please reduce the length of the input prompt or the number of requested output tokens.',
      'input_tokens',
    )
  }
  return {
    kind,
    model,
    prompts,
    choices,
    outputTokens,
    finishReason: named === null && !flagOf(body, 'ignore_eos') ? 'stop' : 'length',
    stream,
    includeUsage: streamOptions !== null && flagOf(streamOptions, 'include_usage'),
    continuousUsage: streamOptions !== null && flagOf(streamOptions, 'continuous_usage_stats'),
    returnTokenIds: flagOf(body, 'return_token_ids'),
    reportWhole: xargs?.['kv_cache_report_mode'] === 'full',
    cacheSalt,
    sessionId: textOf(body, 'session_id') ?? (xargs === null ? null : textOf(xargs, 'session_id')) ?? sessionHeader,
    lora: adapter === undefined ? null : { ...adapter, id: loraIndex + 1 },
  }
}

export function bodyOf(value: unknown): Body {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new ApiError(400, 'The body must be a JSON object.')
  }
  return value as Body
}

/** The prompt of a chat body, as the engine's template makes it. */
export async function chatPrompt(body: Body, { tokenizer }: Pick<CallContext, 'tokenizer'>): Promise<Uint32Array> {
  const { messages } = body
  if (!Array.isArray(messages)) throw new ApiError(400, 'Field `messages` must be a list.', 'messages')
  return nonEmpty(await tokenizer.chat({ ...body, messages }), 'messages')
}

/** vLLM's four forms of a prompt: a text, texts, token ids, lists of token ids. */
async function completionPrompts(body: Body, { tokenizer }: CallContext): Promise<readonly Uint32Array[]> {
  const { prompt } = body
  const special = body['add_special_tokens'] === undefined || flagOf(body, 'add_special_tokens')
  const one = async (part: unknown): Promise<Uint32Array> => {
    if (typeof part === 'string') return nonEmpty(await tokenizer.text(part, special), 'prompt')
    return nonEmpty(tokenIds(part, tokenizer.vocabularySize, 'prompt'), 'prompt')
  }
  if (!Array.isArray(prompt)) {
    if (typeof prompt !== 'string') throw new ApiError(400, 'Field `prompt` must be a string or a list.', 'prompt')
    return [await one(prompt)]
  }
  if (prompt.length === 0) throw new ApiError(400, 'Field `prompt` must not be empty.', 'prompt')
  return typeof prompt[0] === 'number' ? [await one(prompt)] : Promise.all(prompt.map(one))
}

/** Checks a list of token ids against the vocabulary. */
export function tokenIds(value: unknown, vocabularySize: number, param: string): Uint32Array {
  if (!Array.isArray(value)) throw new ApiError(400, `Field \`${param}\` must hold token ids.`, param)
  return Uint32Array.from(value, (id: unknown) => {
    if (typeof id !== 'number' || !Number.isInteger(id)) {
      throw new ApiError(400, `Field \`${param}\` must hold whole numbers.`, param)
    }
    if (id < 0 || id >= vocabularySize) throw new ApiError(400, `Token id ${id} is out of vocabulary`, param)
    return id
  })
}

function nonEmpty(tokens: Uint32Array, param: string): Uint32Array {
  if (tokens.length === 0) throw new ApiError(400, 'The decoder prompt cannot be empty', param)
  return tokens
}

function textOf(body: Body, field: string): string | null {
  const value = body[field]
  if (value === undefined || value === null) return null
  if (typeof value !== 'string') throw new ApiError(400, `Field \`${field}\` must be a string.`, field)
  return value
}

export function flagOf(body: Body, field: string): boolean {
  const value = body[field]
  if (value === undefined || value === null) return false
  if (typeof value !== 'boolean') throw new ApiError(400, `Field \`${field}\` must be true or false.`, field)
  return value
}

function wholeOf(body: Body, field: string, least: number): number | null {
  const value = body[field]
  if (value === undefined || value === null) return null
  if (typeof value !== 'number' || !Number.isInteger(value) || value < least) {
    throw new ApiError(400, `Field \`${field}\` must be a whole number of at least ${least}.`, field)
  }
  return value
}

function recordOf(body: Body, field: string): Body | null {
  const value = body[field]
  if (value === undefined || value === null) return null
  if (typeof value !== 'object' || Array.isArray(value)) {
    throw new ApiError(400, `Field \`${field}\` must be an object.`, field)
  }
  return value as Body
}
