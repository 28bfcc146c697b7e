import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { RouterError, type ErrorCode } from '../../src/errors.ts'
import { keysRead, maxBodyDepth, scanBody } from '../../src/tokenize/body.ts'
import { PythonNumber } from '../../src/tokenize/exact-json.ts'

function refusal(body: string | Buffer): ErrorCode {
  try {
    scanBody(Buffer.from(body as string))
  } catch (error) {
    assert.ok(error instanceof RouterError)
    return error.code
  }
  return assert.fail('the body was accepted')
}

test('any JSON object is read as JSON.parse reads it, and each range holds its value', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string({ unit: 'binary' }), fc.jsonValue()), fc.nat(2), (value, indent) => {
      const text = JSON.stringify(value, null, indent)
      const bytes = Buffer.from(text)
      const scanned = scanBody(bytes)
      assert.deepEqual(JSON.stringify(scanned.value), JSON.stringify(JSON.parse(text)))
      const parsed = JSON.parse(text) as Record<string, unknown>
      assert.deepEqual([...scanned.ranges.keys()].sort(), Object.keys(parsed).sort())
      for (const [key, range] of scanned.ranges) {
        const source = bytes.toString('utf8', range.start, range.end)
        assert.deepEqual(JSON.parse(source), parsed[key])
        assert.equal(source, source.trim())
      }
    }),
  )
})

test('escapes before quotes never end a string too early or too late', () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom('\\', '"', 'a', '{', '}', ',', ':'), { maxLength: 40 }), (characters) => {
      const value = { [characters.join('')]: [characters.join('')], model: 'x' }
      assert.deepEqual(scanBody(Buffer.from(JSON.stringify(value))).value, value)
    }),
  )
})

test('a duplicate of a key that is read is refused, also when it is written with an escape', () => {
  for (const key of keysRead) assert.equal(refusal(`{"${key}":1,"${key}":1}`), 'BODY_DUPLICATE_KEY')
  assert.equal(refusal('{"model":"a","x":{"model":"c"},"mod\\u0065l":"b"}'), 'BODY_DUPLICATE_KEY')
})

test('duplicates are refused exactly where a naive look at the top-level keys finds one that is read', () => {
  const keys = fc.constantFrom('model', 'messages', 'mod\\u0065l', 'x', 'y', 'stream')
  const values = fc.constantFrom('1', '"model"', '{"model":1,"model":2}', '[{"a":"\\\\\\""}]', ' null ')
  fc.assert(
    fc.property(fc.array(fc.tuple(keys, values), { maxLength: 5 }), (entries) => {
      const text = `{${entries.map(([key, value]) => `"${key}":${value}`).join(',')}}`
      const names = entries.map(([key]) => JSON.parse(`"${key}"`) as string).filter((key) => keysRead.has(key))
      if (new Set(names).size < names.length) assert.equal(refusal(text), 'BODY_DUPLICATE_KEY')
      else assert.deepEqual(scanBody(Buffer.from(text)).value, JSON.parse(text))
    }),
  )
})

test('duplicates below the top level, and of keys that nobody reads, are left alone', () => {
  assert.deepEqual(scanBody(Buffer.from('{"x":1,"x":2,"y":{"model":1,"model":2}}')).value, { x: 2, y: { model: 2 } })
})

test('nesting is accepted up to the limit and refused beyond it', () => {
  const nested = (depth: number): string => `{"a":${'['.repeat(depth - 1)}${']'.repeat(depth - 1)}}`
  assert.ok(scanBody(Buffer.from(nested(maxBodyDepth))))
  assert.equal(refusal(nested(maxBodyDepth + 1)), 'BODY_TOO_DEEP')
  assert.equal(refusal('['.repeat(1_000_000)), 'BODY_TOO_DEEP')
})

test('brackets inside strings do not count as nesting', () => {
  const value = { a: '['.repeat(1000), b: '{"'.repeat(1000) }
  assert.deepEqual(scanBody(Buffer.from(JSON.stringify(value))).value, value)
})

test('what is not JSON is refused without quoting it', () => {
  for (const body of [
    '',
    '{',
    '{"a":NaN}',
    '{"a":Infinity}',
    '{"a":1,}',
    "{'a':1}",
    '{"a":"b}',
    '{"a":1}}',
    '{"a" 1}',
    '\u{feff}{}',
  ]) {
    assert.equal(refusal(body), 'BODY_NOT_JSON', body)
  }
  assert.throws(
    () => scanBody(Buffer.from('{"secret": oops}')),
    (error: Error) => !error.message.includes('secret'),
  )
})

test('random bytes and truncated bodies are refused or read, never crash', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        scanBody(Buffer.from(bytes))
      } catch (error) {
        assert.ok(error instanceof RouterError)
      }
    }),
  )
  const whole = '{"model":"m","messages":[{"role":"user","content":"a\\"b\\\\"}],"n":-1.5e3}'
  for (let length = 0; length < whole.length; length += 1)
    assert.equal(refusal(whole.slice(0, length)), 'BODY_NOT_JSON')
})

test('invalid UTF-8 and values that are not objects are refused', () => {
  assert.equal(refusal(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])), 'BODY_NOT_UTF8')
  for (const body of ['[]', '1', 'null', '"model"']) assert.equal(refusal(body), 'BODY_INVALID')
})

test('numbers and key order that reach a prompt are kept as Python keeps them', () => {
  const { value } = scanBody(
    Buffer.from('{"temperature":1.0,"tools":[{"f":1.0,"b":12345678901234567890,"o":{"2":1e5,"1":0.5}}]}'),
  )
  const [tool] = value['tools'] as [{ f: unknown; b: unknown; o: Map<string, unknown> }]
  assert.ok(tool.f instanceof PythonNumber)
  assert.equal(String(tool.f), '1.0')
  assert.equal(String(tool.b), '12345678901234567890')
  assert.deepEqual(
    [...tool.o].map(([key, item]) => `${key}=${String(item)}`),
    ['2=100000.0', '1=0.5'],
  )
  assert.equal(value['temperature'], 1)
})
