import assert from 'node:assert/strict'
import { isUtf8 } from 'node:buffer'
import { test } from 'node:test'
import { RouterError } from '../../src/errors.ts'
import { keysRead, maxBodyDepth, scanBody, type ScannedBody } from '../../src/tokenize/body.ts'
import { fuzz, type Chance } from '../support/fuzz.ts'

const keys = [
  'model',
  'messages',
  'prompt',
  'x',
  '',
  '__proto__',
  'constructor',
  'toString',
  '0',
  'n',
  'é',
  '\\u006dodel',
]
const scalars = [
  '1',
  '-0',
  '1.0',
  '1e5',
  '9007199254740993',
  '1e400',
  'true',
  'null',
  '""',
  '"a\\"b"',
  '"\\ud800"',
  '"é👩‍🔬"',
]
const broken = ['NaN', 'Infinity', '01', '+1', '"', "'a'", '{', ']', ',', ':', '\\', '\0', '\u2028', '/**/', '\ufeff']

function value(chance: Chance, depth: number): string {
  if (chance.oneIn(60)) return chance.pick(broken)
  if (depth <= 0 || chance.oneIn(3)) return chance.pick(scalars)
  const space = (): string => (chance.oneIn(6) ? chance.pick([' ', '\n', '\t', '\r\n', '  ']) : '')
  if (chance.oneIn(200)) {
    const deep = chance.below(2 * maxBodyDepth)
    return '['.repeat(deep) + ']'.repeat(deep)
  }
  const item = (): string => space() + value(chance, depth - 1) + space()
  if (chance.oneIn(2)) return `[${chance.list(6, item).join(',')}]`
  return object(chance, depth, space)
}

function object(chance: Chance, depth: number, space: () => string): string {
  const entry = (): string =>
    `${space()}"${chance.pick(keys)}"${space()}:${space()}${value(chance, depth - 1)}${space()}`
  return `{${chance.list(6, entry).join(',')}}`
}

interface Outline {
  /** Top-level keys in their order, with repetitions, which JSON.parse would not show. */
  readonly keys: readonly string[]
  readonly depth: number
}

/** Of valid JSON. */
function outline(text: string): Outline {
  const found: string[] = []
  let depth = 0
  let deepest = 0
  for (let at = 0, keyNext = false; at < text.length; at++) {
    const character = text[at] as string
    if (character === '"') {
      const start = at
      for (at++; text[at] !== '"'; at++) if (text[at] === '\\') at++
      if (depth === 1 && keyNext) found.push(JSON.parse(text.slice(start, at + 1)) as string)
      keyNext = false
    } else if (character === '{' || character === '[') {
      depth++
      deepest = Math.max(deepest, depth)
      keyNext = character === '{'
    } else if (character === '}' || character === ']') depth--
    else if (character === ',') keyNext = depth === 1
  }
  return { keys: found, depth: deepest }
}

test('a body is taken exactly when JSON.parse takes it, it is an object, flat enough and without doubled keys', async (t) => {
  await fuzz(t, (chance) => {
    let bytes: Buffer = Buffer.from(chance.oneIn(8) ? value(chance, 4) : object(chance, 5, () => ''))
    if (chance.oneIn(4)) bytes = chance.mutated(bytes, () => Buffer.from(chance.pick([...scalars, ...broken])))
    const text = bytes.toString('utf8')
    let parsed: unknown
    let isJson = true
    try {
      parsed = JSON.parse(text)
    } catch {
      isJson = false
    }
    let scanned: ScannedBody
    try {
      scanned = scanBody(bytes)
    } catch (error) {
      assert.ok(error instanceof RouterError, String(error))
      assert.doesNotMatch(error.message, /\n {4}at /)
      switch (error.code) {
        case 'BODY_NOT_UTF8': {
          assert.ok(!isUtf8(bytes))
          return
        }
        case 'BODY_NOT_JSON': {
          assert.ok(!isJson, 'JSON.parse takes it')
          return
        }
        case 'BODY_INVALID': {
          assert.ok(isJson && (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)))
          return
        }
        case 'BODY_TOO_DEEP': {
          assert.ok(!isJson || outline(text).depth > maxBodyDepth)
          return
        }
        case 'BODY_DUPLICATE_KEY': {
          if (!isJson) return
          const top = outline(text).keys
          assert.ok(top.some((key, index) => keysRead.has(key) && top.indexOf(key) !== index))
          return
        }
        default:
          return assert.fail(error.code)
      }
    }
    assert.ok(isJson && isUtf8(bytes), 'JSON.parse refuses it')
    const { keys: top, depth } = outline(text)
    assert.ok(depth <= maxBodyDepth)
    for (const key of keysRead) assert.ok(top.indexOf(key) === top.lastIndexOf(key), `two of ${key}`)
    assert.deepEqual([...scanned.ranges.keys()].sort(), [...new Set(top)].sort())
    const own = parsed as Record<string, unknown>
    for (const [key, { start, end }] of scanned.ranges)
      assert.deepEqual(JSON.parse(bytes.toString('utf8', start, end)), own[key], `the range of ${key}`)
    assert.equal(Object.getPrototypeOf(scanned.value), Object.prototype)
    assert.deepEqual(Object.keys(scanned.value), Object.keys(own))
  })
})
