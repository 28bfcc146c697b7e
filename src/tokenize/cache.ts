import type { Cuts } from './cuts.ts'
import { PieceText } from './piece-text.ts'

/** Tokens of a text, and how many of the first of them were known from an earlier text. */
export interface CachedTokens {
  /** Never changes; it may share memory with the cache, so it is not to be written to or transferred. */
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
 * for character. The forerunner of a conversation's next turn is found by its last long piece, and its pieces are compared one
 * by one; any other text is joined, and looked for by samples of what comes before its cuts. Least recently used texts go when
 * the budget is reached. A text with a new tail takes its forerunner's place and the memory of its tokens, so that a conversation
 * is held once: tokens are only ever added to it behind those that were given out.
 */
export class TokenCache {
  readonly #budgetBytes: number
  readonly #cuts: Cuts
  readonly #encode: Encode
  readonly #shared: boolean
  /** In order of use, the least recent first. */
  readonly #entries = new Set<Entry>()
  readonly #byFingerprint = new Map<number, Entry>()
  readonly #byPiece = new Map<string, Entry>()
  #bytes = 0

  /** @param shared whether tokens lie in memory that another thread can read: those of a long prompt are not copied for it */
  constructor(budgetBytes: number, cuts: Cuts, encode: Encode, shared = false) {
    this.#budgetBytes = budgetBytes
    this.#cuts = cuts
    this.#encode = encode
    this.#shared = shared
  }

  get bytes(): number {
    return this.#bytes
  }

  /**
   * A known text needs no turn of the event loop, nor a promise.
   * @param pieces of the text, to be joined
   */
  encode(pieces: readonly string[]): CachedTokens | Promise<CachedTokens> {
    const text = new PieceText(pieces)
    const found = this.#forerunner(text) ?? this.#alike(text)
    if (found !== null) this.#touch(found.entry)
    const known = found?.tokenCount ?? 0
    if (found !== null && found.offset === text.length) {
      return { tokens: found.entry.memory.subarray(0, known), cachedTokens: known }
    }
    return this.#added(text, found)
  }

  async #added(text: PieceText, found: Found | null): Promise<CachedTokens> {
    const rest = text.from(found?.offset ?? 0)
    const tail = await this.#encode(rest)
    return { tokens: this.#keep(text, rest, found, tail), cachedTokens: found?.tokenCount ?? 0 }
  }

  /** The known text that holds one of this one's last long pieces, where all before it is equal, too. */
  #forerunner(text: PieceText): Found | null {
    const { pieces } = text
    let tries = maxTriedPieces
    for (let index = pieces.length - 1; index >= 0 && tries > 0; index -= 1) {
      const piece = pieces[index] as string
      if (piece.length < longPiece) continue
      tries -= 1
      const entry = this.#byPiece.get(piece)
      if (entry === undefined) continue
      const shared = text.sharedPieces(entry.text)
      if (shared <= index) continue
      const found = lastCutWithin(entry, text, text.endOf(shared))
      if (found !== null) return found
    }
    return null
  }

  /** The known text that shares the most with this one. */
  #alike(text: PieceText): Found | null {
    if (this.#entries.size === 0) return null
    const whole = this.#byFingerprint.get(fingerprint(text, text.length))
    if (whole?.text.equals(text) === true) return wholeOf(whole)
    const joined = text.from(0)
    const cuts = this.#cuts.after(joined)
    const last = Math.max(0, cuts.length - maxTriedCuts)
    for (let index = cuts.length - 1; index >= last; index -= 1) {
      const entry = this.#byFingerprint.get(fingerprint(text, cuts[index] as number))
      if (entry === undefined) continue
      const cutIndex = lastSharedCut(joined, entry)
      if (cutIndex >= 0) return foundAt(entry, cutIndex)
    }
    return null
  }

