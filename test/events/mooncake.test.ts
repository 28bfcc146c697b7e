import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decodeMooncake } from '../../src/events/mooncake.ts'
import { RouterError } from '../../src/errors.ts'
import { encodeMsgpack, type Encodable } from '../support/msgpack.ts'
import { objectEvent } from '../support/mooncake-events.ts'

const batch = (...events: Encodable[]): Buffer => encodeMsgpack([1_766_000_000_123, events, 0])

test('objects with a number for a key are blocks named by hash; the time is in milliseconds', () => {
  const hash = 0xfedc_ba98_7654_3210n
  const { timestamp, events } = decodeMooncake(batch(objectEvent('stored', hash, String(hash))))
  assert.equal(timestamp, 1_766_000_000.123)
  const [event] = events
  assert(event?.kind === 'store')
  assert.deepEqual([...event.hashes], [0x7654_3210, 0xfedc_ba98])
  assert.equal(event.tokens.length, 0)
  assert.equal(event.medium, 'shared')
})

test('objects with another key name no block, and are counted', () => {
  const { events, skipped } = decodeMooncake(batch(objectEvent('stored', null, 'model@0@abc')))
  assert.deepEqual(events, [])
  assert.equal(skipped.event_malformed, 1)
})

test('removals and clears are told', () => {
  const cleared = { event_type: 'cleared', tenant_id: 'default' }
  const { events } = decodeMooncake(batch(objectEvent('removed', 5n, '5'), cleared))
  assert.deepEqual(
    events.map((event) => (event.kind === 'remove' ? [...event.hashes] : event.kind)),
    [[5, 0], 'clear'],
  )
})

test('publishers that know them tell tokens, parent, adapter and salt', () => {
  const { events } = decodeMooncake(
    batch({
      event_type: 'stored',
      seq_hashes: [9n, 10n],
      parent_hash: 8n,
      token_ids: [1, 2, 3, 4],
      block_size: 2,
      lora_name: 'sql',
      additional_salt: 'tenant',
    }),
  )
  const [event] = events
  assert(event?.kind === 'store')
  assert.deepEqual(
    [[...event.hashes], [...(event.parent ?? [])], [...event.tokens], event.blockSize, event.loraName, event.cacheSalt],
    [[9, 0, 10, 0], [8, 0], [1, 2, 3, 4], 2, 'sql', 'tenant'],
  )
})

test('what is no batch is refused, and an unknown kind of event is passed over', () => {
  assert.throws(() => decodeMooncake(Buffer.of(0x93, 1)), RouterError)
  const { events, skipped } = decodeMooncake(batch({ event_type: 'pinned', seq_hashes: [1n] }))
  assert.deepEqual([events.length, skipped.unknown_kind], [0, 1])
})
