import assert from 'node:assert/strict'
import { test } from 'node:test'
import { strip } from '../../src/tokenize/python-strip.ts'
import { ChatTemplate } from '../../src/tokenize/template.ts'

test('white space is what Python takes for it', () => {
  assert.equal(strip('\x1c \x85\u2003x\u3000\n', 'strip', null), 'x')
  assert.equal(strip('\ufeffx\ufeff', 'strip', null), '\ufeffx\ufeff')
  assert.equal(strip(' x ', 'lstrip', null), 'x ')
  assert.equal(strip(' x ', 'rstrip', null), ' x')
  assert.equal(strip('  ', 'strip', null), '')
})

test('only the characters that are named go, whole ones', () => {
  assert.equal(strip('\n x \n', 'strip', '\n'), ' x ')
  assert.equal(strip('abxba', 'strip', 'ab'), 'x')
  assert.equal(strip('ab', 'strip', ''), 'ab')
  assert.equal(strip('👩x👩', 'strip', '👩'), 'x')
  assert.equal(strip('👨x', 'lstrip', '👩'), '👨x')
})

test('a template strips what it names, compiled or interpreted', () => {
  const source = "{{ x.lstrip('\\n') }}|{{ x.rstrip('\\n') }}|{{ x.strip('\\n') }}|{{ x.strip() }}|{{ x.strip(none) }}"
  const template = new ChatTemplate(source, {}, () => new Date())
  assert.equal(template.compiled, true)
  const variables = { x: '\n\n a \n' }
  const expected = ' a \n|\n\n a | a |a|a'
  assert.equal(template.render(variables).join(''), expected)
  assert.equal(template.interpret(variables), expected)
  assert.equal(
    new ChatTemplate("{{ x.split('a')[0].strip('\\n') }}", {}, () => new Date()).interpret({ x: '\n b\na' }),
    ' b',
  )
})
