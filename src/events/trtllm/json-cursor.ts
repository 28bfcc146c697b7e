import { RouterError } from '../../errors.ts'

/**
 * Reads a JSON text from its bytes, value by value, so that integers of 64 bits keep all their digits and no object is made
 * for a token. The caller says what it expects; anything else is a RouterError EVENT_MALFORMED.
 *
 *     cursor.object()                      // {
 *     while (cursor.key()) switch (cursor.name) { … read or cursor.skip() … }
 *     cursor.array()                       // [
 *     while (cursor.item()) …
 */
export class JsonCursor {
  readonly bytes: Uint8Array
  at = 0
  /** The key that `key` read last. */
  name = ''
  /** What `hash` read last, as unsigned words. */
  low = 0
  high = 0
  /** Whether the container that was opened last has had no item yet. */
  #fresh = false

  constructor(bytes: Uint8Array) {
    this.bytes = bytes
  }

  /** The first byte of the next value; 0 at the end of the text. */
  peek(): number {
    const { bytes } = this
    let { at } = this
    while (at < bytes.length && isSpace(bytes[at] as number)) at++
    this.at = at
    return at < bytes.length ? (bytes[at] as number) : 0
  }

  object(): void {
    this.#take(openBrace)
    this.#fresh = true
  }

  array(): void {
    this.#take(openBracket)
    this.#fresh = true
  }

  /** Goes to the next value of an object, `name` being its key; false behind the object's end. */
  key(): boolean {
    if (!this.#next(closeBrace)) return false
    this.name = this.#keyName()
    this.#take(colon)
    return true
  }

  /** Goes to the next value of an array; false behind the array's end. */
  item(): boolean {
    return this.#next(closeBracket)
  }

  isString(): boolean {
    return this.peek() === quote
  }

  /** Goes back to the beginning of a value that was begun before. */
  resume(at: number): void {
    this.at = at
    this.#fresh = false
  }

  /** Passes over a null, if there is one. */
  skipNull(): boolean {
    if (this.peek() !== letterN) return false
    this.#word('null')
    return true
  }

  /** An integer that a number holds exactly. */
  integer(): number {
    const negative = this.peek() === minus
    if (negative) this.at++
    const start = this.at
    let value = 0
    for (let digit = this.#digit(); digit >= 0; digit = this.#digit()) value = value * 10 + digit
    if (this.at === start || this.#isFraction()) this.#fail('an integer')
    if (value > Number.MAX_SAFE_INTEGER) this.#fail('an integer below 2^53')
    return negative ? -value : value
  }

  /** A 64-bit integer, or the hexadecimal text of a longer digest, of which the last 64 bits count; into `low`, `high`. */
  hash(): void {
    const first = this.peek()
    if (first === quote) {
      this.#hexHash()
      return
    }
    const negative = first === minus
    if (negative) this.at++
    const start = this.at
    let low = 0
    let high = 0
    for (let digit = this.#digit(); digit >= 0; digit = this.#digit()) {
      low = low * 10 + digit
      high = high * 10 + Math.floor(low / word)
      low %= word
    }
    if (this.at === start || this.#isFraction() || high >= word) this.#fail('a 64-bit hash')
    if (negative) {
      high = ~high >>> 0
      low = ~low >>> 0
      low = (low + 1) % word
      if (low === 0) high = (high + 1) % word
    }
    this.low = low
    this.high = high
  }

  string(): string {
    this.#take(quote)
    const start = this.at
    const escaped = this.#skipString()
    const text = Buffer.from(this.bytes.buffer, this.bytes.byteOffset + start, this.at - 1 - start).toString('utf8')
    if (!escaped) return text
    try {
      return JSON.parse(`"${text}"`) as string
    } catch {
      return this.#fail('a string')
    }
  }

  /** Passes over a value of any kind. */
  skip(): void {
    let depth = 0
    do {
      const first = this.peek()
      if (first === openBrace || first === openBracket) {
        this.at++
        if (++depth > maxDepth) this.#fail('less depth')
      } else if (first === closeBrace || first === closeBracket) {
        this.at++
        depth--
      } else if (first === comma || first === colon) {
        if (depth === 0) this.#fail('a value')
        this.at++
      } else if (first === quote) {
        this.at++
        this.#skipString()
      } else this.#skipScalar()
    } while (depth > 0)
    if (depth < 0) this.#fail('a value')
  }

  /** Throws unless only white space is left. */
  end(): void {
    if (this.peek() !== 0 || this.at < this.bytes.length) this.#fail('the end')
  }

  #next(close: number): boolean {
    const byte = this.peek()
    const fresh = this.#fresh
    this.#fresh = false
    if (byte === close) {
      this.at++
      return false
    }
    if (fresh) return true
    if (byte !== comma) this.#fail('a comma')
    this.at++
    return true
  }

  /** Keys that occur at every token are recognised by their bytes, so that no string is made for them. */
  #keyName(): string {
    this.#take(quote)
    const { bytes, at } = this
    next: for (const { text, ascii } of frequentKeys) {
      const end = at + ascii.length
      if (bytes[end] !== quote) continue
      for (let i = 0; i < ascii.length; i++) if (bytes[at + i] !== ascii[i]) continue next
      this.at = end + 1
      return text
    }
    this.at = at - 1
    return this.string()
  }

  #hexHash(): void {
    const text = this.string()
    if (!/^[0-9a-f]{16,}$/i.test(text)) this.#fail('a hexadecimal hash of at least 64 bits')
    this.high = parseInt(text.slice(-16, -8), 16)
    this.low = parseInt(text.slice(-8), 16)
  }

  #digit(): number {
    const digit = (this.bytes[this.at] ?? 0) - digitZero
    if (digit < 0 || digit > 9) return -1
    this.at++
    return digit
  }

