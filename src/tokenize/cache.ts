import type { Cuts } from './cuts.ts'

/** Tokens of a text, and how many of the first of them were known from an earlier text. */
export interface CachedTokens {
  /** Shared with the cache: read it, never write to it or transfer it. */
  readonly tokens: Uint32Array
  /** Leading tokens that are equal to those of an earlier result. */
  readonly cachedTokens: number
}

/** Tokenizes a text without any special tokens around it. */
export type Encode = (text: string) => Promise<Uint32Array> | Uint32Array

/**
 * Remembers the tokens of texts, so that the next turn of a conversation costs only what was added to it.
 *
 *     known   |<|im_start|>system …<|im_end|>|…|<|im_start|>|assistant⏎
 *     asked   |<|im_start|>system …<|im_end|>|…|<|im_start|>|assistant⏎Sure.<|im_end|>|…
 *             '----------- equal, up to the last cut -------'  '--- tokenized now ---
 *
 * Exact by construction: a known text is used only up to a cut (see Cuts) and only where it is equal to the asked one character
 * for character; the comparison of two strings is one native memcmp. Least recently used texts go when the budget is reached.
 * A text with a new tail takes its forerunner's place, so that a conversation is held once.
 */
export class TokenCache {
  readonly #budgetBytes: number
  readonly #cuts: Cuts
  readonly #encode: Encode
  /** In order of use, the least recent first. */
  readonly #entries = new Set<Entry>()
  readonly #byFingerprint = new Map<number, Entry>()
  #bytes = 0

  constructor(budgetBytes: number, cuts: Cuts, encode: Encode) {
    this.#budgetBytes = budgetBytes
    this.#cuts = cuts
    this.#encode = encode
  }

  get bytes(): number {
    return this.#bytes
  }

  async encode(text: string): Promise<CachedTokens> {
    const cuts = this.#cuts.after(text, 0)
    const found = this.#find(text, cuts)
    if (found !== null) this.#touch(found.entry)
    if (found !== null && found.offset === text.length) {
      return { tokens: found.entry.tokens.subarray(0, found.tokenCount), cachedTokens: found.tokenCount }
    }
    const offset = found?.offset ?? 0
    const known = found?.tokenCount ?? 0
    const tail = await this.#encode(offset === 0 ? text : text.slice(offset))
    const tokens = new Uint32Array(known + tail.length)
    if (found !== null) tokens.set(found.entry.tokens.subarray(0, known))
    tokens.set(tail, known)
    this.#keep(text, tokens, cuts, found, tail)
    return { tokens, cachedTokens: known }
  }

  /** The known text that shares the most with this one. */
  #find(text: string, cuts: readonly number[]): Found | null {
    const whole = this.#byFingerprint.get(fingerprint(text, text.length))
    if (whole !== undefined && whole.text === text)
      return { entry: whole, cutIndex: whole.cuts.length - 1, offset: text.length, tokenCount: whole.tokens.length }
    const last = Math.max(0, cuts.length - maxTriedCuts)
    for (let index = cuts.length - 1; index >= last; index -= 1) {
      const entry = this.#byFingerprint.get(fingerprint(text, cuts[index] as number))
      if (entry === undefined || !this.#entries.has(entry)) continue
      const cutIndex = lastSharedCut(text, entry)
      if (cutIndex < 0) continue
      return {
        entry,
        cutIndex,
        offset: entry.cuts[cutIndex] as number,
        tokenCount: entry.tokenCounts[cutIndex] as number,
      }
    }
    return null
  }

