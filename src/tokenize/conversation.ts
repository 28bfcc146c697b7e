import { RouterError } from '../errors.ts'
import type { ContentFormat } from './content-format.ts'
import { withoutBillingLine } from './billing-line.ts'
import { mayNeedExact, parseExactJson } from './exact-json.ts'

/** A message as the template gets it. */
export type TemplateMessage = Record<string, unknown>

/**
 * Stands in the rendered text where media (an image, a sound) begins: what the engine puts there depends on its processor, so
 * the prompt is known only up to this mark. Made of private-use characters, which no tokenizer or template treats specially.
 */
export const mediaMark = '\uE0F1\uF5A3media\uF5A3\uE0F1'

/**
 * Turns a request's messages into the form that the engine hands to the template: vLLM 0.32's `parse_chat_messages` and the
 * role rule that follows it. Unknown keys are dropped.
 *
 * @throws RouterError BODY_INVALID naming the message
 */
export function conversationOf(messages: unknown, format: ContentFormat, knowsDeveloper: boolean): TemplateMessage[] {
  if (!Array.isArray(messages)) throw invalid('messages', 'must be an array of messages')
  if (messages.length === 0) throw invalid('messages', 'must hold at least one message')
  const conversation = messages.map((message: unknown, index) => knownMessage(message, index, format))
  const hasDeveloper = conversation.some((message) => message['role'] === 'developer')
  return hasDeveloper && !knowsDeveloper ? oneSystemMessage(conversation) : conversation
}

/** What was made of frozen messages, which cannot have changed since: those of conversations that are kept between turns. */
const made: Record<ContentFormat, WeakMap<object, TemplateMessage>> = { text: new WeakMap(), list: new WeakMap() }

function knownMessage(message: unknown, index: number, format: ContentFormat): TemplateMessage {
  if (typeof message !== 'object' || message === null || !Object.isFrozen(message)) {
    return templateMessage(message, `messages[${index}]`, format)
  }
  const known = made[format].get(message)
  if (known !== undefined) return known
  const result = templateMessage(message, `messages[${index}]`, format)
  made[format].set(message, result)
  return result
}

function templateMessage(message: unknown, where: string, format: ContentFormat): TemplateMessage {
  if (!isObject(message)) throw invalid(where, 'must be an object')
  const role = message['role']
  if (typeof role !== 'string') throw invalid(`${where}.role`, 'must be a string')
  const result: TemplateMessage = { role, content: contentOf(message['content'], role, where, format) }
  if (role === 'assistant') {
    if (message['tool_calls'] !== undefined && message['tool_calls'] !== null) {
      const calls = toolCalls(message['tool_calls'], `${where}.tool_calls`)
      if (calls.length > 0) result['tool_calls'] = calls
    }
    const reasoning = message['reasoning'] ?? message['reasoning_content']
    if (reasoning !== undefined && reasoning !== null) {
      if (typeof reasoning !== 'string') throw invalid(`${where}.reasoning`, 'must be a string')
      result['reasoning'] = reasoning
      result['reasoning_content'] = reasoning
    }
  } else if (role === 'tool') {
    if (message['tool_call_id'] !== undefined) result['tool_call_id'] = message['tool_call_id']
  }
  if (typeof message['name'] === 'string') result['name'] = message['name']
  if (typeof message['task'] === 'string') result['task'] = message['task']
  if (role === 'developer') result['tools'] = message['tools'] ?? null
  return result
}

type TemplatePart = Record<string, unknown>

function contentOf(content: unknown, role: string, where: string, format: ContentFormat): string | TemplatePart[] {
  if (content === undefined || content === null) return format === 'list' && role !== 'tool' ? [] : ''
  if (typeof content === 'string') {
    const text = role === 'system' ? withoutBillingLine(content, 'chat') : content
    if (format === 'text' || role === 'tool') return text ?? ''
    return text === null ? [] : [{ type: 'text', text }]
  }
  if (!Array.isArray(content)) throw invalid(`${where}.content`, 'must be a string, an array of parts, or null')
  const parts = content.flatMap((part: unknown, index) => partOf(part, role, `${where}.content[${index}]`))
  if (format === 'text') return textOf(parts)
  if (role === 'tool' && parts.every((part) => part['type'] === 'text')) {
    return parts.map((part) => part['text']).join('\n')
  }
  return parts.flatMap((part) => (isMedia(part) ? [{ type: 'text', text: mediaMark }, part] : [part]))
}

/** Parts as text. Engines differ in where they put the stand-in of an image, so the message is unknown from its beginning. */
function textOf(parts: readonly TemplatePart[]): string {
  const texts = parts
    .map((part) => part['text'] ?? part['name'])
    .filter((text) => typeof text === 'string' && text !== '')
  return (parts.some(isMedia) ? [mediaMark, ...texts] : texts).join('\n')
}

function isMedia(part: TemplatePart): boolean {
  return part['type'] !== 'text' && part['type'] !== 'tool_reference'
}

/** The field of a part that holds its text, by the part's type. */
const textFields: Readonly<Record<string, string>> = {
  text: 'text',
  input_text: 'text',
  output_text: 'text',
  refusal: 'refusal',
  thinking: 'thinking',
}

