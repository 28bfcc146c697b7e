import type { FastifyInstance } from 'fastify'
import { ApiError, invalid, missing } from './api-error.ts'
import { bodyOf, flagOf, recordOf, textOf, tokenIds, wholeOf } from './body.ts'
import { callerOf, outputOf, type CallContext, type EngineCall } from './engine-call.ts'
import type { Exchange, Serving } from './serving.ts'
import { tokenCounts, type Choice, type Wording } from './wording.ts'

/** A request of POST /inference/v1/generate, read. */
interface TokenCall extends EngineCall {
  readonly stream: boolean
  readonly includeUsage: boolean
  readonly continuousUsage: boolean
  readonly returnTokenIds: boolean
  readonly outputMode: 'tokens' | 'text'
  /** The body's `request_id`, which a header overrides. */
  readonly requestId: string | null
}

/** vLLM's tokens in, tokens out (`--enable-scale-out`): the prompt comes tokenized, by a router or a render server. */
export function addTokenGenerationRoute(app: FastifyInstance, serving: Serving): void {
  app.post('/inference/v1/generate', (request, reply) => {
    const exchange = serving.begin(request, reply)
    const call = readTokenCall(request.body, exchange.sessionHeader, serving.options)
    const ownId = request.headers['x-request-id'] === undefined ? call.requestId : null
    return serving.answer(exchange, call, (choices) =>
      tokenWording(exchange, ownId ?? exchange.requestId, call, choices, serving.options.promptTokensDetails),
    )
  })
}

function readTokenCall(value: unknown, sessionHeader: string | null, context: CallContext): TokenCall {
  const body = bodyOf(value)
  const absent = ['token_ids', 'sampling_params'].filter((field) => body[field] === undefined)
  if (absent.length > 0) throw missing(body, ...absent)
  const prompt = tokenIds(body['token_ids'], context.tokenizer.vocabularySize, 'token_ids')
  if (prompt.length === 0) {
    const message = 'List should have at least 1 item after validation, not 0'
    throw invalid({ field: 'token_ids', kind: 'too_short', message, value: body['token_ids'] })
  }
  const sampling = recordOf(body, 'sampling_params') ?? {}
  const streamOptions = recordOf(body, 'stream_options')
  const outputMode = textOf(body, 'output_mode') ?? 'tokens'
  if (outputMode !== 'tokens' && outputMode !== 'text') {
    const message = "Input should be 'tokens' or 'text'"
    throw invalid({ field: 'output_mode', kind: 'literal_error', message, value: outputMode })
  }
  const choices = wholeOf(sampling, 'n', 1) ?? 1
  if (choices > context.maxSequences) {
    const most = context.maxSequences
    throw new ApiError(400, `sampling_params.n must be at most the server's max_num_seqs (${most}), got ${choices}.`)
  }
  return {
    ...callerOf(body, sessionHeader, context),
    ...outputOf(sampling, wholeOf(sampling, 'max_tokens', 1), [prompt], choices, context),
    stream: flagOf(body, 'stream'),
    includeUsage: streamOptions !== null && flagOf(streamOptions, 'include_usage'),
    continuousUsage: streamOptions !== null && flagOf(streamOptions, 'continuous_usage_stats'),
    returnTokenIds: flagOf(body, 'return_token_ids'),
    outputMode,
    requestId: textOf(body, 'request_id'),
  }
}

/** Fields and their order as vLLM 0.32's response models write them out. */
function tokenWording(
  { createdSeconds }: Exchange,
  requestId: string,
  call: TokenCall,
  choices: readonly Choice[],
  promptTokensDetails: boolean,
): Wording {
  const id = `generate-tokens-${requestId}`
  const mode = { output_mode: call.outputMode }
  const usage = () => {
    const { promptTokens, completionTokens, cachedTokens } = tokenCounts(choices, call.choices)
    return {
      prompt_tokens: promptTokens,
      total_tokens: promptTokens + completionTokens,
      completion_tokens: completionTokens,
      ...(promptTokensDetails ? { prompt_tokens_details: { cached_tokens: cachedTokens } } : {}),
    }
  }
  const words = (index: number, tokens: readonly number[], text: string, finished: boolean) => ({
    index,
    finish_reason: finished ? call.finishReason : null,
    stop_reason: null,
    token_ids: tokens,
    routed_experts: null,
    sampling_mask: null,
    weight_versions: null,
    ...(call.outputMode === 'text' ? { text } : {}),
    logprobs: null,
  })
  const absent = { created_cache_tokens: null, multimodal_tokens: null }
  const first = choices[0]?.prompt ?? new Uint32Array(0)
  const event = (body: object): string => `data: ${JSON.stringify(body)}\n\n`
  let begun = false
  return {
    whole: () => {
      const { prompt_tokens_details: details, ...counts } = usage()
      return {
        request_id: id,
        model: call.model,
        created: createdSeconds,
        usage: {
          ...counts,
          prompt_tokens_details: details === undefined ? null : { ...details, ...absent },
          completion_tokens_details: null,
        },
        prompt_logprobs: null,
        prompt_token_id_logprobs: null,
        prompt_token_ids: call.returnTokenIds ? [...first] : null,
        mm_placeholders: null,
        metrics: null,
        kv_transfer_params: null,
        ec_transfer_params: null,
        ...mode,
        choices: choices.map(({ index, tokens, text }) => words(index, tokens, text, true)),
      }
    },
    events: !call.stream
      ? null
      : {
          opening: () => '',
          token: (choice, token, text) => {
            const { prompt_tokens: promptTokens } = usage()
            const completionTokens = choice.tokens.length
            const counts = {
              prompt_tokens: promptTokens,
              total_tokens: promptTokens + completionTokens,
              completion_tokens: completionTokens,
              prompt_tokens_details: null,
              completion_tokens_details: null,
            }
            const promptIds = call.returnTokenIds && !begun ? { prompt_token_ids: [...first] } : {}
            begun = true
            return event({
              request_id: id,
              usage: call.continuousUsage && call.includeUsage ? counts : null,
              ...promptIds,
              ...mode,
              choices: [words(choice.index, [token], text, choice.finished)],
            })
          },
          end: () =>
            (call.includeUsage ? event({ request_id: id, usage: usage(), ...mode, choices: [] }) : '') +
            'data: [DONE]\n\n',
        },
  }
}
