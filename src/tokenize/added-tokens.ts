import type { AddedToken } from './model-files.ts'

/** Cuts a text at its added tokens as Hugging Face tokenizers do: leftmost first, the longest of those that begin there. */
export class AddedTokenSplitter {
  readonly #ids: ReadonlyMap<string, number>
  /** Tokens found before normalizing, then, in what lies between those, tokens found after it. */
  readonly #patterns: readonly RegExp[]

  /** Null if any token takes spaces from its neighbours or looks for word boundaries. */
  static from(tokens: readonly AddedToken[]): AddedTokenSplitter | null {
    if (tokens.some((token) => token.lstrip || token.rstrip || token.single_word || token.content === '')) return null
    return new AddedTokenSplitter(tokens)
  }

  private constructor(tokens: readonly AddedToken[]) {
    this.#ids = new Map(tokens.map((token) => [token.content, token.id]))
    this.#patterns = [false, true]
      .map((normalized) => tokens.filter((token) => token.normalized === normalized).map((token) => token.content))
      .filter((contents) => contents.length > 0)
      .map(
        (contents) =>
          new RegExp(
            contents
              .sort((a, b) => b.length - a.length)
              .map(escaped)
              .join('|'),
            'g',
          ),
      )
  }

  /** Ids of added tokens, and the texts between them. The text must be normalized already. */
  split(text: string): (number | string)[] {
    let pieces: (number | string)[] = [text]
    for (const pattern of this.#patterns) {
      pieces = pieces.flatMap((piece) => (typeof piece === 'string' ? this.#splitBy(pattern, piece) : [piece]))
    }
    return pieces
  }

  #splitBy(pattern: RegExp, text: string): (number | string)[] {
    const pieces: (number | string)[] = []
    let at = 0
    for (const match of text.matchAll(pattern)) {
      if (match.index > at) pieces.push(text.slice(at, match.index))
      pieces.push(this.#ids.get(match[0]) as number)
      at = match.index + match[0].length
    }
    if (at < text.length) pieces.push(text.slice(at))
    return pieces
  }
}

function escaped(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&')
}
