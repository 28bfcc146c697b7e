import { inflateSync, zstdDecompressSync } from 'node:zlib'

/** What must not be found anywhere. */
export interface Planted {
  /** Words that occur nowhere else. */
  readonly words: readonly string[]
  /** Token ids in a row. */
  readonly tokens: readonly number[]
}

interface Needle {
  readonly name: string
  readonly bytes: Buffer
}

/** Shorter ones turn up by chance among a few MiB of hashes. */
const leastBytes = 6
const leastTokens = 3

/**
 * Searches bytes for what was planted: words in any encoding of a text, and three or more token ids in a row in any form that
 * numbers are written in. What is compressed is searched too.
 */
export class LeakSearch {
  readonly #needles: readonly Needle[]
  readonly #decimals: readonly RegExp[]

  constructor({ words, tokens }: Planted) {
    this.#needles = [...words.flatMap(wordNeedles), ...Object.entries(encodings).flatMap(tokenNeedles(tokens))]
    this.#decimals = windows(tokens, (token) => Buffer.from(String(token))).map(
      (row) => new RegExp(`(?<!\\d)${row.join('[^0-9A-Za-z]{1,6}')}(?!\\d)`),
    )
  }

  /** In which forms something of it is found; empty where nothing is. */
  formsIn(bytes: Buffer): string[] {
    const forms = new Set<string>()
    for (const part of [bytes, ...expanded(bytes)]) {
      for (const needle of this.#needles) if (part.includes(needle.bytes)) forms.add(needle.name)
      const text = part.toString('latin1')
      if (this.#decimals.some((decimals) => decimals.test(text))) forms.add('token ids in decimal')
    }
    return [...forms].sort()
  }

  /** The same for many places by their names, without those that are clean. */
  formsByPlace(places: ReadonlyMap<string, Buffer>): Record<string, string[]> {
    const found = [...places].map(([place, bytes]) => [place, this.formsIn(bytes)] as const)
    return Object.fromEntries(found.filter(([, forms]) => forms.length > 0))
  }
}

function wordNeedles(word: string): Needle[] {
  // Of three ways to lie in a base64 text, with what depends on the neighbours cut off.
  const base64 = [0, 1, 2].map((offset) => {
    const text = Buffer.concat([Buffer.alloc(offset), Buffer.from(word)]).toString('base64')
    return text.slice(offset === 0 ? 0 : 4, 4 * Math.floor((offset + word.length) / 3))
  })
  return [
    { name: 'a word', bytes: Buffer.from(word) },
    { name: 'a word in UTF-16', bytes: Buffer.from(word, 'utf16le') },
    { name: 'a word in hex', bytes: Buffer.from(Buffer.from(word).toString('hex')) },
    ...base64.map((text) => ({ name: 'a word in base64', bytes: Buffer.from(text) })),
  ]
}

type Encode = (token: number) => Buffer

const fixed = (bytes: number, write: (buffer: Buffer, token: number) => void): Encode => {
  return (token) => {
    const buffer = Buffer.alloc(bytes)
    write(buffer, token)
    return buffer
  }
}

const encodings: Readonly<Record<string, Encode>> = {
  'u16 LE': fixed(2, (buffer, token) => buffer.writeUInt16LE(token)),
  'u16 BE': fixed(2, (buffer, token) => buffer.writeUInt16BE(token)),
  'u32 LE': fixed(4, (buffer, token) => buffer.writeUInt32LE(token)),
  'u32 BE': fixed(4, (buffer, token) => buffer.writeUInt32BE(token)),
  'u64 LE': fixed(8, (buffer, token) => buffer.writeUInt32LE(token)),
  'f64 LE': fixed(8, (buffer, token) => buffer.writeDoubleLE(token)),
  varints: (token) => varint(token),
  'signed varints': (token) => varint(2 * token),
  MessagePack: (token) =>
    token < 128 ? Buffer.of(token) : token < 256 ? Buffer.of(0xcc, token) : Buffer.of(0xcd, token >> 8, token & 0xff),
}

function varint(value: number): Buffer {
  const bytes: number[] = []
  let rest = value
  for (; rest > 0x7f; rest = Math.floor(rest / 128)) bytes.push((rest & 0x7f) | 0x80)
  return Buffer.from([...bytes, rest])
}

const tokenNeedles =
  (tokens: readonly number[]) =>
  ([name, encode]: readonly [string, Encode]): Needle[] =>
    windows(tokens, encode).map((row) => ({ name: `token ids as ${name}`, bytes: Buffer.concat(row.map(encode)) }))

/** From each token on the shortest row that is long enough not to turn up by chance. */
function windows(tokens: readonly number[], encode: Encode): (readonly number[])[] {
  return tokens.flatMap((_, from) => {
    let bytes = 0
    for (let to = from; to < tokens.length; to++) {
      bytes += encode(tokens[to] ?? 0).length
      if (to - from + 1 >= leastTokens && bytes >= leastBytes) return [tokens.slice(from, to + 1)]
    }
    return []
  })
}

/** What is compressed inside, wherever a compressed part seems to begin. */
function expanded(bytes: Buffer): Buffer[] {
  const parts: Buffer[] = []
  for (const [magic, expand] of compressions) {
    for (let at = bytes.indexOf(magic); at >= 0; at = bytes.indexOf(magic, at + 1)) {
      try {
        parts.push(expand(bytes.subarray(at)))
      } catch {
        // It only seemed so.
      }
    }
  }
  return parts
}

const compressions = [
  [Buffer.of(0x28, 0xb5, 0x2f, 0xfd), zstdDecompressSync],
  [Buffer.of(0x78, 0x01), inflateSync],
  [Buffer.of(0x78, 0x9c), inflateSync],
  [Buffer.of(0x78, 0xda), inflateSync],
] as const
