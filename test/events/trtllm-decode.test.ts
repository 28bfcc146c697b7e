import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { decodeEvents, type TrtllmBlock } from '../../src/events/trtllm/decode.ts'
import { JsonCursor } from '../../src/events/trtllm/json-cursor.ts'
import { toBigInts } from './recorded.ts'
import { recordedAnswer } from './trtllm-answers.ts'

const noTurn = () => Promise.resolve()
const decode = (text: string) => decodeEvents(Buffer.from(text), noTurn)
const one = async (event: string) => {
  const { events, malformed } = await decode(`[${event}]`)
  assert.deepEqual([events.length, malformed], [1, 0])
  return events[0]!
}
const hashOf = ({ low, high }: { low: number; high: number }) => toBigInts(Uint32Array.of(low, high))[0]
const lengths = (blocks: readonly TrtllmBlock[]) => blocks.map(({ tokens }) => tokens.length)

test('the answer that was built after the serializer is read to its last event, hashes with all their digits', async () => {
  const { bytes } = recordedAnswer('kv_cache_events_poll')
  const { events, malformed } = await decodeEvents(bytes, noTurn)
  assert.equal(malformed, 0)
  assert.deepEqual(
    events.map(({ id, rank, windowSize, data }) => [id, rank, windowSize, data.kind]),
    [
      [0, 0, 131072, 'created'],
      [1, 0, 1024, 'created'],
      [2, 0, 131072, 'stored'],
      [3, 0, 1024, 'stored'],
      [4, 0, 131072, 'stored'],
      [5, 0, 131072, 'updated'],
      [6, 0, 131072, 'updated'],
      [7, 0, 131072, 'removed'],
      [9, 0, 131072, 'removed'],
    ],
  )
  const [created, , stored, , partial, offloaded, priority, removed] = events.map(({ data }) => data)
  assert.ok(created?.kind === 'created' && stored?.kind === 'stored' && partial?.kind === 'stored')
  assert.ok(offloaded?.kind === 'updated' && priority?.kind === 'updated' && removed?.kind === 'removed')
  assert.deepEqual(created.blocksPerLevel, [4096, 1024])
  assert.equal(stored.parent, null)
  assert.deepEqual(stored.blocks.map(hashOf), [15822008985855418734n, 4088130506997063587n])
  assert.deepEqual(lengths(stored.blocks), [32, 32])
  assert.deepEqual([...(stored.blocks[0]?.tokens.slice(0, 3) ?? [])], [0, 7919, 15838])
  assert.deepEqual(toBigInts(partial.parent!), [4088130506997063587n])
  assert.deepEqual(lengths(partial.blocks), [11])
  assert.deepEqual([hashOf(offloaded), offloaded.level], [4088130506997063587n, { from: 0, to: 1 }])
  assert.equal(priority.level, null)
  assert.deepEqual(toBigInts(removed.hashes), [4088130506997063587n])
})

test('attention ranks are told apart', async () => {
  const { events } = await decodeEvents(recordedAnswer('kv_cache_events_attention_dp').bytes, noTurn)
  assert.deepEqual(
    events.map(({ id, rank }) => [id, rank]),
    [
      [0, 0],
      [0, 1],
      [1, 1],
    ],
  )
})

test('every unsigned 64-bit number is read exactly, however it is spaced', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.constantFrom('', ' ', '\n\t'), (value, space) => {
      const cursor = new JsonCursor(Buffer.from(`${space}${value}${space}`))
      cursor.hash()
      assert.equal(hashOf(cursor), value)
      cursor.end()
    }),
  )
})

test('a number that is no 64-bit integer is refused', () => {
  for (const text of [String(2n ** 64n), '1'.repeat(400), '1.5', '1e3', '-', 'true', '"12"', '"xyz"', '']) {
    assert.throws(() => new JsonCursor(Buffer.from(text)).hash(), { code: 'EVENT_MALFORMED' }, text)
  }
})

test('a digest in hexadecimal is known by its last 64 bits', async () => {
  const hex = `${'ab'.repeat(24)}0123456789abcdef`
  const { data } = await one(
    `{"event_id":0,"data":{"type":"removed","block_hashes":["${hex}"]},"hash_algo":"v2_sha256"}`,
  )
  assert.ok(data.kind === 'removed')
  assert.deepEqual(toBigInts(data.hashes), [0x0123456789abcdefn])
})

test('fields may come in any order, unknown ones are passed over, and absent ones are null', async () => {
  const { id, windowSize, group, data } = await one(
    `{"window_size":null,"later":{"a":[1,"]}\\"",{}]},"layer_group_id":2,"data":{"blocks":[{"tokens":[{"token_extra_id":0,"token_id":7}],"x":[],
      "cache_level":1,"cache_salt":"t\\u00e9","block_hash":5,"mm_keys":[]}],"lora_name":"sql","parent_hash":9,"type":"stored"},"event_id":3}`,
  )
  assert.ok(data.kind === 'stored')
  assert.deepEqual([id, windowSize, group, data.loraName, data.cacheSalt], [3, null, 2, 'sql', 'té'])
  assert.deepEqual(toBigInts(data.parent!), [9n])
  assert.deepEqual(data.blocks, [{ low: 5, high: 0, tokens: Uint32Array.of(7), level: 1, plain: true }])
})

