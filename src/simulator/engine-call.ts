import { ApiError } from './api-error.ts'
import { flagOf, recordOf, textOf, type Body } from './body.ts'
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

/** Who asks and in whose name blocks are cached: what every endpoint's body may say. */
export interface Caller {
  readonly model: string
  readonly lora: { readonly name: string; readonly id: number; readonly path: string } | null
  readonly cacheSalt: string | null
  readonly sessionId: string | null
  readonly reportWhole: boolean
}

/** What the engine needs to know of a request, whatever endpoint it came to. */
export interface EngineCall extends Caller {
  readonly prompts: readonly Uint32Array[]
  /** Answers to each prompt. */
  readonly choices: number
  readonly outputTokens: number
  readonly finishReason: 'length' | 'stop'
}

/** Throws ApiError: 404 for an unknown model, 400 for the rest. */
export function callerOf(body: Body, sessionHeader: string | null, context: CallContext): Caller {
  const model = textOf(body, 'model') ?? context.model
  const loraIndex = context.loras.findIndex(({ name }) => name === model)
  const adapter = context.loras[loraIndex]
  if (model !== context.model && adapter === undefined) throw unknownModel(model, context)
  const cacheSalt = textOf(body, 'cache_salt')
  if (cacheSalt === '') {
    const message = "Parameter 'cache_salt' must be a non-empty string if provided. (parameter=cache_salt)"
    throw new ApiError(400, message, 'cache_salt')
  }
  const xargs = recordOf(body, 'vllm_xargs')
  return {
    model,
    lora: adapter === undefined ? null : { ...adapter, id: loraIndex + 1 },
    cacheSalt,
    sessionId: textOf(body, 'session_id') ?? (xargs === null ? null : textOf(xargs, 'session_id')) ?? sessionHeader,
    reportWhole: xargs?.['kv_cache_report_mode'] === 'full',
  }
}

export function knownModel(name: unknown, context: CallContext): void {
  const { model, loras } = context
  if (name === undefined || name === null || name === model || loras.some((lora) => lora.name === name)) return
  throw unknownModel(typeof name === 'string' ? name : JSON.stringify(name), context)
}

function unknownModel(name: string, { model }: CallContext): ApiError {
  return new ApiError(404, `The model \`${name}\` does not exist. Valid aliases: ${model}.`, 'model')
}

/** How far answers go: to the limit that the request names, else to a chosen end. Throws ApiError where that cannot fit. */
export function outputOf(
  body: Body,
  named: number | null,
  prompts: readonly Uint32Array[],
  choices: number,
  context: CallContext,
): Pick<EngineCall, 'prompts' | 'choices' | 'outputTokens' | 'finishReason'> {
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
  const finishReason = named === null && !flagOf(body, 'ignore_eos') ? 'stop' : 'length'
  return { prompts, choices, outputTokens, finishReason }
}
