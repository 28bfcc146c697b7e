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

/**
 * The chat that vLLM 0.32 makes of a body of POST /v1/responses (`construct_input_messages`, `construct_tool_dicts`).
 *
 * @returns null for a body that the engine refuses, or whose chat it alone can tell: one that goes on from an earlier response
 */
export function chatOfResponses(body: Fields): ChatPrompt | null {
  return chatOrNull(() => {
    if (isGiven(body['previous_response_id']) || isGiven(body['prompt'])) throw new Unconvertible('previous response')
    const instructions = textOrNull(body['instructions'], 'instructions') ?? ''
    const { input } = body
    const asked = typeof input === 'string' ? [{ role: 'user', content: input }] : messagesOf(listOf(input, 'input'))
    const goesOn = typeof input !== 'string' && endsUnfinished(listOf(input, 'input'))
    const effort = reasoningEffort(body['reasoning'])
    return {
      messages: instructions === '' ? asked : [{ role: 'system', content: instructions }, ...asked],
      tools: toolsOf(body['tools']),
      // This API alone has the tokenizer add its special tokens to those of the template.
      add_special_tokens: true,
      add_generation_prompt: !goesOn,
      continue_final_message: goesOn,
      chat_template_kwargs: objectOrNull(body['chat_template_kwargs'], 'chat_template_kwargs'),
      ...(effort === null ? {} : { reasoning_effort: effort }),
    }
  })
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null
}

interface ChatMessage {
  readonly role: string
  content?: unknown
  reasoning?: string
  tool_calls?: Fields[]
  readonly tool_call_id?: unknown
}

/** Items of one turn of the assistant (its reasoning, its text, its calls) come one by one and are put together. */
function messagesOf(items: readonly unknown[]): ChatMessage[] {
  const messages: ChatMessage[] = []
  for (const value of items) {
    const item = fieldsOf(value, 'item')
    const last = messages.at(-1)
    const message = messageOf(item, last?.role === 'assistant' ? last : null)
    if (message !== null) messages.push(message)
  }
  return messages
}

/** @returns null where the item went into the assistant's message before it */
function messageOf(item: Fields, before: ChatMessage | null): ChatMessage | null {
  switch (item['type']) {
    case undefined:
    case 'message':
      return item['role'] === 'assistant' ? assistantMessage(item, before) : givenMessage(item)
    case 'function_call':
    case 'custom_tool_call':
      return calling(item['type'] === 'function_call' ? functionCall(item) : customCall(item), before)
    case 'reasoning':
      return reasoningMessage(item, before)
    case 'function_call_output':
    case 'custom_tool_call_output':
      return { role: 'tool', tool_call_id: textOf(item['call_id'], 'call_id'), content: outputOf(item) }
    default:
      // Also what belongs to tools that the engine runs itself.
      throw new Unconvertible('type')
  }
}

function givenMessage(item: Fields): ChatMessage {
  const role = wordOrNull(item['role'], ['user', 'system', 'developer'], 'role')
  if (role === null) throw new Unconvertible('role')
  const { content } = item
  return { role, content: typeof content === 'string' ? content : inputParts(content) }
}

/** Parts of a message from outside; files are refused by the engine. */
function inputParts(content: unknown): Fields[] {
  return listOf(content, 'content').map((value) => {
    const part = fieldsOf(value, 'part')
    switch (part['type']) {
      case 'input_text':
        return { type: 'input_text', text: textOf(part['text'], 'text') }
      case 'input_image':
        return { type: 'input_image' }
      default:
        throw new Unconvertible('part')
    }
  })
}

function assistantMessage(item: Fields, before: ChatMessage | null): ChatMessage | null {
  const given = item['content']
  // Without a type, an empty list is a message without text; with one it is an answer without a first part, and refused.
  if (item['type'] === undefined && Array.isArray(given) && given.length === 0)
    return { role: 'assistant', content: [] }
  const content = typeof given === 'string' ? given : outputText(item)
  if (before !== null && before.content === undefined) {
    before.content = content
    return null
  }
  return { role: 'assistant', content }
}

/** The first part only: the engine reads no others. */
function outputText(item: Fields): string {
  const [first] = listOf(item['content'], 'content')
  const part = fieldsOf(first, 'part')
  if (part['type'] !== 'output_text' && part['type'] !== 'input_text') throw new Unconvertible('part')
  return textOf(part['text'], 'text')
}

function functionCall(item: Fields): Fields {
  const name = textOf(item['name'], 'name')
  const namespace = textOrNull(item['namespace'], 'namespace') ?? ''
  return {
    id: textOf(item['call_id'], 'call_id'),
    type: 'function',
    function: {
      name: namespace === '' ? name : flatName(namespace, name),
      arguments: textOf(item['arguments'], 'arguments'),
    },
  }
}

