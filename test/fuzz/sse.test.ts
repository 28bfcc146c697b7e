import assert from 'node:assert/strict'
import { test } from 'node:test'
import { EventBoundary } from '../../src/proxy/sse.ts'
import { fuzz, type Chance } from '../support/fuzz.ts'

const pieces = [
  'data: {"a":1}',
  'data: [DONE]',
  ': ping',
  'event: x',
  'data:',
  '\n',
  '\r\n',
  '\r',
  '\n\n',
  '\r\n\r\n',
  '\r\r',
  '',
  '\0',
  'é',
]

function stream(chance: Chance): Buffer {
  return Buffer.concat(
    Array.from({ length: chance.below(40) }, () =>
      chance.oneIn(20) ? chance.bytes(200) : Buffer.from(chance.pick(pieces)),
    ),
  )
}

function chunks(chance: Chance, bytes: Buffer): Buffer[] {
  const cut: Buffer[] = []
  const most = chance.pick([1, 3, 20, 1000])
  for (let at = 0; at < bytes.length;) {
    const end = at + 1 + chance.below(most)
    cut.push(bytes.subarray(at, end))
    at = end
  }
  return cut
}

/** Whether the bytes end with a blank line, by the standard's three line ends. */
function endsEvent(bytes: Buffer): boolean {
  return /(\n\n|\n\r\n|\r\r)$/.test(bytes.toString('latin1'))
}

test('however a stream is cut, its bytes go on unchanged and in order, and only whole events go before its end', async (t) => {
  await fuzz(t, (chance) => {
    const bytes = stream(chance)
    const limitBytes = chance.pick([16, 64, 1 << 20])
    const boundary = new EventBoundary(limitBytes)
    const passed: Buffer[] = []
    let passedBytes = 0
    for (const chunk of chunks(chance, bytes)) {
      const now = boundary.push(chunk)
      passed.push(Buffer.from(now))
      passedBytes += now.length
      assert.ok(boundary.heldBytes <= limitBytes, `${boundary.heldBytes} bytes are held`)
      if (now.length > 0 && limitBytes > bytes.length)
        assert.ok(endsEvent(bytes.subarray(0, passedBytes)), 'half an event went on')
    }
    passed.push(Buffer.from(boundary.take()))
    assert.deepEqual(Buffer.concat(passed), bytes)
  })
})
