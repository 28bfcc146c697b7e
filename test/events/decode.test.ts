import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { RouterError } from '../../src/errors.ts'
import { decodeBatch, readTimestamp, type DecodedEvent, type DecodedStore } from '../../src/events/decode.ts'
import { encodeMsgpack, Wide, type Encodable } from '../support/msgpack.ts'
import { readBatches, sglangRecordings, toBigInts, vllmRecordings } from './recorded.ts'

const storeNames = [
  'type',
  'block_hashes',
  'parent_block_hash',
  'token_ids',
  'block_size',
  'lora_id',
  'medium',
  'lora_name',
  'extra_keys',
  'group_idx',
  'kv_cache_spec_kind',
  'kv_cache_spec_sliding_window',
]
const removeNames = ['type', 'block_hashes', 'medium', 'group_idx']

/** What the recording says of an event, in the form of what the decoder gives. */
function expected(recorded: Record<string, unknown> | readonly unknown[]): unknown {
  let fields = recorded as Record<string, unknown>
  if (Array.isArray(recorded)) {
    const names = recorded[0] === 'BlockStored' ? storeNames : removeNames
    fields = Object.fromEntries(recorded.map((value: unknown, index) => [names[index] ?? '?', value]))
  }
  if (fields['type'] === 'AllBlocksCleared') return { kind: 'clear' }
  const unsigned = (value: unknown) => BigInt.asUintN(64, BigInt(value as number))
  const common = {
    hashes: (fields['block_hashes'] as unknown[]).map(unsigned),
    medium: fields['medium'] ?? null,
    group: fields['group_idx'] ?? null,
    locality: null,
    ownership: null,
  }
  if (fields['type'] === 'BlockRemoved') return { kind: 'remove', ...common }
  const parent = fields['parent_block_hash']
  return {
    kind: 'store',
    ...common,
    parent: parent === null || parent === undefined ? null : [unsigned(parent)],
    tokens: (fields['token_ids'] as (number | number[])[]).map((token) => (Array.isArray(token) ? token[0] : token)),
    blockSize: fields['block_size'],
    loraId: fields['lora_id'] ?? null,
    loraName: fields['lora_name'] ?? null,
    cacheSalt: fields['cache_salt'] ?? null,
    extraKeys: (fields['extra_keys'] as (string[] | null)[] | undefined)?.some((keys) => keys !== null)
      ? (fields['extra_keys'] as (string[] | null)[]).map(
          (keys) => keys?.map((text) => ({ kind: 'text', text })) ?? null,
        )
      : null,
    specKind: fields['kv_cache_spec_kind'] ?? null,
    slidingWindow: fields['kv_cache_spec_sliding_window'] ?? null,
    sessionId: fields['session_id'] ?? null,
    pairs: (fields['token_ids'] as unknown[]).some(Array.isArray),
  }
}

function comparable(event: DecodedEvent): unknown {
  if (event.kind === 'clear') return event
  const hashes = toBigInts(event.hashes)
  if (event.kind === 'remove') return { ...event, hashes }
  return { ...event, hashes, parent: event.parent === null ? null : toBigInts(event.parent), tokens: [...event.tokens] }
}

for (const path of [...vllmRecordings, ...sglangRecordings]) {
  test(`every batch of ${path} decodes to what was recorded`, () => {
    const batches = readBatches(path)
    assert.ok(batches.length > 0)
    for (const batch of batches) {
      const decoded = decodeBatch(batch.payload)
      const [timestamp, events, rank] = batch.decoded
      assert.equal(decoded.timestamp, timestamp)
      assert.equal(readTimestamp(batch.payload), timestamp)
      assert.equal(decoded.rank, rank)
      assert.deepEqual(decoded.events.map(comparable), events.map(expected), batch.case ?? String(batch.seq))
      assert.deepEqual(decoded.skipped, { unknown_kind: 0, unknown_field: 0, event_malformed: 0 })
    }
  })
}

