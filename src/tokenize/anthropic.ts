import { withoutBillingLine } from './billing-line.ts'
import type { ChatPrompt } from './chat.ts'
import {
  chatOrNull,
  fieldsOf,
  flagOrNull,
  listOf,
  objectOrNull,
  textOf,
  textOrNull,
  Unconvertible,
  wordOrNull,
  type Fields,
} from './foreign-body.ts'
import type { InlineSystem } from './template.ts'

/** What vLLM finds out about a model's template before it converts Messages bodies for it. */
export interface MessagesRules {
  readonly inlineSystem: InlineSystem
  /** The reasoning effort that stands for `thinking: {"type": "disabled"}`. */
  readonly disabledThinkingEffort: 'none' | 'low'
}

/**
 * The chat that vLLM 0.32 makes of a body of POST /v1/messages (`AnthropicServingMessages.to_chat_completion_request`).
 *
 * @returns null for a body that the engine refuses, or whose chat it alone can tell
 */
export function chatOfMessages(body: Fields, rules: MessagesRules): ChatPrompt | null {
  return chatOrNull(() => {
    const turns = listOf(body['messages'], 'messages').map(knownTurn)
    if (rules.inlineSystem === 'unknown' && turns.some((turn) => turn.isSystem)) throw new Unconvertible('system')
    const merges = rules.inlineSystem === 'merged'
    const system = systemTexts(body['system'])
    if (merges) {
      for (const turn of turns) if (turn.isSystem) for (const { content } of turn.messages) system.push(String(content))
    }
    const messages = turns.flatMap((turn) => (merges && turn.isSystem ? [] : turn.messages))
    const effort = reasoningEffort(body, rules)
    return {
      messages: system.length === 0 ? messages : [{ role: 'system', content: system.join('') }, ...messages],
      tools: toolsInEffect(body['tools'], turns),
      chat_template_kwargs: objectOrNull(body['chat_template_kwargs'], 'chat_template_kwargs'),
      ...(effort === null ? {} : { reasoning_effort: effort }),
    }
  })
}

type ChatMessage = Readonly<Record<string, unknown>>

/** What one message of the body becomes. */
interface Turn {
  readonly isSystem: boolean
  readonly messages: readonly ChatMessage[]
  readonly toolChanges: readonly ToolChange[]
}

interface ToolChange {
  readonly kind: 'addition' | 'removal'
  readonly name: string
  /** The tool itself where it is declared here, null where it is named. */
  readonly definition: Fields | null
}

/** What was made of frozen messages, which cannot have changed since; frozen too, so that more can be kept of them. */
const made = new WeakMap<object, Turn>()

function knownTurn(message: unknown): Turn {
  const fields = fieldsOf(message, 'message')
  if (!Object.isFrozen(fields)) return turnOf(fields)
  const known = made.get(fields)
  if (known !== undefined) return known
  const turn = turnOf(fields)
  for (const converted of turn.messages) Object.freeze(converted)
  made.set(fields, turn)
  return turn
}

function turnOf(message: Fields): Turn {
  const { role, content } = message
  if (role === 'system') return systemTurn(content)
  if (role !== 'user' && role !== 'assistant') throw new Unconvertible('role')
  if (typeof content === 'string') return { isSystem: false, messages: [{ role, content }], toolChanges: [] }
  return { isSystem: false, messages: messagesOf(role, blocksOf(content)), toolChanges: [] }
}

interface Block extends Fields {
  readonly type: string
}

const blockTypes = new Set([
  'text',
  'image',
  'tool_use',
  'tool_result',
  'tool_reference',
  'thinking',
  'redacted_thinking',
  'tool_addition',
  'tool_removal',
])

function blocksOf(content: unknown): Block[] {
  return listOf(content, 'content').map((item) => {
    const block = fieldsOf(item, 'block')
    const type = textOf(block['type'], 'type')
    if (!blockTypes.has(type)) throw new Unconvertible(type)
    return block as Block
  })
}

