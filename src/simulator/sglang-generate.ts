import type { FastifyInstance } from 'fastify'
import { ApiError } from './api-error.ts'
import { bodyOf, flagOf, nonEmpty, recordOf, textOf, wholeOf, type Body } from './body.ts'
import { callerOf, outputOf, type CallContext, type EngineCall } from './engine-call.ts'
import { promptsOf } from './generation-call.ts'
import type { Serving } from './serving.ts'
import type { Choice, Wording } from './wording.ts'

/** A request of POST /generate, read. */
interface SglangCall extends EngineCall {
  readonly stream: boolean
  /** The body asked for one answer, which then stands alone; several stand in a list. */
  readonly single: boolean
  readonly ids: readonly string[]
}

/** SGLang's own endpoint: a text or token ids, one or many. */
export function addSglangGenerateRoute(app: FastifyInstance, serving: Serving): void {
  const { clock } = serving.options
  app.post('/generate', async (request, reply) => {
    const exchange = serving.begin(request, reply)
    const arrivedMs = clock.now()
    try {
      const call = await readSglangCall(bodyOf(request.body), exchange.requestId, serving.options)
      return await serving.answer(exchange, call, (choices) =>
        sglangWording(call, choices, () => (clock.now() - arrivedMs) / 1_000),
      )
    } catch (fault) {
      // SGLang's own refusals on this path hold a message and nothing else.
      if (!(fault instanceof ApiError)) throw fault
      return reply.code(400).send({ error: { message: fault.message } })
    }
  })
}

async function readSglangCall(body: Body, requestId: string, context: CallContext): Promise<SglangCall> {
  const { text, input_ids: ids, rid } = body
  if ((text === undefined) === (ids === undefined)) {
    throw new ApiError(400, 'Either text, input_ids or input_embeds should be provided.')
  }
  const prompts =
    ids === undefined ? await promptsOf(text, 'text', body, context) : await promptsOf(ids, 'input_ids', body, context)
  for (const prompt of prompts) nonEmpty(prompt, 'input_ids')
  const batch = Array.isArray(text) || (Array.isArray(ids) && Array.isArray(ids[0]))
  const sampling = recordOf(body, 'sampling_params') ?? {}
  const choices = wholeOf(sampling, 'n', 1) ?? 1
  const output = outputOf(sampling, wholeOf(sampling, 'max_new_tokens', 1), prompts, choices, context)
  const given: readonly unknown[] = Array.isArray(rid) ? rid : [rid]
  return {
    ...callerOf({ ...body, model: textOf(body, 'lora_path') }, null, context),
    ...output,
    stream: flagOf(body, 'stream'),
    single: !batch && choices === 1,
    ids: Array.from({ length: prompts.length * choices }, (_, at) => {
      const id = given[at]
      return typeof id === 'string' ? id : at === 0 ? requestId : `${requestId}-${at}`
    }),
  }
}

/** Texts and ids of a stream's events hold all that was generated so far, as SGLang's do by default. */
function sglangWording(call: SglangCall, choices: readonly Choice[], elapsedSeconds: () => number): Wording {
  const { finishReason, ids, single } = call
  const reason = ({ tokens }: Choice): object =>
    finishReason === 'length'
      ? { type: 'length', length: tokens.length }
      : { type: 'stop', matched: tokens.at(-1) ?? 0 }
  const answer = (choice: Choice) => ({
    text: choice.text,
    output_ids: [...choice.tokens],
    meta_info: {
      id: ids[choice.index] ?? '',
      finish_reason: choice.finished ? reason(choice) : null,
      prompt_tokens: choice.prompt.length,
      weight_version: 'default',
      num_retractions: 0,
      reasoning_tokens: 0,
      completion_tokens: choice.tokens.length,
      cached_tokens: choice.cachedTokens ?? 0,
      ...(choice.finished ? { e2e_latency: elapsedSeconds() } : {}),
    },
  })
  return {
    whole: () => {
      const answers = choices.map(answer)
      return single ? (answers[0] ?? {}) : answers
    },
    events: !call.stream
      ? null
      : {
          opening: () => '',
          token: (choice) =>
            `data: ${JSON.stringify({ ...answer(choice), ...(single ? {} : { index: choice.index }) })}\n\n`,
          end: () => 'data: [DONE]\n\n',
        },
  }
}
