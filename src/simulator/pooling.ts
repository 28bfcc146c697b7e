import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { ApiError, invalid, missing } from './api-error.ts'
import { bodyOf, nonEmpty, textOf, wholeOf, type Body } from './body.ts'
import { callerOf, outputOf, type EngineCall } from './engine-call.ts'
import { chatPrompt, promptsOf } from './generation-call.ts'
import { seededRandom } from './random.ts'
import type { Exchange, Serving } from './serving.ts'
import { tokenCounts, type Choice } from './wording.ts'

/** Numbers in an embedding whose request names no `dimensions`, and the most that it may name. */
const dimensions = { standard: 32, most: 4_096 }

type Handler = (exchange: Exchange, body: Body) => Promise<object>

/**
 * The endpoints of pooling models (embeddings, scores, classes). Their prompts go through the engine's queue as requests for
 * one token, so that they take their time and fill its cache; the numbers are drawn from the prompt's tokens.
 */
export function addPoolingRoutes(app: FastifyInstance, serving: Serving): void {
  const route = (paths: readonly string[], handle: Handler): void => {
    for (const path of paths) {
      app.post(path, (request: FastifyRequest, reply: FastifyReply) =>
        handle(serving.begin(request, reply), bodyOf(request.body)),
      )
    }
  }
  route(['/v1/embeddings'], async (exchange, body) => {
    const encode = encodingOf(body)
    const width = wholeOf(body, 'dimensions', 1) ?? dimensions.standard
    if (width > dimensions.most) {
      throw new ApiError(400, `dimensions must be at most ${dimensions.most}, got ${width}.`, 'dimensions')
    }
    return prefill(serving, exchange, body, await inputsOf(body, serving), (choices) => ({
      id: `embd-${exchange.requestId}`,
      ...listHead(exchange, body, serving),
      data: choices.map(({ prompt }, index) => ({
        index,
        object: 'embedding',
        embedding: encode(embedding(prompt, width)),
      })),
      usage: poolingUsage(choices),
    }))
  })
  route(['/pooling'], async (exchange, body) => {
    const encode = encodingOf(body)
    return prefill(serving, exchange, body, await inputsOf(body, serving), (choices) => ({
      id: `pooling-${exchange.requestId}`,
      ...listHead(exchange, body, serving),
      data: choices.map(({ prompt }, index) => ({
        index,
        object: 'pooling',
        data: encode(embedding(prompt, dimensions.standard)),
      })),
      usage: poolingUsage(choices),
    }))
  })
  route(['/classify'], async (exchange, body) =>
    prefill(serving, exchange, body, await inputsOf(body, serving), (choices) => ({
      id: `classify-${exchange.requestId}`,
      ...listHead(exchange, body, serving),
      data: choices.map(({ prompt }, index) => {
        const share = random(prompt).next()
        return { index, label: share < 0.5 ? 'LABEL_1' : 'LABEL_0', probs: [share, 1 - share], num_classes: 2 }
      }),
      usage: poolingUsage(choices),
    })),
  )
  route(['/score', '/v1/score'], async (exchange, body) => {
    const [queries, documents] = scoredOf(body)
    const pairs = documents.map((text, at) => [queries[queries.length === 1 ? 0 : at] ?? '', text] as const)
    return prefill(serving, exchange, body, await pairPrompts(pairs, serving), (choices) => ({
      id: `score-${exchange.requestId}`,
      ...listHead(exchange, body, serving),
      data: choices.map(({ prompt }, index) => ({ index, object: 'score', score: random(prompt).next() })),
      usage: poolingUsage(choices),
    }))
  })
  route(['/rerank', '/v1/rerank', '/v2/rerank'], async (exchange, body) => {
    const absent = ['query', 'documents'].filter((field) => body[field] === undefined)
    if (absent.length > 0) throw missing(body, ...absent)
    const [query = ''] = textsOf(body, 'query')
    const documents = textsOf(body, 'documents')
    const most = wholeOf(body, 'top_n', 0) ?? 0
    const prompts = await pairPrompts(
      documents.map((text) => [query, text] as const),
      serving,
    )
    return prefill(serving, exchange, body, prompts, (choices) => {
      const { promptTokens } = tokenCounts(choices, 1)
      const results = choices.map(({ prompt }, index) => ({
        index,
        document: { text: documents[index], multi_modal: null },
        relevance_score: random(prompt).next(),
      }))
      results.sort((one, other) => other.relevance_score - one.relevance_score)
      return {
        id: `score-${exchange.requestId}`,
        model: textOf(body, 'model') ?? serving.options.model,
        usage: { prompt_tokens: promptTokens, total_tokens: promptTokens },
        results: most === 0 ? results : results.slice(0, most),
      }
    })
  })
}