const store = {
  type: 'BlockStored',
  block_hashes: [1, 2],
  parent_block_hash: null,
  token_ids: [1, 2, 3, 4],
  block_size: 2,
  lora_id: null,
}

function decodeEvents(...events: Encodable[]) {
  return decodeBatch(encodeMsgpack([1.5, events, 0]))
}

function decodeStore(fields: Record<string, Encodable>): DecodedStore {
  const [event] = decodeEvents({ ...store, ...fields }).events
  assert.equal(event?.kind, 'store')
  return event
}

test('hashes keep all 64 bits: unsigned, signed and the last 8 bytes of binary ones', () => {
  const digest = Buffer.from('00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210', 'hex')
  const { hashes, parent } = decodeStore({
    block_hashes: [
      0,
      127,
      128,
      65_535,
      4_294_967_295,
      new Wide(2n ** 64n - 1n),
      -1,
      -128,
      -70_000,
      new Wide(-(2n ** 63n)),
      digest,
      digest.subarray(0, 16),
      Buffer.of(1, 2, 3),
      Buffer.of(1, 2, 3, 4, 5),
    ],
    parent_block_hash: digest,
  })
  assert.deepEqual(toBigInts(hashes), [
    0n,
    127n,
    128n,
    65_535n,
    4_294_967_295n,
    2n ** 64n - 1n,
    2n ** 64n - 1n,
    2n ** 64n - 128n,
    2n ** 64n - 70_000n,
    2n ** 63n,
    0xfedcba9876543210n,
    0x8899aabbccddeeffn,
    0x010203n,
    0x0102030405n,
  ])
  assert.deepEqual(toBigInts(parent ?? new Uint32Array(0)), [0xfedcba9876543210n])
})

test('token ids of every width, and pairs, come out as 32-bit numbers', () => {
  const tokens = [0, 127, 128, 255, 256, 65_535, 65_536, 4_294_967_295, new Wide(7n), [5, 6], [new Wide(9n), 1]]
  assert.deepEqual(
    [...decodeStore({ token_ids: tokens }).tokens],
    [0, 127, 128, 255, 256, 65_535, 65_536, 4_294_967_295, 7, 5, 9],
  )
})

test('a store without token ids is presence by hash alone', () => {
  assert.equal(decodeStore({ token_ids: [] }).tokens.length, 0)
  assert.equal(decodeStore({ token_ids: null, block_size: 0 }).tokens.length, 0)
})

test('extra keys: texts, media, embedding digests and forms not known here', () => {
  const { extraKeys } = decodeStore({
    extra_keys: [
      ['lora', 'salt'],
      null,
      [['image-1', -3], ['image-2', 300], Buffer.of(0xab, 1)],
      [[1, 2], 5, null, ['a', 'b'], ['x', 1, 2]],
      [],
    ],
  })
  const other = (value: Encodable) => ({ kind: 'other', hex: encodeMsgpack(value).toString('hex') })
  assert.deepEqual(extraKeys, [
    [
      { kind: 'text', text: 'lora' },
      { kind: 'text', text: 'salt' },
    ],
    null,
    [
      { kind: 'media', id: 'image-1', offset: -3 },
      { kind: 'media', id: 'image-2', offset: 300 },
      { kind: 'embeds', hex: 'ab01' },
    ],
    [other([1, 2]), other(5), other(null), other(['a', 'b']), other(['x', 1, 2])],
    [],
  ])
  assert.equal(decodeStore({ extra_keys: [null, []] }).extraKeys, null)
})

test('fields come in any order, those at their default may be left out', () => {
  const { block_hashes, ...rest } = store
  const [event] = decodeEvents({
    session_id: 's',
    locality: 'REMOTE',
    ownership: 'tier-2',
    group_idx: 3,
    block_hashes,
    ...rest,
  }).events
  assert.equal(event?.kind, 'store')
  assert.deepEqual(
    [event.sessionId, event.locality, event.ownership, event.group, event.medium],
    ['s', 'REMOTE', 'tier-2', 3, null],
  )
})

