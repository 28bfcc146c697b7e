import { AddedTokenSplitter } from './added-tokens.ts'
import { MergeTable } from './merge-table.ts'
import type { TokenizerJson, TypedStep } from './model-files.ts'
import { splitPattern, surelySplitAlike } from './split-pattern.ts'

/**
 * Byte-level BPE in plain code, for the tokenizers and texts whose result is certain to equal the native library's. It is
 * synchronous and, since it remembers the tokens of words, several times faster on what people write: a call of the native
 * library costs 40 µs before the first token and takes a thread of libuv's pool.
 *
 *     text ─ added tokens ─► pieces ─ split pattern ─► words ─ remembered or merged by rank ─► ids
 *
 * Everything else (other models and normalizers, text with rare characters, very long words) is left to the native library.
 */
export class ByteLevelBpe {
  readonly #splitter: AddedTokenSplitter
  readonly #patterns: readonly RegExp[]
  readonly #normalizes: boolean
  readonly #wholeWordsFirst: boolean
  readonly #vocabulary: ReadonlyMap<string, number>
  readonly #byteIds: Uint32Array
  readonly #merges: MergeTable
  /** The word at hand in UTF-8: at most three bytes for each of its UTF-16 units. */
  readonly #bytes = new Uint8Array(3 * longestWord)
  readonly #words = new Map<string, readonly number[]>()

  /** Null if this tokenizer is of another kind. */
  static from(files: TokenizerJson): ByteLevelBpe | null {
    const patterns = byteLevelPatterns(files.pre_tokenizer)
    const normalizes = files.normalizer?.type === 'NFC'
    const splitter = AddedTokenSplitter.from(files.added_tokens)
    if (patterns === null || splitter === null || !(normalizes || changesNothing(files.normalizer))) return null
    const { model } = files
    if (model.type !== 'BPE' || isSet(model['dropout']) || isSet(model['unk_token'])) return null
    if (
      isSet(model['continuing_subword_prefix']) ||
      isSet(model['end_of_word_suffix']) ||
      model['byte_fallback'] === true
    )
      return null
    if (typeof model.vocab !== 'object' || model.vocab === null || !Array.isArray(model.merges)) return null
    const vocabulary = new Map(Object.entries(model.vocab as Record<string, number>))
    const byteIds = byteAlphabet.map((character) => vocabulary.get(character) ?? -1)
    const merges = MergeTable.from(model.merges as (string | string[])[], vocabulary)
    if (byteIds.includes(-1) || merges === null) return null
    return new ByteLevelBpe(
      splitter,
      patterns,
      normalizes,
      model['ignore_merges'] === true,
      vocabulary,
      Uint32Array.from(byteIds),
      merges,
    )
  }

  private constructor(
    splitter: AddedTokenSplitter,
    patterns: readonly RegExp[],
    normalizes: boolean,
    wholeWordsFirst: boolean,
    vocabulary: ReadonlyMap<string, number>,
    byteIds: Uint32Array,
    merges: MergeTable,
  ) {
    this.#splitter = splitter
    this.#patterns = patterns
    this.#normalizes = normalizes
    this.#wholeWordsFirst = wholeWordsFirst
    this.#vocabulary = vocabulary
    this.#byteIds = byteIds
    this.#merges = merges
  }

