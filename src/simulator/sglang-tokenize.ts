import type { FastifyInstance } from 'fastify'
import { missing } from './api-error.ts'
import { bodyOf, flagOf, tokenIds } from './body.ts'
import type { CallContext } from './engine-call.ts'

/** SGLang's POST /tokenize and /detokenize, which know texts and no chats; `/v1` may stand before both. */
export function addSglangTokenizerRoutes(app: FastifyInstance, { maxModelLength, tokenizer }: CallContext): void {
  for (const prefix of ['', '/v1']) {
    app.post(`${prefix}/tokenize`, async (request) => {
      const body = bodyOf(request.body)
      const { prompt, add_special_tokens: special } = body
      const texts: readonly unknown[] = Array.isArray(prompt) ? prompt : [prompt]
      if (!texts.every((text) => typeof text === 'string')) throw missing(body, 'prompt')
      const withSpecial = special === undefined || flagOf(body, 'add_special_tokens')
      const all = await Promise.all(texts.map(async (text) => [...(await tokenizer.text(text, withSpecial))]))
      const counts = all.map((tokens) => tokens.length)
      const [tokens, count] = Array.isArray(prompt) ? [all, counts] : [all[0], counts[0]]
      return { tokens, count, max_model_len: maxModelLength }
    })
    app.post(`${prefix}/detokenize`, async (request) => {
      const ids = tokenIds(bodyOf(request.body)['tokens'], tokenizer.vocabularySize, 'tokens')
      return { text: await tokenizer.detokenize(ids) }
    })
  }
}
