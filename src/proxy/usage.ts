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
    if (chunk.indexOf('_tokens"') === -1 && this.#tail === '') {
      this.#tail = tailOf(chunk)
      return
    }
    const text = this.#tail + chunk.toString('latin1')
    this.#cachedTokens = numberAfter(text, '"cached_tokens":') ?? this.#cachedTokens
    this.#promptTokens = numberAfter(text, '"prompt_tokens":') ?? this.#promptTokens
    this.#tail = tailOf(chunk)
  }

  /** Null where the engine does not report it. */
  get cachedTokens(): number | null {
    return this.#cachedTokens
  }

  get promptTokens(): number | null {
    return this.#promptTokens
  }
}

/** The end of a chunk, when a key of interest may have begun in it. */
function tailOf(chunk: Buffer): string {
  const tail = chunk.toString('latin1', Math.max(0, chunk.length - UsageReader.overlap))
  return tail.endsWith('\n\n') || !tail.includes('"') ? '' : tail
}

function numberAfter(text: string, key: string): number | null {
  const at = text.lastIndexOf(key)
  if (at === -1) return null
  const match = /^\s*(\d{1,15})(?=[^\d])/.exec(text.slice(at + key.length, at + key.length + 24))
  return match === null ? null : Number(match[1])
}
