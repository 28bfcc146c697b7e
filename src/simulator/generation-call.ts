import { ApiError, invalid, missing } from './api-error.ts'
import { bodyOf, flagOf, nonEmpty, recordOf, tokenIds, wholeOf, type Body } from './body.ts'
import { callerOf, outputOf, type CallContext, type EngineCall } from './engine-call.ts'

/** A chat or completion request, read and tokenized. */
export interface GenerationCall extends EngineCall {
  readonly kind: 'chat' | 'completion'
  readonly stream: boolean
  readonly includeUsage: boolean
  readonly continuousUsage: boolean
  readonly returnTokenIds: boolean
}

/** Reads a request body. Throws ApiError: 404 for an unknown model, 400 for the rest. */
export async function readCall(
  kind: 'chat' | 'completion',
  value: unknown,
  sessionHeader: string | null,
  context: CallContext,
): Promise<GenerationCall> {
  const body = bodyOf(value)
  const caller = callerOf(body, sessionHeader, context)
  const stream = flagOf(body, 'stream')
  const streamOptions = recordOf(body, 'stream_options')
  if (streamOptions !== null && !stream) {
    throw new ApiError(400, 'Stream options can only be defined when `stream=True`.', 'stream_options')
  }
  const choices = wholeOf(body, 'n', 1) ?? 1
  const named = (kind === 'chat' ? wholeOf(body, 'max_completion_tokens', 1) : null) ?? wholeOf(body, 'max_tokens', 1)
  const prompts = kind === 'chat' ? [await chatPrompt(body, context)] : await completionPrompts(body, context)
  return {
    kind,
    ...caller,
    ...outputOf(body, named, prompts, choices, context),
    stream,
    includeUsage: streamOptions !== null && flagOf(streamOptions, 'include_usage'),
    continuousUsage: streamOptions !== null && flagOf(streamOptions, 'continuous_usage_stats'),
    returnTokenIds: flagOf(body, 'return_token_ids'),
  }
}

/** The prompt of a chat body, as the engine's template makes it. */
export async function chatPrompt(body: Body, { tokenizer }: Pick<CallContext, 'tokenizer'>): Promise<Uint32Array> {
  const { messages } = body
  if (messages === undefined) throw missing(body, 'messages')
  if (!Array.isArray(messages)) {
    throw invalid({ field: 'messages', kind: 'list_type', message: 'Input should be a valid list', value: messages })
  }
  return nonEmpty(await tokenizer.chat({ ...body, messages }), 'messages')
}

/** vLLM's four forms of a prompt: a text, texts, token ids, lists of token ids. */
async function completionPrompts(body: Body, context: CallContext): Promise<readonly Uint32Array[]> {
  const { prompt } = body
  if (!Array.isArray(prompt) && typeof prompt !== 'string') {
    throw new ApiError(400, 'Field `prompt` must be a string or a list.', 'prompt')
  }
  return promptsOf(prompt, 'prompt', body, context)
}

/** Prompts in any of vLLM's four forms; special tokens are added to texts unless the body says no. */
export async function promptsOf(
  value: unknown,
  field: string,
  body: Body,
  { tokenizer }: Pick<CallContext, 'tokenizer'>,
): Promise<readonly Uint32Array[]> {
  const special = body['add_special_tokens'] === undefined || flagOf(body, 'add_special_tokens')
  const one = async (part: unknown): Promise<Uint32Array> => {
    if (typeof part === 'string') return nonEmpty(await tokenizer.text(part, special), field)
    return nonEmpty(tokenIds(part, tokenizer.vocabularySize, field), field)
  }
  if (!Array.isArray(value)) return [await one(value)]
  if (value.length === 0) throw new ApiError(400, `Field \`${field}\` must not be empty.`, field)
  return typeof value[0] === 'number' ? [await one(value)] : Promise.all(value.map(one))
}