  #keep(text: PieceText, rest: string, found: Found | null, tail: Uint32Array): Uint32Array {
    const { cuts, tokenCounts } = this.#cutsOf(text, rest, found, tail)
    // What shares anything with the forerunner shares as much with this text, which goes on from its last cut.
    const goesOn = found !== null && found.cutIndex === found.entry.cuts.length - 1 && this.#entries.has(found.entry)
    const known = found?.tokenCount ?? 0
    const tokenCount = known + tail.length
    let memory = goesOn && goesOnWithin(found.entry, known, tail) ? found.entry.memory : null
    if (memory === null) {
      memory = this.#memory(tokenCount)
      if (found !== null) memory.set(found.entry.memory.subarray(0, known))
    }
    memory.set(tail, known)
    const entry: Entry = {
      text,
      memory,
      tokenCount,
      cuts,
      tokenCounts,
      names: new Map(),
      namedPieces: [],
      bytes: 0,
    }
    const tokens = memory.subarray(0, tokenCount)
    entry.bytes = entryBytes(entry)
    // The forerunner stays then, and its next turn may write where these lie.
    if (entry.bytes > this.#budgetBytes) return tokens.slice()
    if (goesOn) this.#drop(found.entry)
    this.#entries.add(entry)
    this.#bytes += entry.bytes
    this.#name(entry, found)
    for (const oldest of this.#entries) {
      if (this.#bytes <= this.#budgetBytes) break
      this.#drop(oldest)
    }
    return tokens
  }

  /** Memory for tokens, with room for those of the next turns. */
  #memory(tokenCount: number): Uint32Array {
    const bytes = 4 * Math.ceil(tokenCount * 1.125)
    return new Uint32Array(this.#shared ? new SharedArrayBuffer(bytes) : new ArrayBuffer(bytes))
  }

  /**
   * Where the text can be cut, and how many tokens end at each cut. The k-th cut token of the text is the k-th cut token among
   * its ids; should the model ever make such an id from other text, the counts disagree and the text is kept whole, without cuts.
   */
  #cutsOf(text: PieceText, rest: string, found: Found | null, tail: Uint32Array): Pick<Entry, 'cuts' | 'tokenCounts'> {
    const offset = text.length - rest.length
    const known = found === null ? 0 : found.cutIndex + 1
    const added = this.#cuts.after(rest)
    const cuts = new Uint32Array(known + added.length)
    const tokenCounts = new Uint32Array(known + added.length)
    if (found !== null) {
      cuts.set(found.entry.cuts.subarray(0, known))
      tokenCounts.set(found.entry.tokenCounts.subarray(0, known))
    }
    for (let index = 0; index < added.length; index += 1) cuts[known + index] = offset + (added[index] as number)
    const { ids } = this.#cuts
    let count = known
    for (let index = 0; index < tail.length; index += 1) {
      if (!ids.has(tail[index] as number)) continue
      if (count < tokenCounts.length) tokenCounts[count] = (found?.tokenCount ?? 0) + index + 1
      count += 1
    }
    return count === cuts.length ? { cuts, tokenCounts } : { cuts: new Uint32Array(0), tokenCounts: new Uint32Array(0) }
  }