test('a block that holds more than its text tokens is marked', async () => {
  const block = (more: string) =>
    one(`{"event_id":0,"data":{"type":"stored","parent_hash":null,"blocks":[{"block_hash":1,${more}}]}}`)
  const plainOf = async (more: string) => {
    const { data } = await block(more)
    return data.kind === 'stored' && data.blocks[0]?.plain
  }
  assert.equal(await plainOf('"tokens":[{"token_id":1,"token_extra_id":0}]'), true)
  assert.equal(await plainOf('"tokens":[{"token_id":1}]'), true)
  assert.equal(await plainOf('"tokens":[{"token_id":1,"token_extra_id":18446744073709551615}]'), false)
  assert.equal(await plainOf('"tokens":[{"token_id":"00ff","token_extra_id":0}]'), false)
  assert.equal(
    await plainOf('"tokens":[{"token_id":1}],"mm_keys":[{"type":"mm_key","hash":"ff","start_offset":0}]'),
    false,
  )
})

test('an event with a wrong type in it is left out alone, and one of an unknown kind is told', async () => {
  const { events, malformed } = await decode(
    `[{"event_id":0,"data":{"type":"created","num_blocks_per_cache_level":[1]}},
      {"event_id":"1","data":{"type":"removed","block_hashes":[1]}},
      {"event_id":2,"data":{"type":"removed","block_hashes":[1.5]}},
      {"event_id":3,"data":{"type":"stored","parent_hash":null,"blocks":[]}},
      {}, 7, null,
      {"event_id":4,"data":{"type":"evicted"}},
      {"event_id":5,"data":{"type":"removed","block_hashes":[2]}}]`,
  )
  assert.equal(malformed, 6)
  assert.deepEqual(
    events.map(({ id, data }) => [id, data.kind]),
    [
      [0, 'created'],
      [4, 'unknown'],
      [5, 'removed'],
    ],
  )
})

test('an answer that is no whole list is refused', async () => {
  const { bytes } = recordedAnswer('kv_cache_events_poll')
  for (const text of ['', '{}', '[', '[1', '[{"event_id":0', '[] x', bytes.toString('utf8').slice(0, -40)]) {
    await assert.rejects(decode(text), { code: 'EVENT_MALFORMED' }, text.slice(0, 20))
  }
  for (const text of ['[]', ' [ ] ', 'null']) assert.deepEqual(await decode(text), { events: [], malformed: 0 })
})

test('cutting an answer anywhere, or changing a byte of it, is an answer or a refusal, never anything else', async () => {
  const { bytes } = recordedAnswer('kv_cache_events_attention_dp')
  await fc.assert(
    fc.asyncProperty(fc.nat(bytes.length - 1), fc.nat(255), fc.boolean(), async (at, byte, cut) => {
      const broken = Buffer.from(cut ? bytes.subarray(0, at) : bytes)
      if (!cut) broken[at] = byte
      await decodeEvents(broken, noTurn).catch((error: unknown) =>
        assert.equal((error as { code?: string }).code, 'EVENT_MALFORMED'),
      )
    }),
    { numRuns: 300 },
  )
})

test('what the scanner reads is what JSON.parse reads', async () => {
  const text = readFileSync(new URL('../fixtures/trtllm/kv_cache_events_attention_dp.json', import.meta.url), 'utf8')
  const parsed = (
    JSON.parse(text) as { response: { event_id: number; data: { blocks?: { tokens: { token_id: number }[] }[] } }[] }
  ).response
  const { events } = await decodeEvents(recordedAnswer('kv_cache_events_attention_dp').bytes, noTurn)
  const tokens = events.flatMap(({ data }) =>
    data.kind === 'stored' ? data.blocks.map((block) => [...block.tokens]) : [],
  )
  assert.deepEqual(
    tokens,
    parsed.flatMap(({ data }) => data.blocks?.map((block) => block.tokens.map(({ token_id }) => token_id)) ?? []),
  )
})

test('a long answer leaves others their turn', async () => {
  const event = (id: number) =>
    `{"event_id":${id},"data":{"type":"removed","block_hashes":[${Array(1000)
      .fill(2 ** 40)
      .join()}]}}`
  const text = `[${Array.from({ length: 200 }, (_, id) => event(id)).join()}]`
  let turns = 0
  const { events } = await decodeEvents(Buffer.from(text), () => {
    turns++
    return Promise.resolve()
  })
  assert.equal(events.length, 200)
  assert.ok(turns >= 4 && turns <= 8, `${turns} turns for ${text.length} bytes`)
})
