import type { GenerationCall } from './generation-call.ts'
import { tokenCounts, type Choice, type EventWording, type Wording } from './wording.ts'

const fingerprint = 'vllm-0.32.0-simulated'

/** Which answer this is: its id, the second it began, and what was asked. */
export interface AnswerHead {
  readonly id: string
  readonly createdSeconds: number
  readonly call: GenerationCall
  /** vLLM's --enable-prompt-tokens-details: whether usage tells how much of the prompt was cached. */
  readonly promptTokensDetails: boolean
}

/** The answers of /v1/chat/completions and /v1/completions. */
export function openAiWording(head: AnswerHead, choices: readonly Choice[]): Wording {
  return {
    whole: () => completeAnswer(head, choices),
    events: head.call.stream ? new StreamWriter(head, choices) : null,
  }
}

/** The whole answer of a request without `stream`, fields and order as recorded from vLLM 0.32. */
function completeAnswer(head: AnswerHead, choices: readonly Choice[]): object {
  const { call, id, createdSeconds: created } = head
  const promptIds = (choice: Choice | undefined): number[] | null =>
    call.returnTokenIds && choice !== undefined ? [...choice.prompt] : null
  const tail = { kv_transfer_params: null, ec_transfer_params: null, metrics: null }
  const shared = {
    service_tier: null,
    system_fingerprint: fingerprint,
    usage: { ...usage(head, choices), completion_tokens_details: null },
  }
  const ended = (choice: Choice) => ({
    logprobs: null,
    finish_reason: call.finishReason,
    stop_reason: null,
    token_ids: call.returnTokenIds ? choice.tokens : null,
  })
  if (call.kind === 'chat') {
    const message = { refusal: null, annotations: null, audio: null, function_call: null, reasoning: null }
    return {
      id,
      object: 'chat.completion',
      created,
      model: call.model,
      choices: choices.map((choice) => ({
        index: choice.index,
        message: { role: 'assistant', content: choice.text, ...message },
        ...ended(choice),
        routed_experts: null,
      })),
      ...shared,
      prompt_logprobs: null,
      prompt_token_ids: promptIds(choices[0]),
      prompt_text: null,
      ...tail,
    }
  }
  return {
    id,
    object: 'text_completion',
    created,
    model: call.model,
    choices: choices.map((choice) => ({
      index: choice.index,
      text: choice.text,
      ...ended(choice),
      prompt_logprobs: null,
      prompt_token_ids: promptIds(choice),
      routed_experts: null,
    })),
    ...shared,
    ...tail,
  }
}

/** Writes a stream's events, each a `data:` line and a blank one. */
class StreamWriter implements EventWording {
  readonly #head: AnswerHead
  readonly #choices: readonly Choice[]
  readonly #start: string
  #begun = false

  constructor(head: AnswerHead, choices: readonly Choice[]) {
    this.#head = head
    this.#choices = choices
    const object = head.call.kind === 'chat' ? 'chat.completion.chunk' : 'text_completion'
    const start = JSON.stringify({ id: head.id, object, created: head.createdSeconds, model: head.call.model })
    this.#start = `data: ${start.slice(0, -1)},`
  }

  opening(): string {
    return ''
  }

  /** The events of one new token; the first of a chat comes with one that names the role of every choice. */
  token(choice: Choice, token: number, text: string): string {
    const { call } = this.#head
    const first = choice.tokens.length === 1
    const ids = call.returnTokenIds ? [token] : null
    const reason = choice.finished ? call.finishReason : null
    if (call.kind === 'completion') {
      return this.#event({
        index: choice.index,
        text,
        logprobs: null,
        finish_reason: reason,
        stop_reason: null,
        prompt_token_ids: first && call.returnTokenIds ? [...choice.prompt] : null,
        token_ids: ids,
      })
    }
    const content = this.#event({
      index: choice.index,
      delta: { content: text },
      logprobs: null,
      finish_reason: reason,
      ...(choice.finished ? { stop_reason: null } : {}),
      token_ids: ids,
    })
    if (this.#begun) return content
    this.#begun = true
    return this.#roles() + content
  }

  /** The usage event, if it was asked for, and the end of the stream. */
  end(): string {
    const { call } = this.#head
    if (!call.includeUsage) return 'data: [DONE]\n\n'
    const last = JSON.stringify({ choices: [], usage: this.#usage(), system_fingerprint: fingerprint })
    return `${this.#start}${last.slice(1)}\n\ndata: [DONE]\n\n`
  }

  #roles(): string {
    const { call } = this.#head
    return this.#choices
      .map(({ index, prompt }) =>
        this.#event(
          { index, delta: { role: 'assistant', content: '' }, logprobs: null, finish_reason: null },
          { prompt_token_ids: call.returnTokenIds ? [...prompt] : null },
        ),
      )
      .join('')
  }

  #event(choice: object, more: object = {}): string {
    const usageNow = this.#head.call.continuousUsage ? { usage: this.#usage() } : {}
    return `${this.#start}${JSON.stringify({ choices: [choice], ...more, ...usageNow }).slice(1)}\n\n`
  }

  /** In streams vLLM leaves out what is null. */
  #usage(): object {
    const { prompt_tokens_details: details, ...counts } = usage(this.#head, this.#choices)
    return details === null ? counts : { ...counts, prompt_tokens_details: details }
  }
}

function usage({ call, promptTokensDetails }: AnswerHead, choices: readonly Choice[]) {
  const { promptTokens, completionTokens, cachedTokens } = tokenCounts(choices, call.choices)
  return {
    prompt_tokens: promptTokens,
    total_tokens: promptTokens + completionTokens,
    completion_tokens: completionTokens,
    prompt_tokens_details: promptTokensDetails ? { cached_tokens: cachedTokens } : null,
  }
}
