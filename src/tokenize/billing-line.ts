/** Engines whose handling of the line is known; another one is one more row of `rules`. */
export type BillingEngine = 'vllm'

/** Where a system text stands: in a body of /v1/messages, or in a chat as the template gets it. */
export type BillingPlace = 'messages' | 'chat'

/** What becomes of a system text that begins with the line: it goes as a whole, or its first line does. */
type BillingRule = 'drop-text' | 'drop-line'

/** vLLM 0.32: `_convert_system_message` and `_extract_system_text`; `_strip_claude_code_billing_header`. */
const rules: Readonly<Record<BillingEngine, Readonly<Record<BillingPlace, BillingRule>>>> = {
  vllm: { messages: 'drop-text', chat: 'drop-line' },
}

const billingLine = 'x-anthropic-billing-header'

/**
 * A system text as the engine keeps it. Claude Code opens its system prompt with a line that changes in every request; engines
 * drop it so that the prefix stays cacheable, and a router that kept it would never find that prefix.
 *
 * @returns null if nothing is left of the text
 */
export function withoutBillingLine(text: string, place: BillingPlace, engine: BillingEngine = 'vllm'): string | null {
  if (!text.startsWith(billingLine)) return text
  const rule = rules[engine][place]
  switch (rule) {
    case 'drop-text':
      return null
    case 'drop-line': {
      const end = text.indexOf('\n')
      return end < 0 || end + 1 === text.length ? null : text.slice(end + 1)
    }
    default:
      return rule satisfies never
  }
}
