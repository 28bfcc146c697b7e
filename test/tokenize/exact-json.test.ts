import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { mayNeedExact, parseExactJson } from '../../src/tokenize/exact-json.ts'

test('floats print as Python prints them', () => {
  const cases: [string, string][] = [
    ['1.0', '1.0'],
    ['-0.0', '-0.0'],
    ['-0', '0'],
    ['1e5', '100000.0'],
    ['1e15', '1000000000000000.0'],
    ['1e16', '1e+16'],
    ['1.5e300', '1.5e+300'],
    ['0.0001', '0.0001'],
    ['0.00001', '1e-05'],
    ['1.10', '1.1'],
    ['123456789012345678', '123456789012345678'],
  ]
  for (const [source, printed] of cases) assert.equal(String(parseExactJson(source)), printed, source)
})

test('an exact number serializes as its text', () => {
  assert.equal(JSON.stringify({ a: parseExactJson('[1.0, 1e16]') }), '{"a":[1.0,1e+16]}')
})

test('texts without odd numbers and index keys parse as with JSON.parse', () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      const text = JSON.stringify(value)
      fc.pre(!mayNeedExact(text))
      assert.deepEqual(parseExactJson(text), JSON.parse(text))
    }),
  )
})