  /** The ids of a text without special tokens around it; null if that is not certain here. */
  encode(text: string): Uint32Array | null {
    if (!surelySplitAlike(text) || (this.#normalizes && text.normalize('NFC') !== text)) return null
    const ids: number[] = []
    for (const piece of this.#splitter.split(text)) {
      if (typeof piece === 'number') ids.push(piece)
      else if (!this.#encodePiece(piece, 0, ids)) return null
    }
    return new Uint32Array(ids)
  }

  /** Splits by one pattern after the other; matches and what lies between them are pieces alike. */
  #encodePiece(piece: string, level: number, ids: number[]): boolean {
    const pattern = this.#patterns[level]
    if (pattern === undefined) return this.#encodeWord(piece, ids)
    const matches = piece.match(pattern) ?? []
    if (matches.reduce((length, match) => length + match.length, 0) === piece.length) {
      for (const match of matches) if (!this.#encodePiece(match, level + 1, ids)) return false
      return true
    }
    let at = 0
    pattern.lastIndex = 0
    for (let match = pattern.exec(piece); match !== null; match = pattern.exec(piece)) {
      const end = pattern.lastIndex
      if (end === match.index) {
        pattern.lastIndex += 1
        continue
      }
      if (match.index > at && !this.#encodePiece(piece.slice(at, match.index), level + 1, ids)) return false
      if (!this.#encodePiece(match[0], level + 1, ids)) return false
      at = end
      pattern.lastIndex = end
    }
    return at >= piece.length || this.#encodePiece(piece.slice(at), level + 1, ids)
  }

  #encodeWord(word: string, ids: number[]): boolean {
    let known = this.#words.get(word)
    if (known === undefined) {
      if (word.length > longestWord) return false
      known = this.#merge(encoder.encodeInto(word, this.#bytes).written)
      if (this.#words.size >= maxWords) this.#words.clear()
      this.#words.set(word.length < shortestSlice ? word : Buffer.from(word, 'utf8').toString('utf8'), known)
    }
    for (const id of known) ids.push(id)
    return true
  }

  /** The ids of the word in `#bytes`: merges the pair of the lowest rank, the leftmost of equals, until no pair merges. */
  #merge(length: number): number[] {
    const bytes = this.#bytes
    if (this.#wholeWordsFirst) {
      let word = ''
      for (let index = 0; index < length; index += 1) word += byteAlphabet[bytes[index] as number] as string
      const whole = this.#vocabulary.get(word)
      if (whole !== undefined) return [whole]
    }
    const table = this.#merges
    const parts: number[] = []
    for (let index = 0; index < length; index += 1) parts.push(this.#byteIds[bytes[index] as number] as number)
    // merges[i] is that of parts[i] with its right neighbour; joining two parts changes only those on either side.
    const merges: number[] = []
    for (let index = 0; index + 1 < length; index += 1) {
      merges.push(table.find(parts[index] as number, parts[index + 1] as number))
    }
    for (;;) {
      let best = -1
      let bestRank = Infinity
      for (let index = 0; index < merges.length; index += 1) {
        const found = merges[index] as number
        if (found < 0) continue
        const rank = table.rank(found)
        if (rank >= bestRank) continue
        best = index
        bestRank = rank
      }
      if (best < 0) return parts
      const merged = table.result(merges[best] as number)
      parts[best] = merged
      for (let index = best + 1; index + 1 < parts.length; index += 1) parts[index] = parts[index + 1] as number
      parts.pop()
      for (let index = best; index + 1 < merges.length; index += 1) merges[index] = merges[index + 1] as number
      merges.pop()
      if (best < merges.length) merges[best] = table.find(merged, parts[best + 1] as number)
      if (best > 0) merges[best - 1] = table.find(parts[best - 1] as number, merged)
    }
  }
}

const encoder = new TextEncoder()

/** V8 cuts shorter substrings out by copying; a longer one would keep the whole text alive in the map. */
const shortestSlice = 13
/** In UTF-16 units; merging costs the square of the length. */
const longestWord = 200
/** Words remembered; when full they are forgotten together, which costs a few milliseconds spread over the next prompts. */
const maxWords = 50_000

/** GPT-2's printable stand-ins for the 256 bytes, in which vocabularies of byte-level models are written. */
const byteAlphabet: readonly string[] = Array.from({ length: 256 }, (_, byte) => {
  const printable = (candidate: number): boolean =>
    (candidate >= 0x21 && candidate <= 0x7e) || (candidate >= 0xa1 && candidate <= 0xac) || candidate >= 0xae
  if (printable(byte)) return String.fromCharCode(byte)
  let unprintableBefore = 0
  for (let other = 0; other < byte; other += 1) if (!printable(other)) unprintableBefore += 1
  return String.fromCharCode(0x100 + unprintableBefore)
})

/** The patterns of `Split …, ByteLevel` pre-tokenizers; null for any other. */
function byteLevelPatterns(step: TypedStep | null): RegExp[] | null {
  const steps = step?.type === 'Sequence' ? (step['pretokenizers'] as TypedStep[]) : []
  const last = steps.at(-1)
  if (last?.type !== 'ByteLevel' || last['add_prefix_space'] === true || last['use_regex'] !== false) return null
  const patterns: RegExp[] = []
  for (const split of steps.slice(0, -1)) {
    const regex = (split['pattern'] as { Regex?: unknown } | undefined)?.Regex
    if (
      split.type !== 'Split' ||
      split['behavior'] !== 'Isolated' ||
      split['invert'] === true ||
      typeof regex !== 'string'
    )
      return null
    const pattern = splitPattern(regex)
    if (pattern === null) return null
    patterns.push(pattern)
  }
  return patterns
}

function changesNothing(normalizer: TypedStep | null): boolean {
  if (normalizer === null) return true
  return (
    normalizer.type === 'Sequence' && Array.isArray(normalizer['normalizers']) && normalizer['normalizers'].length === 0
  )
}

function isSet(value: unknown): boolean {
  return value !== undefined && value !== null && value !== ''
}