test('array events of every length from six items up are read, further items counted', () => {
  const full = ['BlockStored', [1], 9, [5, 6], 2, 4, 'CPU', 'sql', [['sql']], 1, 'mamba', 64]
  for (let length = 5; length <= full.length; length++) {
    const { events, skipped } = decodeEvents(full.slice(0, length))
    const [event] = events
    assert.equal(event?.kind, 'store')
    assert.equal(event.medium, length > 6 ? 'CPU' : null)
    assert.equal(event.slidingWindow, length > 11 ? 64 : null)
    assert.equal(skipped.unknown_field, 0)
  }
  assert.equal(
    decodeEvents([...full, 'later', { a: 1 }], ['BlockRemoved', [1], 'CPU', 2, 'LOCAL'], ['AllBlocksCleared', 1])
      .skipped.unknown_field,
    4,
  )
})

test('unknown kinds, fields and trailing items are skipped and counted, and nothing else is lost', () => {
  const { events, skipped, rank } = decodeBatch(
    encodeMsgpack([
      1,
      [
        { type: 'BlockMoved', block_hashes: 'of another type', to: { deep: [[[1]]] } },
        ['Unheard', { of: 1 }],
        { no: 'type' },
        {},
        [],
        { type: 'toString', block_hashes: [1] },
        { ...store, constructor: 1, is_eagle: true, 'cache_salt ': [1, { a: 2 }] },
        { type: 'AllBlocksCleared', dp_rank: 0 },
      ],
      7,
      'trailing',
      { more: 1 },
    ]),
  )
  assert.deepEqual(
    events.map((event) => event.kind),
    ['store', 'clear'],
  )
  assert.deepEqual(skipped, { unknown_kind: 6, unknown_field: 7, event_malformed: 0 })
  assert.equal(rank, 7)
})

test('one event with a wrong type is skipped and counted, the batch is kept', () => {
  const wrong: Record<string, Encodable>[] = [
    { block_hashes: 'x' },
    { block_hashes: null },
    { block_hashes: [1.5] },
    { block_hashes: [null] },
    { block_hashes: [Buffer.alloc(0)] },
    { token_ids: ['x'] },
    { token_ids: [-1] },
    { token_ids: [2 ** 32] },
    { token_ids: [[]] },
    { block_size: 'x' },
    { block_size: null },
    { block_size: -1 },
    { medium: 3 },
    { extra_keys: 4 },
    { parent_block_hash: [1] },
  ]
  const { events, skipped } = decodeEvents(
    store,
    ...wrong.map((fields) => ({ ...store, ...fields })),
    5,
    null,
    'text',
    store,
  )
  assert.equal(events.length, 2)
  assert.equal(skipped.event_malformed, wrong.length + 3)
})

test('what is no batch is an EVENT_MALFORMED', () => {
  for (const value of [null, 1, 'text', {}, [], [1.5], ['x', []], [1, {}], [1, 5], [1, [], 'rank']] as Encodable[]) {
    assert.throws(() => decodeBatch(encodeMsgpack(value)), { code: 'EVENT_MALFORMED' }, JSON.stringify(value))
  }
  assert.throws(() => decodeBatch(Buffer.alloc(0)), { code: 'EVENT_MALFORMED' })
  assert.throws(
    () => decodeBatch(encodeMsgpack([1, Array.from({ length: 200 }, () => ({ ...store, block_hashes: 1 }))])),
    { code: 'EVENT_MALFORMED' },
  )
  assert.equal(decodeBatch(encodeMsgpack([1, []])).rank, null)
  assert.ok(Number.isNaN(readTimestamp(Buffer.of(0x93))))
})

test('every proper prefix of a recorded batch is an EVENT_MALFORMED', () => {
  for (const path of [...vllmRecordings, ...sglangRecordings]) {
    const { payload } = readBatches(path)[0] as { payload: Buffer }
    for (let length = 0; length < payload.length; length++) {
      assert.throws(() => decodeBatch(payload.subarray(0, length)), { code: 'EVENT_MALFORMED' })
    }
  }
})

