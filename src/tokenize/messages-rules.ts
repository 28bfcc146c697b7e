import type { MessagesRules } from './anthropic.ts'
import type { ChatPrompt } from './chat.ts'
import type { ChatTemplate, InlineSystem } from './template.ts'

/**
 * Tries a model's templates as vLLM 0.32 does (`_should_merge_inline_system`, `_probe_disabled_thinking_effort`).
 *
 * @param render the text of a chat, as the model's own templates make it
 */
export function messagesRulesOf(
  templates: readonly ChatTemplate[],
  render: (prompt: ChatPrompt) => string,
): MessagesRules {
  return {
    inlineSystem: inlineSystemOf(templates),
    disabledThinkingEffort: takesEffortNone(render) ? 'none' : 'low',
  }
}

/** One template that refuses is enough: a model may have one for chats with tools and one for those without. */
function inlineSystemOf(templates: readonly ChatTemplate[]): InlineSystem {
  const found = templates.map((template) => template.inlineSystem())
  if (found.length === 0 || found.includes('merged')) return 'merged'
  return found.includes('unknown') ? 'unknown' : 'kept'
}

/** Whether the effort `none` changes the prompt: a template that does not know it may think at its hardest. */
function takesEffortNone(render: (prompt: ChatPrompt) => string): boolean {
  const rendered = (effort: string): string | null => {
    try {
      return render({ messages: [{ role: 'user', content: 'Hi' }], reasoning_effort: effort })
    } catch {
      return null
    }
  }
  const none = rendered('none')
  return none !== null && ['low', 'medium', 'high', 'xhigh', 'max'].every((effort) => rendered(effort) !== none)
}
