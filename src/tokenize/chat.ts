import { RouterError } from '../errors.ts'
import { conversationOf, mediaMark, toolsOf, type TemplateMessage } from './conversation.ts'
import { strip } from './python-strip.ts'
import type { ChatTemplate } from './template.ts'

/** The fields of a chat request that make its prompt, as OpenAI and vLLM name them. Validated when rendered. */
export interface ChatPrompt {
  readonly messages: unknown
  readonly tools?: unknown
  readonly documents?: unknown
  readonly add_generation_prompt?: unknown
  readonly continue_final_message?: unknown
  readonly add_special_tokens?: unknown
  readonly chat_template?: unknown
  readonly chat_template_kwargs?: unknown
  readonly reasoning_effort?: unknown
}

export class RenderedChat {
  /** The text as the template put it out: to be joined. */
  readonly pieces: readonly string[]
  /** Above 0 the chat holds media, the text is the prompt up to the first of it, and this is a guess at the tokens after. */
  readonly unknownTokens: number
  readonly addSpecialTokens: boolean

  constructor(pieces: readonly string[], unknownTokens: number, addSpecialTokens: boolean) {
    this.pieces = pieces
    this.unknownTokens = unknownTokens
    this.addSpecialTokens = addSpecialTokens
  }

  get text(): string {
    return this.pieces.join('')
  }
}

/**
 * Renders a chat as vLLM 0.32 does, from the request's own fields.
 *
 * @param defaults the server's default keyword arguments (vLLM's --default-chat-template-kwargs)
 * @throws RouterError BODY_INVALID with the field, TEMPLATE_REFUSED with the template's reason
 */
export function renderChat(
  template: ChatTemplate,
  prompt: ChatPrompt,
  defaults: Readonly<Record<string, unknown>> = {},
): RenderedChat {
  const addGenerationPrompt = flag(prompt.add_generation_prompt, 'add_generation_prompt', true)
  const continueFinalMessage = flag(prompt.continue_final_message, 'continue_final_message', false)
  const addSpecialTokens = flag(prompt.add_special_tokens, 'add_special_tokens', false)
  if (addGenerationPrompt && continueFinalMessage) {
    throw invalid('continue_final_message', 'needs "add_generation_prompt" to be false')
  }
  if (prompt.chat_template !== undefined && prompt.chat_template !== null) {
    throw invalid('chat_template', 'is not taken from requests')
  }
  const keywords = keywordArguments(prompt.chat_template_kwargs, defaults, template.names)
  if (prompt.reasoning_effort !== undefined && prompt.reasoning_effort !== null) {
    keywords['reasoning_effort'] = prompt.reasoning_effort
    // Asked for reasoning, the engine turns on what some templates have off, unless the request says otherwise itself.
    if (template.names.has('enable_thinking') && !asksFor(prompt.chat_template_kwargs, 'enable_thinking')) {
      keywords['enable_thinking'] = prompt.reasoning_effort !== 'none'
    }
  }
  const messages = conversationOf(prompt.messages, template.contentFormat, template.knowsDeveloper)
  const last = continueFinalMessage ? marked(messages.at(-1)) : null
  if (last !== null) messages[messages.length - 1] = last.message
  const rendered = template.render({
    ...keywords,
    messages,
    tools: toolsOf(prompt.tools),
    documents: prompt.documents ?? null,
    add_generation_prompt: addGenerationPrompt,
  })
  const media = rendered.findIndex((piece) => piece.includes(mediaMark))
  if (media >= 0) {
    const piece = rendered[media] as string
    const known = [...rendered.slice(0, media), piece.slice(0, piece.indexOf(mediaMark))]
    return new RenderedChat(known, tokensFrom(rendered.slice(media).join('')), addSpecialTokens)
  }
  if (last === null) return new RenderedChat(rendered, 0, addSpecialTokens)
  return new RenderedChat([cutAtMark(rendered.join(''), last.text)], 0, addSpecialTokens)
}

/** What an image counts as, about a megapixel in most models; and characters a token. */
const mediaTokens = 1000
const charactersPerToken = 4

/** A guess at the tokens of text that begins with media: engines tell of their number only afterwards. */
function tokensFrom(text: string): number {
  const texts = text.split(mediaMark)
  const characters = texts.reduce((sum, { length }) => sum + length, 0)
  return (texts.length - 1) * mediaTokens + Math.ceil(characters / charactersPerToken)
}

/** Names that a request must not pass, and names that the request's own fields or the conversation take. */
const refusedKeywords = ['chat_template', 'tokenize']
const takenKeywords = [
  'messages',
  'conversation',
  'tools',
  'documents',
  'add_generation_prompt',
  'continue_final_message',
]

function keywordArguments(
  given: unknown,
  defaults: Readonly<Record<string, unknown>>,
  names: ReadonlySet<string>,
): Record<string, unknown> {
  const keywords: Record<string, unknown> = {}
  const add = (entries: Iterable<[string, unknown]>): void => {
    for (const [name, value] of entries) {
      if (refusedKeywords.includes(name)) throw invalid(`chat_template_kwargs.${name}`, 'is not allowed')
      if (names.has(name) && !takenKeywords.includes(name)) keywords[name] = value
    }
  }
  add(Object.entries(defaults))
  if (given === undefined || given === null) return keywords
  if (typeof given !== 'object' || Array.isArray(given)) throw invalid('chat_template_kwargs', 'must be an object')
  add(given instanceof Map ? (given as Map<string, unknown>) : Object.entries(given))
  return keywords
}

function asksFor(given: unknown, name: string): boolean {
  if (typeof given !== 'object' || given === null) return false
  return given instanceof Map ? given.has(name) : Object.hasOwn(given, name)
}

/** Transformers' own mark: it decides by how a template treats it, so that another one might be treated otherwise. */
const continueMark = 'CONTINUE_FINAL_MESSAGE_TAG '

/** A last message whose text ends in the mark, and that text without it. */
function marked(message: TemplateMessage | undefined): { message: TemplateMessage; text: string } {
  const content = message?.['content']
  if (typeof content === 'string') return { message: { ...message, content: content + continueMark }, text: content }
  const parts = Array.isArray(content) ? (content as Record<string, unknown>[]) : []
  const at = parts.findLastIndex((part) => 'text' in part)
  const text = parts[at]?.['text']
  if (typeof text !== 'string') throw invalid('continue_final_message', 'needs text in the final message')
  const withMark = parts.with(at, { ...parts[at], text: text + continueMark })
  return { message: { ...message, content: withMark }, text }
}

/**
 * Cuts the text where the mark stands, so that the model goes on with the last message (transformers 5,
 * `continue_final_message`). Where the template trims messages, spaces before the mark go as those after it did.
 */
function cutAtMark(rendered: string, message: string): string {
  const at = rendered.lastIndexOf(continueMark.trimEnd())
  if (at < 0 || !rendered.includes(strip(message, 'strip', null))) {
    throw new RouterError(
      'TEMPLATE_REFUSED',
      'continue_final_message is set but the final message does not appear in the chat after the template was applied.',
      { param: 'continue_final_message' },
    )
  }
  const text = rendered.slice(0, at)
  return rendered.startsWith(continueMark, at) ? text : strip(text, 'rstrip', null)
}

function flag(value: unknown, param: string, fallback: boolean): boolean {
  if (value === undefined || value === null) return fallback
  if (typeof value !== 'boolean') throw invalid(param, 'must be true or false')
  return value
}

function invalid(param: string, what: string): RouterError {
  return new RouterError('BODY_INVALID', `"${param}" ${what}.`, { param })
}
