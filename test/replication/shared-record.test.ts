import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  decodeShared,
  encodeShared,
  mostPromptBlocks,
  type SharedMessage,
  type SharedRecord,
  type SkipReason,
} from '../../src/replication/shared-record.ts'

const replica = '00ff00ff12345678'

function read(bytes: Uint8Array): { messages: SharedMessage[]; skipped: SkipReason[] } {
  const skipped: SkipReason[] = []
  return { messages: decodeShared(bytes, (reason) => skipped.push(reason)), skipped }
}

/** As literals are, which is what deepEqual compares with. */
const plain = { noNullPrototype: true } as const
const figure = fc.nat(0xffffffff)
const amount = fc.double({ min: 0, max: 1e9, noNaN: true })
const number = fc.nat(2 ** 48 - 1)
const worker = fc.oneof(fc.webUrl(), fc.string({ unit: 'grapheme', maxLength: 60 }))
const record: fc.Arbitrary<SharedRecord> = fc.oneof(
  fc.record(
    {
      kind: fc.constant('load' as const),
      full: fc.boolean(),
      workers: fc.array(
        fc.record({ worker, requests: figure, sequences: figure, prefillTokens: figure, decodeBlocks: figure }, plain),
        { maxLength: 20 },
      ),
    },
    plain,
  ),
  fc.record(
    {
      kind: fc.constant('prompt' as const),
      number,
      worker,
      assumed: fc.boolean(),
      blockSize: figure,
      believedBlocks: figure,
      firstBlock: figure,
      predictedMs: amount,
      keys: fc.array(fc.tuple(figure, figure), { maxLength: 40 }).map((blocks) => Uint32Array.from(blocks.flat())),
    },
    plain,
  ),
  fc.record({ kind: fc.constantFrom('computed' as const, 'ended' as const, 'finished' as const), number }, plain),
  fc.record(
    {
      kind: fc.constant('dispatched' as const),
      number,
      worker,
      stream: fc.boolean(),
      promptTokens: figure,
      uncachedTokens: amount,
      loadTokens: amount,
      prefillTokensAhead: figure,
      requestsAhead: figure,
      session: fc.option(fc.constantFrom('0123456789abcdef', 'fedcba9876543210')),
    },
    plain,
  ),
  fc.record({ kind: fc.constant('firstByte' as const), number, ttftMs: amount }, plain),
  fc.record(
    {
      kind: fc.constant('answered' as const),
      number,
      foundBlocks: fc.option(fc.nat(0xfffffffe)),
    },
    plain,
  ),
  fc.record(
    {
      kind: fc.constant('owner' as const),
      response: fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => Buffer.from(bytes).toString('hex')),
      worker,
    },
    plain,
  ),
  fc.constantFrom({ kind: 'anew' as const }, { kind: 'bye' as const }),
)
const message = fc.record(
  { replica: fc.constant(replica), counter: number, records: fc.array(record, { maxLength: 8 }) },
  plain,
)

test('messages one behind another are read as they were written', () => {
  fc.assert(
    fc.property(fc.array(message, { maxLength: 4 }), (messages) => {
      const { messages: got, skipped } = read(Buffer.concat(messages.map(encodeShared)))
      assert.deepEqual(got, messages)
      assert.deepEqual(skipped, [])
    }),
  )
})

test('bytes that were cut off give whole messages and one fault, and never an error', () => {
  fc.assert(
    fc.property(message, message, fc.nat(), (first, second, cut) => {
      const bytes = Buffer.concat([encodeShared(first), encodeShared(second)])
      const length = cut % bytes.length
      const { messages, skipped } = read(bytes.subarray(0, length))
      const whole = length >= encodeShared(first).length ? 1 : 0
      assert.deepEqual(messages, [first].slice(0, whole))
      assert.equal(skipped.length, length === 0 || length === encodeShared(first).length ? 0 : 1)
    }),
  )
})

test('of a prompt no more blocks are told than the limit', () => {
  const keys = Uint32Array.from({ length: 2 * mostPromptBlocks + 20 }, (_, i) => i)
  const prompt = { kind: 'prompt', number: 1, worker: 'w', assumed: true, blockSize: 16, believedBlocks: 0 } as const
  const record = { ...prompt, firstBlock: 0, predictedMs: 1, keys }
  const [got] = read(encodeShared({ replica, counter: 1, records: [record] })).messages
  assert.deepEqual(got?.records, [{ ...record, keys: keys.subarray(0, 2 * mostPromptBlocks) }])
})

test('what a later version says is passed over: its messages, its kinds, and further fields of known kinds', () => {
  const ended = encodeShared({ replica, counter: 1, records: [{ kind: 'ended', number: 7 }] })
  const later = Buffer.from(ended)
  later[0] = 2
  const unknownKind = Buffer.from(ended)
  unknownKind[19] = 200
  const longer = Buffer.concat([ended, Buffer.from([1, 2, 3])])
  longer.writeUInt32LE(ended.length - 5 + 3, 1)
  longer.writeUInt32LE(6 + 3, 20)
  const { messages, skipped } = read(Buffer.concat([later, unknownKind, longer, ended]))
  assert.deepEqual(
    messages.map(({ records }) => records),
    [[], [{ kind: 'ended', number: 7 }], [{ kind: 'ended', number: 7 }]],
  )
  assert.deepEqual(skipped, ['version', 'kind'])
})

test('a record that does not hold what it says is passed over, and the ones around it count', () => {
  const records = [
    { kind: 'ended', number: 7 },
    { kind: 'ended', number: 8 },
  ] as const
  const bytes = encodeShared({ replica, counter: 1, records })
  // The first one becomes a load of 65,535 workers.
  bytes[19] = 1
  bytes.writeUInt16LE(0xffff, 25)
  const { messages, skipped } = read(bytes)
  assert.deepEqual(messages[0]?.records, [records[1]])
  assert.deepEqual(skipped, ['malformed'])
})

test('a time that is none, or below zero, makes a record as bad as one that is cut', () => {
  const records = [NaN, Infinity, -1, 5].map((ttftMs) => ({ kind: 'firstByte', number: 1, ttftMs }) as const)
  const { messages, skipped } = read(encodeShared({ replica, counter: 1, records }))
  assert.deepEqual(messages[0]?.records, records.slice(3))
  assert.equal(skipped.length, 3)
})
