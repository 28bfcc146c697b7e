import { isAscii, isUtf8 } from 'node:buffer'
import { RouterError } from '../errors.ts'
import { parseExactJson } from './exact-json.ts'

/** Where a value lies in the body: bytes [start, end). */
export interface ByteRange {
  readonly start: number
  readonly end: number
}

/** A request body that was checked and parsed once. */
export interface ScannedBody {
  readonly bytes: Buffer
  /** The top-level object. */
  readonly value: Readonly<Record<string, unknown>>
  /** Where the value of each top-level key lies, for splicing into the bytes that are forwarded. */
  readonly ranges: ReadonlyMap<string, ByteRange>
}

/** Deepest nesting of arrays and objects in a body; Python's own parser gives up at about a thousand. */
export const maxBodyDepth = 128

/**
 * Top-level keys that the router reads. A duplicate of one of them is refused: parsers differ in which of two they keep, so
 * that the router could authorize or tokenize one value and the engine run the other.
 */
export const keysRead: ReadonlySet<string> = new Set([
  'model',
  'messages',
  'system',
  'prompt',
  'input',
  'instructions',
  'query',
  'documents',
  'tokens',
  'stream',
  'stream_options',
  'n',
  'max_tokens',
  'max_completion_tokens',
  'max_output_tokens',
  'tools',
  'tool_choice',
  'add_generation_prompt',
  'continue_final_message',
  'add_special_tokens',
  'chat_template',
  'chat_template_kwargs',
  'reasoning_effort',
  'cache_salt',
  'priority',
  'session_id',
  'user',
  'previous_response_id',
  'lora',
  'lora_path',
  'kv_transfer_params',
])

/** Values whose numbers and key order reach the prompt as text, so that they must be kept as Python would keep them. */
const keysRendered = ['messages', 'tools', 'documents', 'chat_template_kwargs'] as const

/**
 * Checks and parses a request body: valid UTF-8, nesting of at most 128, no duplicate of a key that the router reads, valid
 * JSON (NaN and Infinity are not), an object at the top. The check hops over strings with the native search for a quote, so
 * that it costs by the JSON token and not by the byte.
 *
 * @throws RouterError BODY_NOT_UTF8, BODY_TOO_DEEP, BODY_DUPLICATE_KEY, BODY_NOT_JSON, BODY_INVALID
 */
export function scanBody(bytes: Buffer): ScannedBody {
  if (!isUtf8(bytes)) throw new RouterError('BODY_NOT_UTF8', 'The request body is not valid UTF-8.')
  const scan = walk(bytes)
  const value = parse(bytes.toString(isAscii(bytes) ? 'latin1' : 'utf8'))
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new RouterError('BODY_INVALID', 'The request body must be a JSON object.')
  }
  const fields = value as Record<string, unknown>
  if (scan.needsExact) {
    for (const key of keysRendered) {
      const range = scan.ranges.get(key)
      if (range !== undefined) fields[key] = parseExactJson(bytes.toString('utf8', range.start, range.end))
    }
  }
  return { bytes, value: fields, ranges: scan.ranges }
}

interface Scan {
  readonly ranges: Map<string, ByteRange>
  /** A number that JavaScript would print otherwise, or a key that it would move to the front, lies below the top level. */
  readonly needsExact: boolean
}

const quote = 0x22
const backslash = 0x5c
const comma = 0x2c
const colon = 0x3a
const openBrace = 0x7b
const closeBrace = 0x7d
const openBracket = 0x5b
const closeBracket = 0x5d