  #isFraction(): boolean {
    const byte = this.bytes[this.at]
    return byte === dot || byte === letterE || byte === capitalE
  }

  #skipScalar(): void {
    const start = this.at
    const { bytes } = this
    while (this.at < bytes.length && isScalar(bytes[this.at] as number)) this.at++
    if (this.at === start) this.#fail('a value')
  }

  /** From behind a quote to behind the next one; true where escapes lie between. */
  #skipString(): boolean {
    const { bytes } = this
    let escaped = false
    for (let at = this.at; at < bytes.length; at++) {
      const byte = bytes[at] as number
      if (byte === quote) {
        this.at = at + 1
        return escaped
      }
      if (byte === backslash) {
        escaped = true
        at++
      }
    }
    return this.#fail('a closing quote')
  }

  #word(text: string): void {
    for (let i = 0; i < text.length; i++) if (this.bytes[this.at + i] !== text.charCodeAt(i)) this.#fail(text)
    this.at += text.length
  }

  #take(byte: number): void {
    if (this.peek() !== byte) this.#fail(`"${String.fromCharCode(byte)}"`)
    this.at++
  }

  #fail(wanted: string): never {
    throw new RouterError('EVENT_MALFORMED', `The events' JSON has something else than ${wanted} at byte ${this.at}.`)
  }
}

const word = 0x1_0000_0000
/** Nothing that engines send is nested deeper than a few levels. */
const maxDepth = 64

const quote = 0x22
const comma = 0x2c
const minus = 0x2d
const dot = 0x2e
const digitZero = 0x30
const colon = 0x3a
const capitalE = 0x45
const openBracket = 0x5b
const backslash = 0x5c
const closeBracket = 0x5d
const letterE = 0x65
const letterN = 0x6e
const openBrace = 0x7b
const closeBrace = 0x7d

const frequentKeys = ['token_id', 'token_extra_id', 'type', 'block_hash', 'tokens'].map((text) => ({
  text,
  ascii: Buffer.from(text, 'latin1'),
}))

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09
}

/** Bytes of numbers and of true, false and null. */
function isScalar(byte: number): boolean {
  return (
    (byte >= digitZero && byte <= 0x39) ||
    byte === minus ||
    byte === 0x2b ||
    byte === dot ||
    (byte >= 0x61 && byte <= 0x7a) ||
    byte === capitalE
  )
}
