const lineFeed = 10

/**
 * Reads `usage` out of passing answer bytes without parsing them. Inside a JSON string every quote is escaped, so the
 * unescaped text `"cached_tokens":` can only be a key; OpenAI-compatible answers carry it in
 * `usage.prompt_tokens_details` alone.
 */
export class UsageReader {
  #cachedTokens: number | null = null
  #promptTokens: number | null = null
  #tail = ''

  /** Longest key and number that a chunk boundary may cut through. */
  static readonly overlap = 48

  push(chunk: Buffer): void {
    // Events of a stream end with a line feed and mostly carry no usage: nothing to keep of them.
    if (this.#tail === '' && chunk.at(-1) === lineFeed && !chunk.includes('_tokens"')) return
    const text = this.#tail + chunk.toString('latin1')
    this.#cachedTokens = numberAfter(text, '"cached_tokens":') ?? this.#cachedTokens
    this.#promptTokens = numberAfter(text, '"prompt_tokens":') ?? this.#promptTokens
    this.#tail = chunk.at(-1) === lineFeed ? '' : text.slice(-UsageReader.overlap)
  }

  /** Null where the engine does not report it. */
  get cachedTokens(): number | null {
    return this.#cachedTokens
  }

  get promptTokens(): number | null {
    return this.#promptTokens
  }
}

function numberAfter(text: string, key: string): number | null {
  const at = text.lastIndexOf(key)
  if (at === -1) return null
  const match = /^\s*(\d{1,15})(?=[^\d])/.exec(text.slice(at + key.length, at + key.length + 24))
  return match === null ? null : Number(match[1])
}
