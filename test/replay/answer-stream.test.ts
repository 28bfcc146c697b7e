import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AnswerStream } from '../../src/replay/real-time/answer-stream.ts'

const event = (part: object): string => `data: ${JSON.stringify(part)}\n\n`
const usage = { completion_tokens: 2, prompt_tokens_details: { cached_tokens: 48 } }
const whole = [
  ': a comment\n\n',
  event({ choices: [{ text: ' river' }] }),
  event({ choices: [{ text: ' stone' }] }),
  event({ choices: [], usage }),
  'data: [DONE]\n\n',
].join('')

test('an answer is read alike wherever its bytes are cut', () => {
  for (let cut = 0; cut <= whole.length; cut++) {
    const stream = new AnswerStream()
    stream.add(whole.slice(0, cut), 10)
    stream.add(whole.slice(cut), 20)
    const { text, tokens, isComplete, fault } = stream
    assert.deepEqual(
      { text, tokens, isComplete, fault },
      { text: ' river stone', tokens: 2, isComplete: true, fault: null },
    )
    assert.deepEqual(stream.usage, usage)
    assert.equal(stream.lastTokenMs >= stream.firstTokenMs, true)
  }
})

test('the first token’s time is that of the event which completes it', () => {
  const stream = new AnswerStream()
  const first = event({ choices: [{ text: ' river' }] })
  stream.add(first.slice(0, -1), 10)
  assert.equal(stream.firstTokenMs, NaN)
  stream.add(first.slice(-1), 20)
  assert.deepEqual([stream.firstTokenMs, stream.lastTokenMs], [20, 20])
})

test('an error in the midst of a stream is told, and what is not JSON is one', () => {
  const told = new AnswerStream()
  told.add(event({ error: { message: 'the worker died' } }) + 'data: [DONE]\n\n', 1)
  assert.equal(told.fault, 'the worker died')
  const broken = new AnswerStream()
  broken.add('data: {"choices\n\n', 1)
  assert.match(broken.fault ?? '', /not JSON/)
})
