import type { AddedToken, CuttingRules } from './model-files.ts'

/**
 * Where a text may be cut so that its parts can be tokenized one by one with the same result.
 *
 * Hugging Face tokenizers first cut a text at its added tokens, then normalize, split and tokenize each piece by itself. So a
 * cut right after an added token is exact, provided that the token is certain to be found there (no other added token
 * overlaps it), that it takes nothing from its neighbours (no strip and no whole-word flags), and that no step looks at where
 * in the text a piece began.
 */
export class Cuts {
  /** Ids of the tokens after which is cut. */
  readonly ids: ReadonlySet<number>
  readonly #tokens: readonly AddedToken[]

  /** @param usual text in which the tokens that matter occur: the chat template. Others would only slow the search down. */
  constructor(rules: CuttingRules, usual: string) {
    this.#tokens = exactTokens(rules)
      .filter((token) => usual.includes(token.content))
      .slice(0, maxCutTokens)
    this.ids = new Set(this.#tokens.map((token) => token.id))
  }

  get possible(): boolean {
    return this.#tokens.length > 0
  }

  /** Offsets right after each cut token in a text, ascending, in UTF-16 units. */
  after(text: string): number[] {
    const cuts: number[] = []
    for (const { content } of this.#tokens) {
      for (let at = text.indexOf(content); at >= 0; at = text.indexOf(content, at + content.length)) {
        cuts.push(at + content.length)
      }
    }
    return this.#tokens.length > 1 ? cuts.sort((a, b) => a - b) : cuts
  }
}

/** Most tokens that are searched for; each costs one native pass over the text. */
const maxCutTokens = 8

function exactTokens(rules: CuttingRules): AddedToken[] {
  const tokens = rules.added_tokens
  const takesNeighbours = tokens.some((token) => token.lstrip || token.rstrip || token.single_word)
  if (takesNeighbours || looksAtPosition(rules)) return []
  const identity = isIdentity(rules.normalizer)
  const overlaps = overlapFinder(tokens)
  return tokens.filter((token) => token.content !== '' && (identity || !token.normalized) && !overlaps(token))
}

/** Metaspace's "first" puts its mark before the first piece of a text only. */
function looksAtPosition(rules: CuttingRules): boolean {
  const text = JSON.stringify([rules.normalizer, rules.pre_tokenizer])
  return /"prepend_scheme":"first"/.test(text) || (text.includes('"Metaspace"') && !text.includes('"prepend_scheme"'))
}

/** A normalizer that changes nothing lets tokens that are matched after it be cut at, too. */
function isIdentity(normalizer: CuttingRules['normalizer']): boolean {
  if (normalizer === null) return true
  const steps = normalizer['normalizers']
  return normalizer.type === 'Sequence' && Array.isArray(steps) && steps.length === 0
}

/** Whether any added token could be found in a place that overlaps this one's. */
function overlapFinder(tokens: readonly AddedToken[]): (token: AddedToken) => boolean {
  const starts = new Set<string>()
  const ends = new Set<string>()
  for (const { content } of tokens) {
    for (let length = 1; length < content.length; length += 1) {
      starts.add(content.slice(0, length))
      ends.add(content.slice(-length))
    }
  }
  return ({ content }) => {
    for (let length = 1; length < content.length; length += 1) {
      if (ends.has(content.slice(0, length)) || starts.has(content.slice(-length))) return true
    }
    return tokens.some(
      (other) => other.content !== content && (other.content.includes(content) || content.includes(other.content)),
    )
  }
}