/** What a template sees for a part with media, by the part's type (or, without a type, its first key). */
const mediaTypes: Readonly<Record<string, string>> = {
  image_url: 'image',
  input_image: 'image',
  image_pil: 'image',
  image_embeds: 'image',
  audio_url: 'audio',
  input_audio: 'audio',
  audio_embeds: 'audio',
  video_url: 'video',
  prompt_embeds: 'embeds',
}

function partOf(part: unknown, role: string, where: string): TemplatePart[] {
  if (typeof part === 'string') return textPart(part, role)
  if (!isObject(part)) throw invalid(where, 'must be a string or an object')
  const type = part['type'] ?? Object.keys(part).find((key) => key in mediaTypes)
  if (typeof type !== 'string') throw invalid(`${where}.type`, 'must be a string')
  if (type === 'tool_reference') return [{ type, name: part['name'] ?? null }]
  const field = textFields[type]
  if (field !== undefined) {
    const text = part[field]
    if (text === undefined || text === null) return []
    if (typeof text !== 'string') throw invalid(`${where}.${field}`, 'must be a string')
    return type === 'text' ? textPart(text, role) : [{ type: 'text', text }]
  }
  const media = mediaTypes[type]
  if (media === undefined) throw invalid(`${where}.type`, `has the unsupported value "${type}"`)
  return [{ type: media }]
}

function textPart(text: string, role: string): TemplatePart[] {
  const kept = role === 'system' ? withoutBillingLine(text, 'chat') : text
  return kept === null ? [] : [{ type: 'text', text: kept }]
}

function toolCalls(calls: unknown, where: string): TemplateMessage[] {
  if (!Array.isArray(calls)) throw invalid(where, 'must be an array')
  return calls.map((call: unknown, index) => {
    if (!isObject(call)) throw invalid(`${where}[${index}]`, 'must be an object')
    const called = call['function']
    if (!isObject(called)) throw invalid(`${where}[${index}].function`, 'must be an object')
    const result: TemplateMessage = {}
    if (call['id'] !== undefined) result['id'] = call['id']
    result['function'] = { arguments: argumentsOf(called['arguments']), name: called['name'] ?? null }
    result['type'] = call['type'] ?? 'function'
    return result
  })
}

/** Templates print arguments as an object; what is not JSON for an object becomes an empty one, as in the engine. */
function argumentsOf(value: unknown): unknown {
  if (isObject(value)) return value
  if (typeof value !== 'string') return {}
  try {
    const parsed: unknown = JSON.parse(value)
    if (!isObject(parsed)) return {}
    return mayNeedExact(value) ? parseExactJson(value) : parsed
  } catch {
    return {}
  }
}

/** Developer messages become system messages, and all system messages one at the front. */
function oneSystemMessage(conversation: readonly TemplateMessage[]): TemplateMessage[] {
  const renamed = conversation.map((message) => {
    if (message['role'] !== 'developer') return message
    const system: TemplateMessage = { ...message, role: 'system' }
    delete system['tools']
    return system
  })
  if (!renamed.some((message, index) => index > 0 && message['role'] === 'system')) return renamed
  const contents = renamed
    .filter((message) => message['role'] === 'system')
    .map((message) => systemText(message['content']))
  const others = renamed.filter((message) => message['role'] !== 'system')
  return [{ role: 'system', content: contents.filter((content) => content !== '').join('\n\n') }, ...others]
}

function systemText(content: unknown): string {
  if (typeof content === 'string') return content
  if (!Array.isArray(content)) return ''
  return content
    .map((part: TemplatePart) => part['text'])
    .filter((text) => typeof text === 'string')
    .join('\n')
}

/**
 * Tools in the engine's fixed form and key order: absent descriptions and parameters are null, unknown keys are dropped.
 *
 * @returns null if the request has none
 * @throws RouterError BODY_INVALID naming the tool
 */
export function toolsOf(tools: unknown): TemplateMessage[] | null {
  if (tools === undefined || tools === null) return null
  if (!Array.isArray(tools)) throw invalid('tools', 'must be an array')
  return tools.map((tool: unknown, index) => {
    const where = `tools[${index}]`
    if (!isObject(tool)) throw invalid(where, 'must be an object')
    const declared = tool['function']
    if (!isObject(declared)) throw invalid(`${where}.function`, 'must be an object')
    if (typeof declared['name'] !== 'string') throw invalid(`${where}.function.name`, 'must be a string')
    const inner: TemplateMessage = {
      name: declared['name'],
      description: declared['description'] ?? null,
      parameters: declared['parameters'] ?? null,
    }
    const deferLoading = declared['defer_loading'] ?? tool['defer_loading'] ?? null
    if (declared['strict'] !== undefined && declared['strict'] !== null) inner['strict'] = declared['strict']
    if (deferLoading !== null) inner['defer_loading'] = deferLoading
    const result: TemplateMessage = { type: tool['type'] ?? 'function', function: inner }
    if (tool['defer_loading'] !== undefined && tool['defer_loading'] !== null)
      result['defer_loading'] = tool['defer_loading']
    return result
  })
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function invalid(param: string, what: string): RouterError {
  return new RouterError('BODY_INVALID', `"${param}" ${what}.`, { param })
}
