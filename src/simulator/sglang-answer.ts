import type { GenerationCall } from './generation-call.ts'
import { tokenCounts, type Choice, type EventWording, type Wording } from './wording.ts'

/** Which answer this is: its id, the second it began, what was asked, and under which model name. */
export interface SglangHead {
  readonly id: string
  readonly createdSeconds: number
  readonly call: GenerationCall
  readonly model: string
  /** SGLang's --enable-cache-report. */
  readonly cacheReport: boolean
}

/** The answers of SGLang's /v1/chat/completions and /v1/completions. */
export function sglangOpenAiWording(head: SglangHead, choices: readonly Choice[]): Wording {
  return {
    whole: () => wholeAnswer(head, choices),
    events: head.call.stream ? streamWording(head, choices) : null,
  }
}

function wholeAnswer({ id, createdSeconds: created, model, ...head }: SglangHead, choices: readonly Choice[]): object {
  const { kind, finishReason } = head.call
  const chat = kind === 'chat'
  return {
    id,
    object: chat ? 'chat.completion' : 'text_completion',
    created,
    model,
    choices: choices.map(({ index, text }) => ({
      index,
      ...(chat
        ? { message: { role: 'assistant', content: text, reasoning_content: null, tool_calls: null } }
        : { text }),
      logprobs: null,
      finish_reason: finishReason,
      matched_stop: null,
    })),
    usage: usage(head, choices),
    metadata: { weight_version: 'default' },
  }
}

/** Unlike vLLM, SGLang tells the role of each choice with its first token, and the end of each in an event of its own. */
function streamWording(head: SglangHead, choices: readonly Choice[]): EventWording {
  const { id, createdSeconds: created, model, call } = head
  const chat = call.kind === 'chat'
  const start = { id, object: chat ? 'chat.completion.chunk' : 'text_completion', created, model }
  const event = (all: readonly object[], counts: object | null): string =>
    `data: ${JSON.stringify({ ...start, choices: all, usage: counts })}\n\n`
  const piece = (index: number, delta: object, reason: string | null): string => {
    const counts = call.continuousUsage ? usage(head, choices) : null
    return event([{ index, ...delta, logprobs: null, finish_reason: reason, matched_stop: null }], counts)
  }
  const silent = { role: null, reasoning_content: null, tool_calls: null }
  return {
    opening: () => '',
    token({ index, tokens, finished }, _, text) {
      if (!chat) return piece(index, { text }, finished ? call.finishReason : null)
      const role =
        tokens.length === 1 ? piece(index, { delta: { ...silent, role: 'assistant', content: '' } }, null) : ''
      const content = piece(index, { delta: { ...silent, content: text } }, null)
      const end = finished ? piece(index, { delta: { ...silent, content: null } }, call.finishReason) : ''
      return role + content + end
    },
    end: () => (call.includeUsage ? event([], usage(head, choices)) : '') + 'data: [DONE]\n\n',
  }
}

/** A prompt of which nothing was cached has no details, even where SGLang reports them. */
function usage({ call, cacheReport }: Pick<SglangHead, 'call' | 'cacheReport'>, choices: readonly Choice[]): object {
  const { promptTokens, completionTokens, cachedTokens } = tokenCounts(choices, call.choices)
  return {
    prompt_tokens: promptTokens,
    total_tokens: promptTokens + completionTokens,
    completion_tokens: completionTokens,
    prompt_tokens_details: cacheReport && cachedTokens > 0 ? { cached_tokens: cachedTokens } : null,
    reasoning_tokens: 0,
  }
}