  #name(entry: Entry, found: Found | null): void {
    const { text, cuts } = entry
    const nameAt = (index: number, offset: number): void => {
      const shared = found !== null && index <= found.cutIndex ? found.entry.names.get(index) : undefined
      const name = shared ?? fingerprint(text, offset)
      this.#byFingerprint.set(name, entry)
      entry.names.set(index, name)
    }
    nameAt(cuts.length, text.length)
    for (const index of namedCuts(cuts.length)) nameAt(index, cuts[index] as number)
    const lastCut = cuts.at(-1) ?? 0
    const { pieces } = text
    for (let index = pieces.length - 1; index >= 0 && entry.namedPieces.length < lastNamedPieces; index -= 1) {
      const piece = pieces[index] as string
      if (piece.length < longPiece || text.endOf(index + 1) > lastCut) continue
      this.#byPiece.set(piece, entry)
      entry.namedPieces.push(piece)
    }
  }

  #touch(entry: Entry): void {
    this.#entries.delete(entry)
    this.#entries.add(entry)
  }

  #drop(entry: Entry): void {
    if (!this.#entries.delete(entry)) return
    this.#bytes -= entry.bytes
    for (const name of entry.names.values()) {
      if (this.#byFingerprint.get(name) === entry) this.#byFingerprint.delete(name)
    }
    for (const piece of entry.namedPieces) if (this.#byPiece.get(piece) === entry) this.#byPiece.delete(piece)
  }
}

interface Entry {
  readonly text: PieceText
  /** Its tokens are the first `tokenCount`; the rest is room. */
  readonly memory: Uint32Array
  readonly tokenCount: number
  /** Offsets of the cuts in the text, and the tokens up to each. */
  readonly cuts: Uint32Array
  readonly tokenCounts: Uint32Array
  /** Fingerprints by the index of their cut; the one after the last is that of the whole text. */
  readonly names: Map<number, number>
  readonly namedPieces: string[]
  bytes: number
}

interface Found {
  readonly entry: Entry
  readonly cutIndex: number
  readonly offset: number
  readonly tokenCount: number
}

function foundAt(entry: Entry, cutIndex: number): Found {
  const { cuts, tokenCounts } = entry
  return { entry, cutIndex, offset: cuts[cutIndex] as number, tokenCount: tokenCounts[cutIndex] as number }
}

function wholeOf(entry: Entry): Found {
  return { entry, cutIndex: entry.cuts.length - 1, offset: entry.text.length, tokenCount: entry.tokenCount }
}

/** In UTF-16 units: pieces from this length on tell conversations apart. */
const longPiece = 32
/** Long pieces by which the forerunner is looked for, from the text's end: those of a turn, and some more. */
const maxTriedPieces = 64
/** Long pieces by which a text can be found as a forerunner: its last ones. */
const lastNamedPieces = 4
/** How far texts are compared beyond their last shared piece: further than a cut token and the word after it. */
const comparedBeyond = 64

/** The last cut within the beginning that two texts share, which is `shared` long or little more; null if there is none. */
function lastCutWithin(entry: Entry, text: PieceText, shared: number): Found | null {
  const end = Math.min(shared + comparedBeyond, text.length, entry.text.length)
  let equal = shared
  while (equal < end && text.charCodeAt(equal) === entry.text.charCodeAt(equal)) equal += 1
  if (equal === text.length && equal === entry.text.length) return wholeOf(entry)
  let low = 0
  let high = entry.cuts.length
  while (low < high) {
    const middle = (low + high) >> 1
    if ((entry.cuts[middle] as number) <= equal) low = middle + 1
    else high = middle
  }
  return low === 0 ? null : foundAt(entry, low - 1)
}

/**
 * Whether tokens can be added in a known text's memory: it has room, and none changes of those that were given out. After a
 * generation prompt, which the next turn goes on from, none does.
 */
function goesOnWithin({ memory, tokenCount }: Entry, known: number, tail: Uint32Array): boolean {
  if (memory.length < known + tail.length || tokenCount > known + tail.length) return false
  for (let index = known; index < tokenCount; index += 1) if (memory[index] !== tail[index - known]) return false
  return true
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
  const known = entry.text.from(0)
  const shares = (from: number, to: number): boolean =>
    to <= text.length && text.slice(from, to) === known.slice(from, to)
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
function fingerprint(text: PieceText, length: number): number {
  let hash = 0x811c9dc5
  // The last characters before a cut are always its token's, so the sample starts before them and reaches back ever further.
  for (let back = 1; back <= length; back += back < 48 ? 5 : back) {
    hash = Math.imul(hash ^ text.charCodeAt(length - back), 0x01000193)
  }
  return (hash >>> 0) * 0x200000 + (length & 0x1fffff)
}

/** Estimated: two bytes a character for text that is not Latin, typed arrays, and the entry with its pieces and names. */
function entryBytes({ text, memory, cuts }: Entry): number {
  return text.length * 2 + memory.byteLength + cuts.length * 8 + text.pieces.length * 16 + 64 * (lastNamedCuts + 32)
}
