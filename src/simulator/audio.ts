import { createHash } from 'node:crypto'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { ApiError, missing } from './api-error.ts'
import { flagOf, type Body } from './body.ts'
import { callerOf, outputOf, type EngineCall } from './engine-call.ts'
import { formParts } from './multipart.ts'
import { seededRandom } from './random.ts'
import type { Exchange, Serving, ServingOptions } from './serving.ts'
import { tokenCounts, type Choice, type Wording } from './wording.ts'

/** Sound of 16 kHz in 16 bits: what vLLM resamples speech to; each 20 ms of it is one position of Whisper's encoder. */
const bytesPerSecond = 32_000
const bytesPerToken = 640

interface Kind {
  readonly task: 'transcribe' | 'translate'
  readonly chunk: 'transcription.chunk' | 'translation.chunk'
}

/** Speech to text: a form with a file comes in, a text that only the file's bytes determine goes out. */
export function addAudioRoutes(app: FastifyInstance, serving: Serving): void {
  app.addContentTypeParser('multipart/form-data', { parseAs: 'buffer' }, (_request, body, done) => {
    done(null, body)
  })
  const route = (path: string, kind: Kind): void => {
    app.post(path, (request, reply) => {
      const exchange = serving.begin(request, reply)
      const { body, file } = formOf(request)
      const call = audioCall(body, file, exchange, serving.options)
      return serving.answer(exchange, call, (choices) =>
        audioWording(kind, exchange, body, call, choices, Math.ceil(file.length / bytesPerSecond)),
      )
    })
  }
  route('/v1/audio/transcriptions', { task: 'transcribe', chunk: 'transcription.chunk' })
  route('/v1/audio/translations', { task: 'translate', chunk: 'translation.chunk' })
}

function formOf({ body, headers }: FastifyRequest): { readonly body: Body; readonly file: Buffer } {
  const parts = Buffer.isBuffer(body) ? formParts(body, headers['content-type'] ?? '') : null
  if (parts === null) throw new ApiError(400, 'There was an error parsing the body', null, 'Bad Request')
  const file = parts.find(({ name, fileName }) => name === 'file' && fileName !== null)
  const fields = Object.fromEntries(
    parts.filter(({ fileName }) => fileName === null).map(({ name, content }) => [name, content.toString()]),
  )
  if (file === undefined) throw missing(fields, 'file')
  return { body: fields, file: file.content }
}

function audioCall(body: Body, file: Buffer, { sessionHeader }: Exchange, options: ServingOptions): EngineCall {
  const seed = createHash('sha256').update(file).digest().readUInt32LE(0)
  const random = seededRandom(seed)
  const { tokens } = options.vocabulary
  const length = Math.min(Math.max(1, Math.ceil(file.length / bytesPerToken)), options.maxModelLength - 1)
  const prompt = Uint32Array.from({ length }, () => tokens[random.below(tokens.length)] ?? 0)
  return { ...callerOf(body, sessionHeader, options), ...outputOf(body, null, [prompt], 1, options) }
}

function audioWording(
  { task, chunk }: Kind,
  { requestId, createdSeconds }: Exchange,
  body: Body,
  call: EngineCall,
  choices: readonly Choice[],
  seconds: number,
): Wording {
  const head = { id: `${task}-${requestId}`, object: chunk, created: createdSeconds, model: call.model }
  const event = (fields: object): string => `data: ${JSON.stringify({ ...head, ...fields })}\n\n`
  const text = (): string => choices[0]?.text ?? ''
  return {
    whole: () => (task === 'translate' ? { text: text() } : { text: text(), usage: { type: 'duration', seconds } }),
    events: !flagOf(body, 'stream')
      ? null
      : {
          opening: () => '',
          token: (choice, _token, content) =>
            event({
              choices: [
                {
                  delta: { content },
                  ...(choice.finished ? { finish_reason: call.finishReason, stop_reason: null } : {}),
                },
              ],
            }),
          end: () => {
            if (!flagOf(body, 'stream_include_usage')) return 'data: [DONE]\n\n'
            const { promptTokens, completionTokens } = tokenCounts(choices, 1)
            const usage = {
              prompt_tokens: promptTokens,
              total_tokens: promptTokens + completionTokens,
              completion_tokens: completionTokens,
            }
            return `${event({ choices: [], usage })}data: [DONE]\n\n`
          },
        },
  }
}
