import type { GenerationCall } from './generation-call.ts'

const fingerprint = 'vllm-0.32.0-simulated'

/** Which answer this is: its id, the second it began, and what was asked. */
export interface AnswerHead {
  readonly id: string
  readonly createdSeconds: number
  readonly call: GenerationCall
  /** vLLM's --enable-prompt-tokens-details: whether usage tells how much of the prompt was cached. */
  readonly promptTokensDetails: boolean
}

/** What has been generated for one choice of one prompt. */
export interface Choice {
  readonly index: number
  readonly prompt: Uint32Array
  tokens: number[]
  text: string
  /** Null until the engine has started on it. */
  cachedTokens: number | null
  finished: boolean
}

/** The whole answer of a request without `stream`, fields and order as recorded from vLLM 0.32. */
export function completeAnswer(head: AnswerHead, choices: readonly Choice[]): object {
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
export class StreamWriter {
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

/** Every prompt counts once, however many choices it has. */
function usage({ call, promptTokensDetails }: AnswerHead, choices: readonly Choice[]) {
  const prompts = choices.filter(({ index }) => index % call.choices === 0)
  const promptTokens = prompts.reduce((sum, { prompt }) => sum + prompt.length, 0)
  const completionTokens = choices.reduce((sum, { tokens }) => sum + tokens.length, 0)
  const cachedTokens = prompts.reduce((sum, choice) => sum + (choice.cachedTokens ?? 0), 0)
  return {
    prompt_tokens: promptTokens,
    total_tokens: promptTokens + completionTokens,
    completion_tokens: completionTokens,
    prompt_tokens_details: promptTokensDetails ? { cached_tokens: cachedTokens } : null,
  }
}