/** The texts of the field `system`. A string is taken as it is: its billing line goes when the chat is rendered. */
function systemTexts(system: unknown): string[] {
  if (system === undefined || system === null || system === '') return []
  if (typeof system === 'string') return [system]
  const blocks = blocksOf(system)
  if (blocks.some(isToolChange)) throw new Unconvertible('system')
  return keptTexts(blocks)
}

function systemTurn(content: unknown): Turn {
  const blocks = typeof content === 'string' ? [{ type: 'text', text: content }] : blocksOf(content)
  const text = keptTexts(blocks).join('')
  return {
    isSystem: true,
    messages: text === '' ? [] : [{ role: 'system', content: text }],
    toolChanges: blocks.filter(isToolChange).map(toolChangeOf),
  }
}

function keptTexts(blocks: readonly Block[]): string[] {
  return blocks.flatMap((block) => {
    const text = block.type === 'text' ? textOrNull(block['text'], 'text') : null
    const kept = text === null ? null : withoutBillingLine(text, 'messages')
    return kept === null || kept === '' ? [] : [kept]
  })
}

/** Tool results become messages of their own, which come before the one that they stand in. */
function messagesOf(role: 'user' | 'assistant', blocks: readonly Block[]): ChatMessage[] {
  const messages: ChatMessage[] = []
  const parts: Fields[] = []
  const calls: Fields[] = []
  const reasoning: string[] = []
  for (const block of blocks) {
    switch (block.type) {
      case 'text': {
        const text = textOrNull(block['text'], 'text')
        if (text !== null && text !== '') parts.push({ type: 'text', text })
        break
      }
      case 'image':
        if (imageUrl(block['source']) !== null) parts.push(imagePart)
        break
      case 'thinking': {
        const text = textOrNull(block['thinking'], 'thinking')
        if (text !== null) reasoning.push(text)
        break
      }
      case 'tool_use':
        calls.push(toolCall(block))
        break
      case 'tool_result':
        if (role === 'user') messages.push(...toolResult(block))
        else parts.push(assistantToolResult(block))
        break
      case 'tool_addition':
      case 'tool_removal':
        throw new Unconvertible(block.type)
      default:
      // References count inside tool results only; redacted thinking is opaque.
    }
  }
  const message: Record<string, unknown> = { role }
  if (reasoning.length > 0) message['reasoning'] = reasoning.join('')
  if (calls.length > 0) message['tool_calls'] = calls
  if (parts.length > 0) message['content'] = parts.length === 1 && parts[0] !== imagePart ? parts[0]?.['text'] : parts
  if (role === 'assistant' || parts.length > 0) messages.push(message)
  return messages
}

/** Stands for any image: what it is does not matter here, as the prompt is known up to the first one only. */
const imagePart: Fields = { type: 'image_url' }

/** Null for an image without a source; empty for one whose address is. */
function imageUrl(source: unknown): string | null {
  const fields = objectOrNull(source, 'source') as Fields | null
  if (fields === null || Object.keys(fields).length === 0) return null
  return fields['type'] === 'url' ? (textOrNull(fields['url'] ?? '', 'url') ?? '') : 'data:'
}

function toolCall(block: Block): Fields {
  // The engine names a call without an id by its clock.
  const id = textOf(block['id'], 'id')
  if (id === '') throw new Unconvertible('id')
  const name = textOrNull(block['name'], 'name') ?? ''
  return { id, type: 'function', function: { name, arguments: objectOrNull(block['input'], 'input') ?? {} } }
}

function toolResult(block: Block): ChatMessage[] {
  const tool_call_id = textOrNull(block['tool_use_id'], 'tool_use_id') ?? ''
  const { content } = block
  if (content === undefined || content === null || typeof content === 'string') {
    return [{ role: 'tool', tool_call_id, content: content ?? '' }]
  }
  const texts: string[] = []
  const images: Fields[] = []
  const references: Fields[] = []
  for (const value of listOf(content, 'content')) {
    const item = fieldsOf(value, 'content')
    if (item['type'] === 'text') texts.push(textOf(item['text'] ?? '', 'text'))
    else if (item['type'] === 'image') {
      if (imageUrl(fieldsOf(item['source'] ?? {}, 'source')) !== '') images.push(imagePart)
    } else if (item['type'] === 'tool_reference') {
      const name = textOrNull(item['tool_name'], 'tool_name') || textOrNull(item['name'], 'name')
      if (name) references.push({ type: 'tool_reference', name })
    }
  }
  const messages: ChatMessage[] = [{ role: 'tool', tool_call_id, content: texts.join('\n') }]
  if (images.length > 0) messages.push({ role: 'user', content: images })
  if (references.length > 0) messages.push({ role: 'tool', tool_call_id, content: references })
  return messages
}

