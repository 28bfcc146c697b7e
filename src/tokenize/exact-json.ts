/**
 * JSON as Python keeps it, for the few values whose text reaches a prompt: a template prints a tool's schema with Python's
 * `json.dumps`, which writes 1.0 where JavaScript writes 1, keeps all digits of a long integer, and leaves keys in their order
 * where JavaScript moves "0" and "1" to the front.
 */

/** A number that Python prints otherwise than JavaScript. Serializes and prints as Python's text. */
export class PythonNumber extends Number {
  readonly text: string

  constructor(value: number, text: string) {
    super(value)
    this.text = text
  }

  override toString(): string {
    return this.text
  }

  toJSON(): unknown {
    return rawJson(this.text)
  }
}

const rawJson = (JSON as unknown as { rawJSON: (text: string) => unknown }).rawJSON

/**
 * Parses valid JSON. Objects with a key that looks like an array index come as a Map, odd numbers as PythonNumber, all else
 * as JSON.parse gives it.
 */
export function parseExactJson(text: string): unknown {
  const parser = { text, at: 0 }
  const value = parseValue(parser)
  skipSpace(parser)
  if (parser.at !== text.length) throw new SyntaxError('Unexpected text after the JSON value')
  return value
}

/** Whether a JSON text may hold something that JSON.parse would not keep as Python does. False is certain, true is not. */
export function mayNeedExact(text: string): boolean {
  return /\d[.eE]|\d{16}|"\d+"\s*:/.test(text)
}

interface Parser {
  readonly text: string
  at: number
}

const scalar = /-?\d+(\.\d+)?([eE][+-]?\d+)?|true|false|null/y

function parseValue(parser: Parser): unknown {
  skipSpace(parser)
  const start = parser.text[parser.at]
  if (start === '{') return parseObject(parser)
  if (start === '[') return parseArray(parser)
  if (start === '"') return parseString(parser)
  const source = take(parser, scalar)
  if (source === 'true') return true
  if (source === 'false') return false
  if (source === 'null') return null
  return pythonNumber(source)
}

function parseObject(parser: Parser): unknown {
  const entries = new Map<string, unknown>()
  let ordered = true
  parser.at += 1
  skipSpace(parser)
  if (parser.text[parser.at] === '}') {
    parser.at += 1
    return {}
  }
  for (;;) {
    skipSpace(parser)
    const key = parseString(parser)
    if (/^\d+$/.test(key)) ordered = false
    skipSpace(parser)
    expect(parser, ':')
    entries.set(key, parseValue(parser))
    skipSpace(parser)
    if (parser.text[parser.at] === ',') parser.at += 1
    else break
  }
  expect(parser, '}')
  return ordered ? Object.fromEntries(entries) : entries
}

function parseArray(parser: Parser): unknown[] {
  const items: unknown[] = []
  parser.at += 1
  skipSpace(parser)
  if (parser.text[parser.at] === ']') {
    parser.at += 1
    return items
  }
  for (;;) {
    items.push(parseValue(parser))
    skipSpace(parser)
    if (parser.text[parser.at] === ',') parser.at += 1
    else break
  }
  expect(parser, ']')
  return items
}

function parseString(parser: Parser): string {
  const start = parser.at
  expect(parser, '"')
  let end = parser.text.indexOf('"', parser.at)
  while (end >= 0) {
    let slash = end - 1
    while (parser.text[slash] === '\\' && slash > start) slash -= 1
    if ((end - slash) % 2 === 1) break
    end = parser.text.indexOf('"', end + 1)
  }
  if (end < 0) throw new SyntaxError('Unterminated string in JSON')
  parser.at = end + 1
  return JSON.parse(parser.text.slice(start, end + 1)) as string
}

function take(parser: Parser, pattern: RegExp): string {
  pattern.lastIndex = parser.at
  const match = pattern.exec(parser.text)
  if (match === null) throw new SyntaxError(`Unexpected text in JSON at ${parser.at}`)
  parser.at += match[0].length
  return match[0]
}

function expect(parser: Parser, character: string): void {
  if (parser.text[parser.at] !== character) throw new SyntaxError(`Expected "${character}" in JSON at ${parser.at}`)
  parser.at += 1
}

function skipSpace(parser: Parser): void {
  for (;;) {
    const code = parser.text.charCodeAt(parser.at)
    if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return
    parser.at += 1
  }
}

function pythonNumber(source: string): number | PythonNumber {
  const value = Number(source)
  const text = /[.eE]/.test(source) ? pythonFloat(value) : source === '-0' ? '0' : source
  return String(value) === text || !Number.isFinite(value) ? value : new PythonNumber(value, text)
}

/** Python's `repr` of a float: the shortest digits, an exponent below 1e-4 and from 1e16 on. */
function pythonFloat(value: number): string {
  if (value === 0) return Object.is(value, -0) ? '-0.0' : '0.0'
  const [mantissa = '', power = '0'] = value.toExponential().split('e')
  const exponent = Number(power)
  if (exponent >= -4 && exponent < 16) return Number.isInteger(value) ? `${value}.0` : String(value)
  return `${mantissa}e${exponent < 0 ? '-' : '+'}${String(Math.abs(exponent)).padStart(2, '0')}`
}
