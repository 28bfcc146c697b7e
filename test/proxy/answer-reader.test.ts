import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { AnswerReader } from '../../src/proxy/answer-reader.ts'

const answer =
  '{"id":"x","choices":[{"message":{"content":"say \\"cached_tokens\\": 7 and \\"prompt_tokens\\":9"}}],' +
  '"usage":{"prompt_tokens":171,"total_tokens":175,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":128}},"kv":null}'

test('usage is found however the answer is cut into chunks, and never in the text of a message', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 200 }), { maxLength: 30 }), (cuts) => {
      const reader = new AnswerReader(false)
      const bytes = Buffer.from(answer)
      let at = 0
      for (const cut of [...cuts, bytes.length]) {
        if (at >= bytes.length) break
        reader.push(bytes.subarray(at, at + cut))
        at += cut
      }
      assert.equal(reader.cachedTokens, 128)
      assert.equal(reader.generatedTokens, 4)
    }),
    { numRuns: 500 },
  )
})

test('an engine that does not report cached tokens leaves them unknown', () => {
  const reader = new AnswerReader(false)
  reader.push(Buffer.from('{"usage":{"prompt_tokens":5,"prompt_tokens_details":null}}'))
  assert.equal(reader.cachedTokens, null)
})

test('the last figure of a stream counts', () => {
  const reader = new AnswerReader(false)
  reader.push(Buffer.from('data: {"usage":{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":0}}}\n\n'))
  reader.push(
    Buffer.from('data: {"usage":{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":4}}}\n\ndata: [DONE]\n\n'),
  )
  assert.equal(reader.cachedTokens, 4)
})

test('the id of a response is found, however the answer is cut', () => {
  const bytes = Buffer.from(
    'event: response.created\ndata: {"response":{"id":"resp_0a-b","output":[{"id":"msg_1"}]},"type":"response.created"}\n\n',
  )
  for (let cut = 1; cut < bytes.length; cut++) {
    const reader = new AnswerReader(true)
    reader.push(bytes.subarray(0, cut))
    reader.push(bytes.subarray(cut))
    assert.equal(reader.responseId, 'resp_0a-b')
  }
})