/** A call with free text: the engine shows it as one of a function that takes that text. */
function customCall(item: Fields): Fields {
  return {
    id: textOf(item['call_id'], 'call_id'),
    type: 'function',
    function: { name: textOf(item['name'], 'name'), arguments: { [customInput]: textOf(item['input'], 'input') } },
  }
}

function calling(call: Fields, before: ChatMessage | null): ChatMessage | null {
  if (before === null) return { role: 'assistant', tool_calls: [call] }
  if (before.tool_calls === undefined) before.tool_calls = [call]
  else before.tool_calls.push(call)
  return null
}

function reasoningMessage(item: Fields, before: ChatMessage | null): ChatMessage | null {
  if ((textOrNull(item['encrypted_content'], 'encrypted_content') ?? '') !== '') throw new Unconvertible('encrypted')
  textOrNull(item['id'], 'id')
  const content = thoughts(item['content'] ?? [], 'reasoning_text')
  const summary = thoughts(item['summary'], 'summary_text')
  const reasoning = content[0] ?? summary[0] ?? ''
  if (before !== null && before.reasoning === undefined) {
    before.reasoning = reasoning
    return null
  }
  return { role: 'assistant', reasoning }
}

function thoughts(parts: unknown, type: string): string[] {
  return listOf(parts, type).map((value) => {
    const part = fieldsOf(value, type)
    if (part['type'] !== type) throw new Unconvertible(type)
    return textOf(part['text'], type)
  })
}

function outputOf(item: Fields): unknown {
  const { output } = item
  return typeof output === 'string' ? output : inputParts(output)
}

/** Whether the last item is a message that the model is to go on with. */
function endsUnfinished(items: readonly unknown[]): boolean {
  const last = items.at(-1)
  if (last === undefined) return false
  const item = fieldsOf(last, 'item')
  if (!['message', 'reasoning', undefined].includes(item['type'] as string | undefined)) return false
  return item['status'] === 'in_progress' || item['status'] === 'incomplete'
}

const customInput = 'input'

function flatName(namespace: string, name: string): string {
  return `${namespace}__${name}`
}

/** Functions only: tools that the engine runs itself, or knows nothing of, do not reach the template. */
function toolsOf(tools: unknown): Fields[] | null {
  if (!isGiven(tools)) return null
  const list = listOf(tools, 'tools')
  if (list.length === 0) return null
  return list.flatMap((value) => {
    const tool = fieldsOf(value, 'tool')
    switch (tool['type']) {
      case 'function':
        return [functionTool(tool, textOf(tool['name'], 'name'))]
      case 'custom':
        return [customTool(tool)]
      case 'namespace':
        return namespaceTools(tool)
      default:
        if (!unrenderedTools.has(textOf(tool['type'], 'tool'))) throw new Unconvertible('tool')
        return []
    }
  })
}

const unrenderedTools: ReadonlySet<string> = new Set([
  'apply_patch',
  'code_interpreter',
  'computer',
  'computer_use_preview',
  'file_search',
  'image_generation',
  'local_shell',
  'mcp',
  'shell',
  'tool_search',
  'web_search',
  'web_search_2025_08_26',
  'web_search_preview',
  'web_search_preview_2025_03_11',
])

function functionTool(tool: Fields, name: string): Fields {
  return {
    type: 'function',
    function: {
      name,
      description: textOrNull(tool['description'], 'description'),
      parameters: objectOrNull(tool['parameters'], 'parameters'),
      strict: flagOrNull(tool['strict'], 'strict'),
      defer_loading: flagOrNull(tool['defer_loading'], 'defer_loading'),
    },
  }
}

function namespaceTools(namespace: Fields): Fields[] {
  const prefix = textOf(namespace['name'], 'name')
  textOf(namespace['description'], 'description')
  return listOf(namespace['tools'], 'tools')
    .map((tool) => fieldsOf(tool, 'tool'))
    .filter((tool) => tool['type'] === 'function')
    .map((tool) => functionTool(tool, flatName(prefix, textOf(tool['name'], 'name'))))
}

function customTool(tool: Fields): Fields {
  return functionTool({ description: tool['description'], parameters: customParameters }, textOf(tool['name'], 'name'))
}

const customParameters = {
  type: 'object',
  properties: { [customInput]: { type: 'string', description: 'The freeform text payload for this tool.' } },
  required: [customInput],
  additionalProperties: false,
}

const efforts = ['none', 'minimal', 'low', 'medium', 'high', 'xhigh', 'max'] as const

function reasoningEffort(reasoning: unknown): string | null {
  const fields = objectOrNull(reasoning, 'reasoning') as Fields | null
  return wordOrNull(fields?.['effort'], efforts, 'effort')
}
