import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { countEvents, EventBoundary, streamEnd } from '../../src/proxy/sse.ts'

const limitBytes = 1024

test('a chunk that ends with a whole event goes on without a copy', () => {
  const boundary = new EventBoundary(limitBytes)
  const chunk = Buffer.from('data: {"a":1}\n\n')
  assert.equal(boundary.push(chunk), chunk)
  assert.equal(boundary.heldBytes, 0)
})

test('half an event is held until its blank line comes', () => {
  const boundary = new EventBoundary(limitBytes)
  assert.equal(boundary.push(Buffer.from('data: 1\n\ndata: {"a":')).toString(), 'data: 1\n\n')
  assert.equal(boundary.heldBytes, 11)
  assert.equal(boundary.push(Buffer.from('2}\n')).toString(), '')
  assert.equal(boundary.push(Buffer.from('\ndata: 3')).toString(), 'data: {"a":2}\n\n')
  assert.equal(boundary.take().toString(), 'data: 3')
})

for (const [name, end] of [
  ['LF', '\n\n'],
  ['CRLF', '\r\n\r\n'],
  ['CR', '\r\r'],
] as const) {
  test(`blank lines made of ${name} end an event`, () => {
    const boundary = new EventBoundary(limitBytes)
    assert.equal(boundary.push(Buffer.from(`data: 1${end}data`)).toString(), `data: 1${end}`)
  })
}

test('an event over the limit goes on as it comes', () => {
  const boundary = new EventBoundary(8)
  assert.equal(boundary.push(Buffer.from('data: 0123456789')).toString(), 'data: 0123456789')
  assert.equal(boundary.heldBytes, 0)
})

test('however a stream is cut into chunks, its bytes come out unchanged and in whole events', () => {
  const events = fc.array(
    fc.string({ maxLength: 30 }).map((text) => text.replace(/[\r\n]/g, ' ')),
    { maxLength: 20 },
  )
  fc.assert(
    fc.property(
      events,
      fc.array(fc.nat(40), { maxLength: 60 }),
      fc.constantFrom('\n\n', '\r\n\r\n'),
      (texts, cuts, end) => {
        const whole = Buffer.from(texts.map((text) => `data: ${text}${end}`).join(''))
        const boundary = new EventBoundary(limitBytes)
        const out: Buffer[] = []
        let counted = 0
        let at = 0
        for (const cut of [...cuts, whole.length]) {
          const bytes = boundary.push(whole.subarray(at, at + cut))
          at = Math.min(whole.length, at + cut)
          if (bytes.length === 0) continue
          assert.ok(bytes.toString().endsWith(end), 'only whole events go on')
          counted += countEvents(bytes)
          out.push(Buffer.from(bytes))
        }
        out.push(boundary.take())
        assert.deepEqual(Buffer.concat(out), whole)
        assert.equal(counted, texts.length)
      },
    ),
  )
})

test('the end of a stream is a mark at the start of a line, never the text of an answer', () => {
  const marks = ['data: [DONE]', 'event: message_stop']
  const end = (text: string): number => streamEnd(Buffer.from(text), marks)
  assert.equal(end('data: {"a":1}\n\n'), -1)
  assert.equal(end('data: {"a":"data: [DONE]"}\n\n'), -1)
  assert.equal(end('data: [DONE] or not\n\n'), -1)
  assert.equal(end('data: [DONE]\n\n'), 14)
  assert.equal(end('data: 1\n\ndata: [DONE]\r\n\r\nrest\n\n'), 25)
  assert.equal(end('event: message_stop\ndata: {"type":"message_stop"}\n\n: more\n\n'), 51)
  assert.equal(end('data: [DONE]'), 12)
})
