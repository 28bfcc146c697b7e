import { RouterError } from '../errors.ts'
import type { ChatPrompt } from './chat.ts'
import type { PromptKind } from './request.ts'
import { chatOfResponses } from './responses.ts'

/** What a request is to be tokenized from. */
export type PromptSource =
  | { readonly kind: 'chat'; readonly chat: ChatPrompt }
  /** A body of /v1/messages: it becomes a chat by the rules of the template that it is rendered with. */
  | { readonly kind: 'messages'; readonly body: Body }
  | { readonly kind: 'responses'; readonly chat: ChatPrompt }
  | { readonly kind: 'texts'; readonly texts: readonly string[]; readonly addSpecialTokens: boolean }
  /** `param` is the field that they stand in. */
  | { readonly kind: 'ids'; readonly prompts: readonly Uint32Array[]; readonly param: string }
  | { readonly kind: 'none' }

type Body = Readonly<Record<string, unknown>>

/**
 * What to tokenize, by the endpoint. Token ids are taken as they are, checked for being integers from 0 on; whether the
 * vocabulary has them is checked when the tokenizer is known.
 *
 * @throws RouterError BODY_INVALID, TOKEN_ID_INVALID
 */
export function promptSource(body: Body, kind: PromptKind): PromptSource {
  switch (kind) {
    case 'chat':
      if (body['messages'] === undefined) throw invalid('messages', 'is missing')
      if (isReadOnlyBySome(body) || isPresent(body, 'input_ids')) return none
      return { kind: 'chat', chat: body as unknown as ChatPrompt }
    case 'completion':
      if (isReadOnlyBySome(body)) return none
      return completionPrompt(body['prompt'], 'prompt', flag(body, 'add_special_tokens') ?? true)
    case 'messages':
      return { kind: 'messages', body }
    case 'responses': {
      const chat = chatOfResponses(body)
      return chat === null ? none : { kind: 'responses', chat }
    }
    case 'generate':
      return generatePrompt(body)
    case 'sglang-generate':
      return sglangPrompt(body)
    case 'tokenize':
      return promptSource(body, body['messages'] === undefined ? 'completion' : 'chat')
    case 'other':
      return none
    default:
      return kind satisfies never
  }
}

const none: PromptSource = { kind: 'none' }

/** SGLang takes the adapter, or a part of what its blocks are, from these; other engines pass over them. */
function isReadOnlyBySome(body: Body): boolean {
  return isPresent(body, 'lora_path') || isPresent(body, 'extra_key')
}

/** Media are part of a prompt's blocks beside its tokens. */
function generatePrompt(body: Body): PromptSource {
  const ids = body['token_ids']
  if (!Array.isArray(ids) || ids.length === 0) throw invalid('token_ids', 'must be a list of token ids')
  if (isPresent(body, 'features') || isPresent(body, 'content_parts')) return none
  return { kind: 'ids', prompts: [tokenIds(ids, 'token_ids')], param: 'token_ids' }
}

/** Fields that change what SGLang caches for the same tokens. */
const sglangExtras = [
  'image_data',
  'audio_data',
  'video_data',
  'input_embeds',
  'lora_path',
  'session_params',
  'extra_key',
]

/** What has none of the known forms is left to the engine to refuse. */
function sglangPrompt(body: Body): PromptSource {
  if (sglangExtras.some((field) => isPresent(body, field)) || Array.isArray(body['cache_salt'])) return none
  const hasIds = isPresent(body, 'input_ids')
  const given = hasIds ? body['input_ids'] : body['text']
  if (!hasIds && typeof given === 'string') return { kind: 'texts', texts: [given], addSpecialTokens: true }
  if (!Array.isArray(given) || given.length === 0) return none
  const items = given as readonly unknown[]
  const known = hasIds ? [isNumber, Array.isArray] : [isText]
  if (!known.some((is) => items.every((item) => is(item)))) return none
  return completionPrompt(items, hasIds ? 'input_ids' : 'text', true)
}

function isNumber(value: unknown): boolean {
  return typeof value === 'number'
}

function isText(value: unknown): boolean {
  return typeof value === 'string'
}

function isPresent(body: Body, field: string): boolean {
  return body[field] !== undefined && body[field] !== null
}

/** Prompts of one completion request at most. */
const maxPrompts = 2048

/** OpenAI's four forms: a text, a list of texts, token ids, a list of lists of token ids. */
function completionPrompt(prompt: unknown, param: string, addSpecialTokens: boolean): PromptSource {
  if (prompt === undefined || prompt === null) throw invalid(param, 'is missing')
  if (typeof prompt === 'string') return { kind: 'texts', texts: [prompt], addSpecialTokens }
  if (!Array.isArray(prompt) || prompt.length === 0) {
    throw invalid(param, 'must be a text, token ids, or a list of either that is not empty')
  }
  const items = prompt as readonly unknown[]
  if (typeof items[0] === 'number') return { kind: 'ids', prompts: [tokenIds(items, param)], param }
  if (items.length > maxPrompts) throw invalid(param, `holds more than ${maxPrompts} prompts`)
  if (typeof items[0] === 'string') {
    const other = items.findIndex((item) => typeof item !== 'string')
    if (other >= 0) throw invalid(`${param}[${other}]`, 'must be a text as the first prompt is')
    return { kind: 'texts', texts: items as readonly string[], addSpecialTokens }
  }
  const prompts = items.map((item, index) => {
    if (!Array.isArray(item)) throw invalid(`${param}[${index}]`, 'must be a text or a list of token ids')
    return tokenIds(item, `${param}[${index}]`)
  })
  return { kind: 'ids', prompts, param }
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

/** @throws RouterError TOKEN_ID_INVALID for an id that the vocabulary does not have, naming the field `param` */
export function checkTokenIds(prompts: readonly Uint32Array[], vocabularySize: number, param: string): void {
  for (const prompt of prompts) {
    for (let index = 0; index < prompt.length; index += 1) {
      if ((prompt[index] as number) >= vocabularySize) {
        throw new RouterError(
          'TOKEN_ID_INVALID',
          `Token id ${prompt[index] as number} is out of vocabulary (${vocabularySize} tokens).`,
          { param },
        )
      }
    }
  }
}

function flag(body: Body, key: string): boolean | null {
  const value = body[key]
  if (value === undefined || value === null) return null
  if (typeof value !== 'boolean') throw invalid(key, 'must be true or false')
  return value
}

function invalid(param: string, what: string): RouterError {
  return new RouterError('BODY_INVALID', `"${param}" ${what}.`, { param })
}
