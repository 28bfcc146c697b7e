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

/** Most digits of a count: what an engine may say and a number holds exactly. */
const mostDigits = 15
/** Spaces that may stand before a value. */
const mostSpaces = 8

/** The number after the last such key; null where there is none, or where more of it may be to come. */
function numberAfter(text: string, key: string): number | null {
  const found = text.lastIndexOf(key)
  if (found === -1) return null
  let at = found + key.length
  for (let spaces = 0; spaces < mostSpaces && isSpace(text.charCodeAt(at)); spaces++) at++
  let value = 0
  const start = at
  for (; at < text.length && isDigit(text.charCodeAt(at)); at++) value = value * 10 + (text.charCodeAt(at) - zero)
  const digits = at - start
  return digits === 0 || digits > mostDigits || at === text.length ? null : value
}

const zero = 0x30

function isDigit(code: number): boolean {
  return code >= zero && code <= 0x39
}

function isSpace(code: number): boolean {
  return code === 0x20 || (code >= 0x09 && code <= 0x0d)
}