async function prefill(
  serving: Serving,
  exchange: Exchange,
  body: Body,
  prompts: readonly Uint32Array[],
  whole: (choices: readonly Choice[]) => object,
): Promise<object> {
  const { options } = serving
  const caller = callerOf(body, exchange.sessionHeader, options)
  const call: EngineCall = { ...caller, ...outputOf(body, 1, prompts, 1, options) }
  return serving.answer(exchange, call, (choices) => ({ whole: () => whole(choices), events: null }))
}

function listHead({ createdSeconds }: Exchange, body: Body, { options }: Serving): object {
  return { object: 'list', created: createdSeconds, model: textOf(body, 'model') ?? options.model }
}

function poolingUsage(choices: readonly Choice[]): object {
  const { promptTokens } = tokenCounts(choices, 1)
  return {
    prompt_tokens: promptTokens,
    total_tokens: promptTokens,
    completion_tokens: 0,
    prompt_tokens_details: null,
    completion_tokens_details: null,
  }
}

/** One prompt or several in `input`, or a chat in `messages`. */
async function inputsOf(body: Body, { options }: Serving): Promise<readonly Uint32Array[]> {
  if (body['messages'] !== undefined) {
    return [await chatPrompt({ ...body, add_generation_prompt: body['add_generation_prompt'] ?? false }, options)]
  }
  const { input } = body
  if (input === undefined) throw missing(body, 'input', 'messages')
  return promptsOf(input, 'input', body, options)
}

/** A cross-encoder's prompts: query and document in one. */
async function pairPrompts(
  pairs: readonly (readonly [query: string, document: string])[],
  { options: { tokenizer } }: Serving,
): Promise<readonly Uint32Array[]> {
  if (pairs.length === 0) throw new ApiError(400, 'You must pass at least one prompt')
  return Promise.all(
    pairs.map(async ([query, document]) => {
      const parts = [await tokenizer.text(query, true), await tokenizer.text(document, false)]
      return nonEmpty(Uint32Array.from(parts.flatMap((part) => [...part])), 'documents')
    }),
  )
}

/** The two sides of a score request, under whichever of vLLM's four pairs of names. */
function scoredOf(body: Body): readonly [queries: readonly string[], documents: readonly string[]] {
  const names = (
    [
      ['queries', 'documents'],
      ['queries', 'items'],
      ['data_1', 'data_2'],
      ['text_1', 'text_2'],
    ] as const
  ).find(([one, other]) => body[one] !== undefined && body[other] !== undefined)
  if (names === undefined) throw missing(body, 'queries', 'documents', 'items', 'data_1', 'data_2', 'text_1', 'text_2')
  const [one, other] = [textsOf(body, names[0]), textsOf(body, names[1])]
  if (one.length !== 1 && one.length !== other.length)
    throw new ApiError(400, 'Input lengths must be either 1:1, 1:N or N:N')
  return [one, other]
}

function textsOf(body: Body, field: string): readonly string[] {
  const value = body[field]
  const texts: unknown[] = Array.isArray(value) ? value : [value]
  return texts.map((text, at) => {
    if (typeof text === 'string') return text
    throw invalid({
      field: `${field}.${at}`,
      kind: 'string_type',
      message: 'Input should be a valid string',
      value: text,
    })
  })
}

/** Numbers as a list, or as base64 of 32-bit floats (which OpenAI's clients ask for), little end first. */
function encodingOf(body: Body): (numbers: Float32Array) => readonly number[] | string {
  const format = textOf(body, 'encoding_format') ?? 'float'
  if (format === 'float') return (numbers) => [...numbers]
  if (format === 'base64') {
    return (numbers) => {
      const bytes = Buffer.alloc(numbers.length * 4)
      numbers.forEach((number, at) => bytes.writeFloatLE(number, at * 4))
      return bytes.toString('base64')
    }
  }
  const message = "Input should be 'float', 'base64', 'bytes' or 'bytes_only'"
  throw invalid({ field: 'encoding_format', kind: 'literal_error', message, value: format })
}

/** A vector of length 1 that only the prompt determines. */
function embedding(prompt: Uint32Array, width: number): Float32Array {
  const draw = random(prompt)
  const numbers = Float32Array.from({ length: width }, () => draw.next() - 0.5)
  const length = Math.hypot(...numbers)
  return numbers.map((number) => number / length)
}

function random(prompt: Uint32Array) {
  return seededRandom(prompt.reduce((word, token) => Math.imul(((word << 7) | (word >>> 25)) ^ token, 0x9e3779b1), 1))
}