  #keep(text: string, tokens: Uint32Array, cuts: readonly number[], found: Found | null, tail: Uint32Array): void {
    const tokenCounts = this.#tokenCounts(cuts, found, tail)
    const usableCuts = tokenCounts.length === cuts.length ? cuts : []
    const entry: Entry = {
      text,
      tokens,
      cuts: Uint32Array.from(usableCuts),
      tokenCounts: Uint32Array.from(usableCuts.length === 0 ? [] : tokenCounts),
      fingerprints: [],
      bytes: entryBytes(text, tokens.length, usableCuts.length),
    }
    if (entry.bytes > this.#budgetBytes) return
    // What shares anything with the forerunner shares as much with this text, which goes on from its last cut.
    if (found !== null && found.cutIndex === found.entry.cuts.length - 1) this.#drop(found.entry)
    this.#entries.add(entry)
    this.#bytes += entry.bytes
    this.#name(entry, text.length)
    for (const index of namedCuts(usableCuts.length)) this.#name(entry, usableCuts[index] as number)
    for (const oldest of this.#entries) {
      if (this.#bytes <= this.#budgetBytes) break
      this.#drop(oldest)
    }
  }

  /**
   * How many tokens end at each cut. The k-th cut token of the text is the k-th cut token among its ids; should the model ever
   * make such an id from other text, the counts disagree and the text is kept whole, without cuts.
   */
  #tokenCounts(cuts: readonly number[], found: Found | null, tail: Uint32Array): number[] {
    const known = found === null ? 0 : found.cutIndex + 1
    const counts = found === null ? [] : Array.from(found.entry.tokenCounts.subarray(0, known))
    const offset = found?.tokenCount ?? 0
    const { ids } = this.#cuts
    let index = 0
    for (const id of tail) {
      index += 1
      if (ids.has(id)) counts.push(offset + index)
    }
    return counts.length === cuts.length ? counts : []
  }

  #name(entry: Entry, offset: number): void {
    const name = fingerprint(entry.text, offset)
    this.#byFingerprint.set(name, entry)
    entry.fingerprints.push(name)
  }

  #touch(entry: Entry): void {
    this.#entries.delete(entry)
    this.#entries.add(entry)
  }

  #drop(entry: Entry): void {
    if (!this.#entries.delete(entry)) return
    this.#bytes -= entry.bytes
    for (const name of entry.fingerprints) {
      if (this.#byFingerprint.get(name) === entry) this.#byFingerprint.delete(name)
    }
  }
}

interface Entry {
  readonly text: string
  readonly tokens: Uint32Array
  /** Offsets of the cuts in the text, and the tokens up to each. */
  readonly cuts: Uint32Array
  readonly tokenCounts: Uint32Array
  readonly fingerprints: number[]
  readonly bytes: number
}

interface Found {
  readonly entry: Entry
  readonly cutIndex: number
  readonly offset: number
  readonly tokenCount: number
}

/** Most cuts of a text that are looked up, from its end: a text made of special tokens must not cost more than its length. */
const maxTriedCuts = 1024
/** Cuts by which a text can be found: its last ones, where the next turn goes on, and ever fewer towards its beginning. */
const lastNamedCuts = 16

function namedCuts(count: number): number[] {
  const named: number[] = []
  for (let index = Math.max(0, count - lastNamedCuts); index < count; index += 1) named.push(index)
  for (let index = 0; index < count - lastNamedCuts; index += index < 8 ? 1 : index >> 2) named.push(index)
  return named
}

/** The last cut of a known text up to which it equals the other, -1 if there is none. */
function lastSharedCut(text: string, entry: Entry): number {
  const shares = (from: number, to: number): boolean =>
    to <= text.length && text.slice(from, to) === entry.text.slice(from, to)
  let low = -1
  let high = entry.cuts.length - 1
  if (high >= 0 && shares(0, entry.cuts[high] as number)) return high
  while (low < high - 1) {
    const middle = (low + high) >> 1
    if (shares(low < 0 ? 0 : (entry.cuts[low] as number), entry.cuts[middle] as number)) low = middle
    else high = middle
  }
  return low
}

/** A number that texts with an equal beginning of this length have in common; others may have it too. */
function fingerprint(text: string, length: number): number {
  let hash = 0x811c9dc5
  // The last characters before a cut are always its token's, so the sample starts before them and reaches back ever further.
  for (let back = 1; back <= length; back += back < 48 ? 5 : back) {
    hash = Math.imul(hash ^ text.charCodeAt(length - back), 0x01000193)
  }
  return (hash >>> 0) * 0x200000 + (length & 0x1fffff)
}

/** Estimated: two bytes a character for text that is not Latin, typed arrays, and the entry with its names in the index. */
function entryBytes(text: string, tokenCount: number, cutCount: number): number {
  return text.length * 2 + tokenCount * 4 + cutCount * 8 + 64 * (lastNamedCuts + 32)
}
