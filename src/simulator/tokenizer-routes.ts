import type { FastifyInstance } from 'fastify'
import { ApiError } from './api-error.ts'
import { bodyOf, flagOf, tokenIds } from './body.ts'
import { knownModel, type CallContext } from './engine-call.ts'
import { chatPrompt } from './generation-call.ts'

/** POST /tokenize and /detokenize. */
export function addTokenizerRoutes(app: FastifyInstance, options: CallContext): void {
  const { maxModelLength, tokenizer } = options
  app.post('/tokenize', async (request) => {
    const body = bodyOf(request.body)
    knownModel(body['model'], options)
    const { prompt, add_special_tokens: special } = body
    const chat = body['messages'] !== undefined
    if (!chat && typeof prompt !== 'string') throw new ApiError(400, 'Field `prompt` must be a string.', 'prompt')
    const withSpecial = special === undefined || special === null || flagOf(body, 'add_special_tokens')
    const tokens = chat ? await chatPrompt(body, options) : await tokenizer.text(String(prompt), withSpecial)
    return { count: tokens.length, max_model_len: maxModelLength, tokens: [...tokens], token_strs: null }
  })
  app.post('/detokenize', async (request) => {
    const body = bodyOf(request.body)
    knownModel(body['model'], options)
    return { prompt: await tokenizer.detokenize(tokenIds(body['tokens'], tokenizer.vocabularySize, 'tokens')) }
  })
}