/** Walks the JSON tokens. What it makes of invalid JSON does not matter: JSON.parse refuses that right after. */
function walk(bytes: Buffer): Scan {
  const ranges = new Map<string, ByteRange>()
  const inObject = new Uint8Array(maxBodyDepth + 1)
  let depth = 0
  let keyNext = false
  let needsExact = false
  let key: string | null = null
  let valueStart = -1
  let tokenEnd = 0

  const closeValue = (): void => {
    if (depth === 1 && key !== null && valueStart >= 0) {
      ranges.set(key, { start: valueStart, end: tokenEnd })
      key = null
      valueStart = -1
    }
  }

  let at = 0
  while (at < bytes.length) {
    const byte = bytes[at] as number
    switch (byte) {
      case 0x20:
      case 0x09:
      case 0x0a:
      case 0x0d:
        at += 1
        continue
      case quote: {
        const end = closingQuote(bytes, at + 1)
        if (end < 0) return { ranges, needsExact }
        if (keyNext) {
          if (depth === 1) key = newKey(bytes, at, end, ranges)
          else if (isDigit(bytes[at + 1] as number)) needsExact = true
          keyNext = false
        }
        at = end + 1
        break
      }
      case openBrace:
      case openBracket:
        depth += 1
        if (depth > maxBodyDepth) {
          throw new RouterError('BODY_TOO_DEEP', `The request body nests deeper than ${maxBodyDepth} levels.`)
        }
        inObject[depth] = byte === openBrace ? 1 : 0
        keyNext = byte === openBrace
        at += 1
        break
      case closeBrace:
      case closeBracket:
        closeValue()
        depth -= 1
        if (depth < 0) return { ranges, needsExact }
        keyNext = false
        at += 1
        break
      case comma:
        closeValue()
        keyNext = inObject[depth] === 1
        at += 1
        break
      case colon:
        at += 1
        if (depth === 1) {
          while (isSpace(bytes[at] as number)) at += 1
          valueStart = at
        }
        break
      default: {
        const end = scalarEnd(bytes, at)
        if (depth > 1 && !needsExact && (byte === 0x2d || isDigit(byte))) needsExact = isOddNumber(bytes, at, end)
        at = end
      }
    }
    tokenEnd = at
  }
  return { ranges, needsExact }
}

/** Index of the quote that ends the string whose text starts at `from`, -1 if there is none. */
function closingQuote(bytes: Buffer, from: number): number {
  let at = bytes.indexOf(quote, from)
  while (at >= 0) {
    let slash = at - 1
    while (slash >= from && bytes[slash] === backslash) slash -= 1
    if ((at - slash) % 2 === 1) return at
    at = bytes.indexOf(quote, at + 1)
  }
  return -1
}

function newKey(bytes: Buffer, start: number, end: number, ranges: ReadonlyMap<string, ByteRange>): string {
  let key = bytes.toString('utf8', start + 1, end)
  if (key.includes('\\')) {
    try {
      key = JSON.parse(bytes.toString('utf8', start, end + 1)) as string
    } catch {
      return key
    }
  }
  if (ranges.has(key) && keysRead.has(key)) {
    throw new RouterError('BODY_DUPLICATE_KEY', `The request body has the key "${key}" twice.`, { param: key })
  }
  return key
}

/** End of a number or a literal: the next byte that JSON's grammar gives a meaning of its own. */
function scalarEnd(bytes: Buffer, from: number): number {
  let at = from + 1
  while (at < bytes.length) {
    const byte = bytes[at] as number
    if (byte === comma || byte === closeBrace || byte === closeBracket || byte === quote || byte === colon) break
    if (isSpace(byte) || byte === openBrace || byte === openBracket) break
    at += 1
  }
  return at
}

/** Whether JavaScript prints this number differently from its source: 1.0, 1e5, 12345678901234567890. */
function isOddNumber(bytes: Buffer, start: number, end: number): boolean {
  if (end - start > 15) return true
  for (let at = start; at < end; at += 1) {
    const byte = bytes[at] as number
    if (byte !== 0x2d && !isDigit(byte)) {
      const source = bytes.toString('latin1', start, end)
      return String(Number(source)) !== source
    }
  }
  return false
}

function isDigit(byte: number): boolean {
  return byte >= 0x30 && byte <= 0x39
}

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    // The engine's own message would quote the prompt, and the message may end in a log.
    const position = error instanceof Error ? /at position (\d+)/.exec(error.message)?.[1] : undefined
    const where = position === undefined ? '' : ` at character ${position}`
    const start = position === undefined ? '' : text.slice(Number(position), Number(position) + 1)
    const hint = start === 'N' || start === 'I' ? ' (NaN and Infinity are not JSON)' : ''
    throw new RouterError('BODY_NOT_JSON', `The request body is not valid JSON${where}${hint}.`)
  }
}
