// SGLang's recorded events, as the router understands them; hashes and tokens are checked in decode.test.ts.
import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { decodeBatch } from '../../src/events/decode.ts'
import { Normalizer } from '../../src/events/normalize.ts'
import type { KvEvent } from '../../src/kv/batch.ts'
import { createKeyMaker, type KeyMaker } from '../../src/kv/keys.ts'
import { tiers } from '../../src/kv/tier.ts'
import { encodeMsgpack, type Encodable } from '../support/msgpack.ts'
import { readBatches, sglangRecordings, toBigInts } from './recorded.ts'

let keys: KeyMaker
before(async () => {
  keys = await createKeyMaker(Buffer.from('a secret'))
})

const payloads = new Map(
  sglangRecordings.flatMap((path) => readBatches(path)).map(({ case: name, payload }) => [name ?? '', payload]),
)

/** What the recorded batches come to, one after the other, for a worker whose pages have so many tokens. */
function told(pageTokens: number | null, ...batches: readonly (string | Buffer)[]) {
  const skipped: string[] = []
  const sizes: number[] = []
  const normalizer = new Normalizer({
    keys,
    model: 'm',
    blockSize: pageTokens,
    skipped: (reason) => skipped.push(reason),
    onBlockSize: (tokens) => sizes.push(tokens),
  })
  const events = batches.flatMap((batch): KvEvent[] => {
    const payload = typeof batch === 'string' ? payloads.get(batch) : batch
    assert(payload !== undefined, String(batch))
    const all = normalizer.normalize(decodeBatch(payload).events)
    return [...all.events, ...all.others.map(({ event }) => event)]
  })
  return { events, skipped, sizes, words: events.map(wordsOf) }
}

/** An event in short: what happens to how many blocks in which tier. */
function wordsOf(event: KvEvent): string {
  if (event.kind === 'clear' || event.kind === 'hold') return event.kind
  return `${event.kind} ${event.engineHashes.length / 2} ${event.tier === null ? 'everywhere' : (tiers[event.tier] ?? '')}`
}

const removal = (hashes: Encodable[], medium: string): Buffer =>
  encodeMsgpack([1, [{ type: 'BlockRemoved', block_hashes: hashes, medium }], 0])

test('ids are the unsigned form of the signed numbers', () => {
  const [event] = told(4, 'gpu_store_chain_page4').events
  assert(event?.kind === 'store')
  assert.deepEqual(
    toBigInts(event.engineHashes),
    [
      -3488128144981237669n,
      5674439469042975057n,
      -1307369107475853156n,
      -5876643477567623554n,
      -1344861894595344543n,
    ].map((id) => BigInt.asUintN(64, id)),
  )
})

test('a removal takes a page from one medium and leaves it on the others', () => {
  assert.deepEqual(told(4, 'gpu_store_chain_page4', 'hicache_cpu_store_then_gpu_remove_then_cpu_remove').words, [
    'store 5 gpu',
    'store 3 host',
    'remove 3 gpu',
    'remove 3 host',
  ])
  assert.deepEqual(told(4, 'all_media').words, ['store 1 gpu', 'store 1 host', 'store 1 disk', 'store 1 shared'])
})

test('the older form says the same', () => {
  const older = ['legacy_store', 'legacy_store_medium', 'legacy_removed', 'legacy_removed_medium', 'legacy_cleared']
  assert.deepEqual(told(4, ...older), {
    ...told(4, ...older),
    skipped: [],
    sizes: [],
    words: ['store 2 gpu', 'store 1 host', 'remove 1 gpu', 'remove 1 gpu', 'clear'],
  })
})

test('salt and adapter are part of what a page is; who caused it is not', () => {
  const localsOf = (name: string, pageTokens = 4): string => {
    const [event] = told(pageTokens, name).events
    assert(event?.kind === 'store' && event.parent.kind === 'root')
    return `${event.parent.keyLow} ${event.locals.join(' ')}`
  }
  const four = ['cache_salt_default_format', 'lora_default_format', 'lora_dynamo_format', 'gpu_store_chain_page4']
  assert.equal(new Set(four.map((name) => localsOf(name))).size, 4)
  const { skipped, sizes } = told(64, 'page64_session')
  assert.deepEqual([skipped, sizes], [[], []])
})

test('a short last page is left out and counted, and changes no block size; nobody misses it when it goes', () => {
  const short = -3695097030597344193n
  const { words, skipped, sizes } = told(4, 'partial_last_page', removal([short], 'GPU'))
  assert.deepEqual([words, skipped, sizes], [['store 1 gpu'], ['short_page'], []])
})

test('EAGLE’s pairs are left out and counted, and so are their removals passed over', () => {
  const [one, other] = [5667287798629209222n, -4074807923790564515n]
  const { words, skipped, sizes } = told(4, 'eagle_bigram_tokens', removal([one, 77n, other], 'GPU'))
  assert.deepEqual([words, skipped, sizes], [['remove 1 gpu'], ['eagle'], []])
})

test('a page that was left out once and is told properly later is removed like any other', () => {
  const store = (more: Record<string, Encodable>): Buffer =>
    encodeMsgpack([
      1,
      [{ type: 'BlockStored', block_hashes: [9], parent_block_hash: null, block_size: 4, lora_id: null, ...more }],
      0,
    ])
  const { words, skipped } = told(
    4,
    store({ token_ids: [1, 2] }),
    store({ token_ids: [1, 2, 3, 4] }),
    removal([9], 'GPU'),
    removal([9], 'GPU'),
  )
  assert.deepEqual([words, skipped], [['store 1 gpu', 'remove 1 gpu', 'remove 1 gpu'], ['tokens_mismatch']])
})

test('pages of one token are blocks of one token', () => {
  const { words, sizes } = told(null, 'page_size_1')
  assert.deepEqual([words, sizes], [['store 3 gpu'], [1]])
})

test('all is gone when it says so', () => {
  assert.deepEqual(told(4, 'all_blocks_cleared').words, ['clear'])
})
