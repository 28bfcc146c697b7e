import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { RouterError } from '../../src/errors.ts'
import { decodeJsonEvents } from '../../src/events/stream/json-events.ts'
import { readEntry } from '../../src/events/stream/entry.ts'
import { toBigInts } from './recorded.ts'

const decode = (events: unknown) => decodeJsonEvents(Buffer.from(JSON.stringify(events)))

const stored = { type: 'stored', hashes: ['1', '2'], tokens: [1, 2, 3, 4], block_size: 2 }

test('every field of a stored event is read', () => {
  const { events, skipped } = decode([
    { ...stored, parent: '0x10', medium: 'host', lora_name: 'sql', salt: 'tenant', group: 3 },
  ])
  const [event] = events
  assert.ok(event?.kind === 'store')
  assert.deepEqual(toBigInts(event.hashes), [1n, 2n])
  assert.deepEqual(event.parent && toBigInts(event.parent), [16n])
  assert.deepEqual([...event.tokens], [1, 2, 3, 4])
  assert.deepEqual(
    [event.blockSize, event.medium, event.loraName, event.cacheSalt, event.group],
    [2, 'host', 'sql', 'tenant', 3],
  )
  assert.deepEqual(skipped, { unknown_kind: 0, unknown_field: 0, event_malformed: 0 })
})

test('null and what is left out mean the same', () => {
  const nothing = { parent: null, medium: null, lora_name: null, salt: null, group: null, locals: null }
  assert.deepEqual(decode([{ ...stored, ...nothing }]), decode([stored]))
})

test('removed and cleared events are read', () => {
  const { events } = decode([{ type: 'removed', hashes: ['7'], medium: 'disk' }, { type: 'cleared' }])
  assert.deepEqual(
    events.map((event) => (event.kind === 'remove' ? [toBigInts(event.hashes), event.medium] : event.kind)),
    [[[7n], 'disk'], 'clear'],
  )
})

test('64-bit values are exact in every way of writing them', () => {
  const most = 2n ** 64n - 1n
  const cases: readonly (readonly [unknown, bigint])[] = [
    ['18446744073709551615', most],
    ['0xFFFFFFFFFFFFFFFF', most],
    ['-1', most],
    ['-9223372036854775808', 2n ** 63n],
    ['9007199254740993', 9007199254740993n],
    ['0x0', 0n],
    ['0xabc', 0xabcn],
    [42, 42n],
    [`0x${'11'.repeat(24)}0123456789abcdef`, 0x0123456789abcdefn],
  ]
  for (const [text, value] of cases) {
    const [event] = decode([{ type: 'removed', hashes: [text] }]).events
    assert.deepEqual(event?.kind === 'remove' && toBigInts(event.hashes), [value], String(text))
  }
})

test('an event with a wrong type in it is passed over alone', () => {
  const wrong: readonly unknown[] = [
    7,
    null,
    { ...stored, hashes: undefined },
    { ...stored, hashes: '1' },
    ...['', 'x', '0x', '1.5', '18446744073709551616', 2 ** 53, -1.5, null].map((hash) => ({
      ...stored,
      hashes: [hash],
    })),
    { ...stored, tokens: [1, 2, 3, -1] },
    { ...stored, tokens: [1, 2, 3, 2 ** 32] },
    { ...stored, tokens: [1, 2, 3, '4'] },
    { ...stored, block_size: undefined },
    { ...stored, block_size: '2' },
    { ...stored, medium: 1 },
    { ...stored, group: 65_536 },
    { ...stored, locals: ['1', '2'] },
  ]
  for (const event of wrong) {
    const { events, skipped } = decode([event, stored])
    assert.deepEqual([events.length, skipped.event_malformed], [1, 1], JSON.stringify(event))
  }
})

test('unknown kinds and fields are counted, and take nothing else along', () => {
  const { events, skipped } = decode([
    { type: 'moved', hashes: ['1'] },
    { hashes: ['1'] },
    { ...stored, colour: 'red' },
  ])
  assert.equal(events.length, 1)
  assert.deepEqual(skipped, { unknown_kind: 2, unknown_field: 1, event_malformed: 0 })
})

test('no bytes make the decoder fail otherwise than by its own error', () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 64 }),
    fc.json().map((text) => Buffer.from(text)),
    fc
      .array(
        fc.record({
          type: fc.constantFrom('stored', 'removed', 'cleared'),
          hashes: fc.jsonValue(),
          tokens: fc.jsonValue(),
        }),
      )
      .map((events) => Buffer.from(JSON.stringify(events))),
  )
  fc.assert(
    fc.property(bytes, (given) => {
      try {
        decodeJsonEvents(Buffer.from(given))
      } catch (error) {
        assert.ok(error instanceof RouterError && error.code === 'EVENT_MALFORMED')
      }
    }),
    { numRuns: 1000 },
  )
})

test('an entry of more than 16 MiB is not even looked into', () => {
  const entry = (name: string, bytes: number) => {
    const fields = ['v', '1', 'seq', '1', 'ts', '1'].map((text) => Buffer.from(text))
    return readEntry({ id: '1-0', fields: [...fields, Buffer.from(name), Buffer.alloc(bytes)] })
  }
  const most = 16 * 1024 * 1024
  for (const name of ['payload', 'events']) {
    assert.equal(entry(name, most).kind, 'batch')
    assert.deepEqual(entry(name, most + 1), { kind: 'skipped', reason: 'entry_too_large' })
  }
})

test('no fields make an entry fail', () => {
  const field = fc.oneof(
    fc.constantFrom('v', 'seq', 'ts', 'payload', 'events', 'reset', '1', '17').map((text) => Buffer.from(text)),
    fc.uint8Array({ maxLength: 12 }).map((bytes) => Buffer.from(bytes)),
  )
  fc.assert(
    fc.property(fc.array(field, { maxLength: 9 }), (fields) => {
      const read = readEntry({ id: '1-0', fields })
      if (read.kind === 'batch') assert.ok(Number.isSafeInteger(read.arrival.sequence))
    }),
    { numRuns: 1000 },
  )
})
