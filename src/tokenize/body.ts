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
  /** Where each message ends, for reading the next turn of a conversation; null if not all are objects. */
  readonly messageEnds: readonly number[] | null
  /** Values that reach the prompt were parsed as Python would keep them. */
  readonly exact: boolean
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
  'reasoning',
  'thinking',
  'output_config',
  'metadata',
  'token_ids',
  'features',
  'content_parts',
  'input_ids',
  'text',
  'sampling_params',
  'image_data',
  'audio_data',
  'video_data',
  'input_embeds',
  'session_params',
  'extra_key',
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
  if (!isUtf8(bytes)) throw notUtf8()
  const scan = walk(bytes, null)
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
  return scanned(bytes, fields, scan)
}

/**
 * Reads a body whose beginning equals that of one that was read before, up to the end of a message: only what follows is
 * walked and parsed, and the messages before are the very objects of the earlier body. What is returned and what is thrown
 * is the same as by `scanBody`.
 *
 *     known    {"model":…,"messages":[{…},{…},{…}],"stream":true}
 *     bytes    {"model":…,"messages":[{…},{…},{…},{…},{…}],"stream":true}
 *              '------- equal, taken over ------''---- walked and parsed --'
 *
 * @returns null if the bodies share no whole message, or if `bytes` has to be read from its beginning for another reason
 */
export function scanNextBody(bytes: Buffer, known: ScannedBody): { body: ScannedBody; sharedMessages: number } | null {
  const ends = known.messageEnds
  const start = known.ranges.get('messages')?.start
  if (ends === null || start === undefined) return null
  const shared = sharedEnds(bytes, known.bytes, ends)
  if (shared === 0) return null
  const resumeAt = afterMessage(bytes, ends[shared - 1] as number)
  if (resumeAt < 0) return null
  const rest = bytes.subarray(resumeAt)
  if (!isUtf8(rest)) throw notUtf8()
  const before = [...known.ranges].filter(([, range]) => range.end <= start)
  const scan = walk(bytes, {
    at: resumeAt,
    ranges: new Map(before),
    messagesStart: start,
    messageEnds: ends.slice(0, shared),
    needsExact: known.exact,
  })
  const parsed = parsedRest(rest, scan, resumeAt)
  if (parsed === null) return null
  if (scan.needsExact) {
    for (const key of keysRendered) {
      const range = scan.ranges.get(key)
      if (range === undefined || range.end <= start) continue
      const text = bytes.toString('utf8', Math.max(range.start, resumeAt), range.end)
      parsed[key] = parseExactJson(key === 'messages' ? `[${text}` : text)
    }
  }
  const messages = (known.value['messages'] as unknown[]).slice(0, shared).concat(parsed['messages'])
  const head = Object.fromEntries(before.map(([key]) => [key, known.value[key]]))
  return { body: scanned(bytes, { ...head, ...parsed, messages }, scan), sharedMessages: shared }
}

/** Null for what is not JSON: positions in the error are those of the whole body. */
function parsedRest(rest: Buffer, scan: Scan, resumeAt: number): Record<string, unknown> | null {
  if ((scan.ranges.get('messages')?.end ?? 0) <= resumeAt) return null
  try {
    const parsed = JSON.parse(`{"messages":[${rest.toString(isAscii(rest) ? 'latin1' : 'utf8')}`) as unknown
    return parsed as Record<string, unknown>
  } catch {
    return null
  }
}

/** How many messages end within the beginning that two bodies share. */
function sharedEnds(bytes: Buffer, known: Buffer, ends: readonly number[]): number {
  const equal = (from: number, to: number): boolean =>
    to < bytes.length && bytes.compare(known, from, to, from, to) === 0
  const endOf = (count: number): number => (count === 0 ? 0 : (ends[count - 1] as number))
  if (equal(0, endOf(ends.length))) return ends.length
  let low = 0
  let high = ends.length
  while (low < high - 1) {
    const middle = (low + high) >> 1
    if (equal(endOf(low), endOf(middle))) low = middle
    else high = middle
  }
  return low
}

/** Where to go on after a message: at the next one or at the list's end; -1 if neither follows. */
function afterMessage(bytes: Buffer, end: number): number {
  let at = end
  while (isSpace(bytes[at] as number)) at += 1
  if (bytes[at] === closeBracket) return at
  if (bytes[at] !== comma) return -1
  at += 1
  while (isSpace(bytes[at] as number)) at += 1
  return bytes[at] === openBrace ? at : -1
}

function scanned(bytes: Buffer, value: Readonly<Record<string, unknown>>, scan: Scan): ScannedBody {
  const { messages } = value
  const whole = Array.isArray(messages) && messages.length === scan.messageEnds.length && !scan.hasDuplicates
  return { bytes, value, ranges: scan.ranges, messageEnds: whole ? scan.messageEnds : null, exact: scan.needsExact }
}

function notUtf8(): RouterError {
  return new RouterError('BODY_NOT_UTF8', 'The request body is not valid UTF-8.')
}

interface Scan {
  readonly ranges: Map<string, ByteRange>
  /** A number that JavaScript would print otherwise, or a key that it would move to the front, lies below the top level. */
  readonly needsExact: boolean
  /** Where the objects in the list `messages` end. */
  readonly messageEnds: number[]
  /** A key that is not read occurs twice at the top. */
  readonly hasDuplicates: boolean
}

/** A walk that goes on at a message, or at the end of the list of them. */
interface Resumed {
  readonly at: number
  readonly ranges: Map<string, ByteRange>
  readonly messagesStart: number
  readonly messageEnds: number[]
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

/** By depth, whether what is open there is an object; used by one walk at a time. */
const inObject = new Uint8Array(maxBodyDepth + 1)

/** Walks the JSON tokens. What it makes of invalid JSON does not matter: JSON.parse refuses that right after. */
function walk(bytes: Buffer, resumed: Resumed | null): Scan {
  const ranges = resumed?.ranges ?? new Map<string, ByteRange>()
  const messageEnds = resumed?.messageEnds ?? []
  let depth = 0
  let keyNext = false
  let needsExact = resumed?.needsExact ?? false
  let hasDuplicates = false
  let key: string | null = null
  let valueStart = -1
  if (resumed !== null) {
    depth = 2
    inObject[1] = 1
    inObject[2] = 0
    key = 'messages'
    valueStart = resumed.messagesStart
  }
  let at = resumed?.at ?? 0
  let tokenEnd = at

  const closeValue = (): void => {
    if (depth === 1 && key !== null && valueStart >= 0) {
      if (ranges.has(key)) hasDuplicates = true
      ranges.set(key, { start: valueStart, end: tokenEnd })
      key = null
      valueStart = -1
    }
  }

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
        if (end < 0) return { ranges, needsExact, messageEnds, hasDuplicates }
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
        if (depth === 2 && byte === closeBrace && key === 'messages' && inObject[2] === 0) messageEnds.push(at + 1)
        if (depth < 0) return { ranges, needsExact, messageEnds, hasDuplicates }
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
  return { ranges, needsExact, messageEnds, hasDuplicates }
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