function assistantToolResult(block: Block): Fields {
  // A list with something in it would be printed as Python prints it.
  const { content } = block
  const isEmpty = Array.isArray(content) && content.length === 0
  return { type: 'text', text: `Tool result: ${isEmpty ? '' : (textOrNull(content, 'content') ?? '')}` }
}

function isToolChange(block: Block): boolean {
  return block.type === 'tool_addition' || block.type === 'tool_removal'
}

function toolChangeOf(block: Block): ToolChange {
  const kind = block.type === 'tool_addition' ? 'addition' : 'removal'
  const tool = fieldsOf(block['tool'], 'tool')
  if (tool['type'] === 'tool_reference') return { kind, name: textOf(tool['name'], 'name'), definition: null }
  if (kind === 'removal' || tool['type'] !== 'tool_definition') throw new Unconvertible('tool')
  const definition = fieldsOf(tool['definition'], 'definition')
  return { kind, name: textOf(definition['name'], 'name'), definition }
}

/** The tools at the end of the conversation: a template sees one list, whatever messages add to it or take from it. */
function toolsInEffect(declared: unknown, turns: readonly Turn[]): Fields[] | null {
  const changes = turns.flatMap((turn) => turn.toolChanges)
  if (changes.length === 0) {
    return declared === undefined || declared === null ? null : listOf(declared, 'tools').map(toolOf)
  }
  const tools = new Map<string, Fields>()
  const removed = new Set<string>()
  for (const tool of listOf(declared ?? [], 'tools')) {
    const fields = fieldsOf(tool, 'tool')
    tools.set(textOf(fields['name'], 'name'), fields)
  }
  for (const { kind, name, definition } of changes) {
    const tool = definition ?? tools.get(name)
    if (tool === undefined) throw new Unconvertible('tool')
    tools.set(name, kind === 'addition' && definition === null ? { ...tool, defer_loading: null } : tool)
    if (kind === 'removal') removed.add(name)
    else removed.delete(name)
  }
  return [...tools].filter(([name]) => !removed.has(name)).map(([, tool]) => toolOf(tool))
}

function toolOf(tool: unknown): Fields {
  const fields = fieldsOf(tool, 'tool')
  return {
    type: 'function',
    function: {
      name: textOf(fields['name'], 'name'),
      description: textOrNull(fields['description'], 'description'),
      parameters: schemaOf(fields['input_schema']),
      strict: flagOrNull(fields['strict'], 'strict'),
      defer_loading: flagOrNull(fields['defer_loading'], 'defer_loading'),
    },
  }
}

/** A schema without a type gets one, as its last key. */
function schemaOf(schema: unknown): object {
  const fields = fieldsOf(schema, 'input_schema')
  if (fields instanceof Map) return fields.has('type') ? fields : new Map([...fields, ['type', 'object']])
  return 'type' in fields ? fields : { ...fields, type: 'object' }
}

const efforts = ['low', 'medium', 'high', 'xhigh', 'max'] as const

function reasoningEffort(body: Fields, rules: MessagesRules): string | null {
  const output = objectOrNull(body['output_config'], 'output_config') as Fields | null
  const effort = wordOrNull(output?.['effort'], efforts, 'effort')
  const thinking = objectOrNull(body['thinking'], 'thinking') as Fields | null
  if (thinking === null) return effort
  const type = wordOrNull(thinking['type'], ['enabled', 'disabled', 'adaptive'], 'thinking')
  if (type === null) throw new Unconvertible('thinking')
  return type === 'disabled' ? rules.disabledThinkingEffort : effort
}
