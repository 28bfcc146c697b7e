const lineFeed = 10
/** Longest key and value that a chunk boundary may cut through. */
const overlapLength = 64
/** An answer's id stands among its first fields. */
const idWithinBytes = 2048

/**
 * Reads what the router wants to know out of passing answer bytes without parsing them. Inside a JSON string every quote is
 * escaped, so the unescaped text `"cached_tokens":` can only be a key. OpenAI's answers carry it in
 * `usage.prompt_tokens_details` (Responses: `input_tokens_details`), Anthropic's as `usage.cache_read_input_tokens`.
 */
export class AnswerReader {
  #cachedTokens: number | null = null
  #generatedTokens: number | null = null
  #tellsCompletion = false
  #responseId: string | null = null
  #seenBytes = 0
  #tail = ''
  readonly #wantsId: boolean

  /** @param wantsId whether to look for the id of an answer of the Responses API */
  constructor(wantsId: boolean) {
    this.#wantsId = wantsId
  }

  push(chunk: Buffer): void {
    const early = this.#wantsId && this.#responseId === null && this.#seenBytes < idWithinBytes
    this.#seenBytes += chunk.length
    // Events of a stream end with a line feed and mostly carry no usage: nothing to keep of them.
    if (this.#tail === '' && !early && chunk.at(-1) === lineFeed && !chunk.includes('_tokens"')) return
    const text = this.#tail + chunk.toString('latin1')
    this.#read(text, early)
    this.#tail = chunk.at(-1) === lineFeed && !early ? '' : text.slice(-(early ? idWithinBytes : overlapLength))
  }

  /** An answer that came whole, as a text with a character for each byte. */
  pushWhole(text: string): void {
    this.#read(text, this.#wantsId)
  }

  /** Null where the engine does not report it. */
  get cachedTokens(): number | null {
    return this.#cachedTokens
  }

  get generatedTokens(): number | null {
    return this.#generatedTokens
  }

  /** Whether there was a usage in the form of chats and completions, which is where OpenAI's cached tokens stand. */
  get tellsCompletion(): boolean {
    return this.#tellsCompletion
  }

  /** Of an answer of the Responses API. */
  get responseId(): string | null {
    return this.#responseId
  }

  /** @param early whether the answer's id may be in it */
  #read(text: string, early: boolean): void {
    if (early) this.#responseId = /"id":\s?"(resp_[\w-]{1,200})"/.exec(text)?.[1] ?? null
    this.#cachedTokens =
      numberAfter(text, '"cached_tokens":') ?? numberAfter(text, '"cache_read_input_tokens":') ?? this.#cachedTokens
    const completionTokens = numberAfter(text, '"completion_tokens":')
    this.#tellsCompletion ||= completionTokens !== null
    this.#generatedTokens = completionTokens ?? numberAfter(text, '"output_tokens":') ?? this.#generatedTokens
  }
}

function numberAfter(text: string, key: string): number | null {
  const at = text.lastIndexOf(key)
  if (at === -1) return null
  const match = /^\s*(\d{1,15})(?=[^\d])/.exec(text.slice(at + key.length, at + key.length + 24))
  return match === null ? null : Number(match[1])
}