test('collections that claim more than the payload holds take no memory', () => {
  for (const bytes of [
    [0xdd, 0xff, 0xff, 0xff, 0xff],
    [0x93, 1, 0xdd, 0xff, 0xff, 0xff, 0xf0],
    [0x93, 1, 0x91, 0xdf, 0xff, 0xff, 0xff, 0xff],
    [0x93, 1, 0x91, 0xc6, 0xff, 0xff, 0xff, 0xff],
  ]) {
    assert.throws(() => decodeBatch(Buffer.from(bytes)), { code: 'EVENT_MALFORMED' })
  }
  assert.throws(() => decodeBatch(Buffer.concat([Buffer.of(0x93, 1, 0x91), Buffer.alloc(1_000_000, 0x91)])), {
    code: 'EVENT_MALFORMED',
  })
})

test('what is encoded decodes to the same', () => {
  const text = fc.option(fc.string({ maxLength: 40, unit: 'binary' }))
  const event = fc.record({
    type: fc.constant('BlockStored'),
    block_hashes: fc.array(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), { maxLength: 20 }),
    parent_block_hash: fc.option(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
    token_ids: fc.array(fc.nat(0xffff_ffff), { maxLength: 40 }),
    block_size: fc.nat(300),
    lora_id: fc.option(fc.nat()),
    medium: text,
    lora_name: text,
    group_idx: fc.option(fc.nat(300)),
    session_id: text,
  })
  fc.assert(
    fc.property(fc.array(event, { maxLength: 5 }), fc.double({ noNaN: true }), (events, timestamp) => {
      const decoded = decodeBatch(encodeMsgpack([timestamp, events, 1]))
      assert.equal(decoded.timestamp, timestamp === 0 ? 0 : timestamp)
      assert.deepEqual(decoded.events.map(comparable), events.map(expected))
    }),
  )
})

test('a million damaged and random payloads end in a batch or in an EVENT_MALFORMED', { timeout: 120_000 }, (t) => {
  const inputs = Number(process.env['FUZZ_INPUTS'] ?? 1_000_000)
  const recorded = [...vllmRecordings, ...sglangRecordings].flatMap((path) =>
    readBatches(path).map((batch) => batch.payload),
  )
  const small = [
    ...recorded.filter((payload) => payload.length < 700),
    encodeMsgpack([
      1,
      [
        { ...store, extra_keys: [['a', ['b', 1]], null] },
        ['BlockRemoved', [1, new Wide(5n)]],
        { type: 'AllBlocksCleared' },
      ],
      0,
    ]),
  ]
  let state = Number(process.env['FC_SEED'] ?? Date.now()) >>> 0
  t.diagnostic(`seed ${state}`)
  const random = (below: number) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 0x1_0000_0000) * below)
  }
  const scratch = Buffer.alloc(1024)
  let batches = 0
  for (let i = 0; i < inputs; i++) {
    let input: Buffer
    if (i % 4 === 0) {
      input = scratch.subarray(0, random(60))
      for (let at = 0; at < input.length; at++) input[at] = random(256)
      if (i % 8 === 0) Buffer.of(0x93, 1, 0x91 + random(3), 0x84).copy(input)
    } else {
      const base = small[random(small.length)] as Buffer
      base.copy(scratch)
      input = scratch.subarray(0, i % 5 === 0 ? random(base.length) : base.length)
      for (let edits = random(4); edits >= 0 && input.length > 0; edits--) input[random(input.length)] = random(256)
    }
    try {
      decodeBatch(input)
      batches++
    } catch (error) {
      if (!(error instanceof RouterError) || error.code !== 'EVENT_MALFORMED') {
        assert.fail(`${input.toString('hex')}: ${String(error)}`)
      }
    }
  }
  assert.ok(batches > inputs / 20 && batches < inputs)
})
