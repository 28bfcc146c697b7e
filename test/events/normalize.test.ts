import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { decodeBatch } from '../../src/events/decode.ts'
import { Normalizer, type NormalizerOptions } from '../../src/events/normalize.ts'
import type { KvStore } from '../../src/kv/batch.ts'
import { createKeyMaker, localHashes, type KeyMaker } from '../../src/kv/keys.ts'
import { tierIndex } from '../../src/kv/tier.ts'
import { encodeMsgpack, type Encodable } from '../support/msgpack.ts'

let keys: KeyMaker
before(async () => {
  keys = await createKeyMaker(Buffer.from('a secret'))
})

const tokens = [1, 2, 3, 4]
const base = { type: 'BlockStored', block_hashes: [7, 8], parent_block_hash: null, token_ids: tokens, block_size: 2 }

function normalizer(options: Partial<NormalizerOptions> = {}) {
  const skipped: string[] = []
  const sizes: number[] = []
  const made = new Normalizer({
    keys,
    model: 'm',
    blockSize: 2,
    skipped: (reason) => skipped.push(reason),
    onBlockSize: (size) => sizes.push(size),
    ...options,
  })
  return {
    skipped,
    sizes,
    events: (...events: Encodable[]) => made.normalize(decodeBatch(encodeMsgpack([1, events, 0])).events).events,
    all: (...events: Encodable[]) => made.normalize(decodeBatch(encodeMsgpack([1, events, 0])).events),
  }
}

function stored(fields: Record<string, Encodable> = {}, options: Partial<NormalizerOptions> = {}): KvStore {
  const { events, others } = normalizer(options).all({ ...base, ...fields })
  const event = events[0] ?? others[0]?.event
  assert.equal(event?.kind, 'store')
  return event
}

const scope = (blockSize = 2, adapter: string | null = null) => keys.scope({ model: 'm', blockSize, adapter })
const locals = (extras?: (string[] | null)[], adapter: string | null = null) =>
  localHashes(Uint32Array.from(tokens), scope(2, adapter), extras)

test('every medium of the engines has a tier, in any case; unknown ones are skipped and counted', () => {
  const media: [string | null, keyof typeof tierIndex][] = [
    [null, 'gpu'],
    ['GPU', 'gpu'],
    ['gpu', 'gpu'],
    ['CPU', 'host'],
    ['cpu', 'host'],
    ['CPU_PINNED', 'host'],
    ['CPU_TIER1', 'host'],
    ['CPU_TIER2', 'disk'],
    ['DISK', 'disk'],
    ['STORAGE', 'disk'],
    ['NVMe', 'disk'],
    ['EXTERNAL', 'shared'],
    ['REMOTE', 'shared'],
    ['shared', 'shared'],
    ['NETWORK', 'shared'],
    ['SHARED_STORAGE', 'shared'],
  ]
  for (const [medium, tier] of media) {
    assert.equal(stored({ medium }).tier, tierIndex[tier], String(medium))
    const { events, others } = normalizer().all(
      { ...base, medium },
      { type: 'BlockRemoved', block_hashes: [1], medium },
    )
    assert.deepEqual(events[1] ?? others[1]?.event, {
      kind: 'remove',
      tier: tierIndex[tier],
      group: 0,
      engineHashes: Uint32Array.of(1, 0),
    })
  }
  const { events, skipped } = normalizer()
  assert.deepEqual(events({ ...base, medium: 'TAPE' }, { type: 'BlockRemoved', block_hashes: [1], medium: 'TAPE' }), [])
  assert.deepEqual(skipped, ['unknown_medium', 'unknown_medium'])
})

test('a block that is remote to its publisher is in the shared store', () => {
  assert.equal(stored({ medium: 'CPU', locality: 'REMOTE' }).tier, tierIndex.shared)
  assert.equal(stored({ medium: 'CPU', locality: 'LOCAL' }).tier, tierIndex.host)
})

test('a nil parent is the root of its scope, any other hash a block; 0 is the root only where asked for', () => {
  const root = { kind: 'root', keyLow: scope().rootLow, keyHigh: scope().rootHigh }
  assert.deepEqual(stored().parent, root)
  assert.deepEqual(stored({ parent_block_hash: 2n ** 63n + 5n }).parent, {
    kind: 'block',
    hashLow: 5,
    hashHigh: 2 ** 31,
  })
  assert.deepEqual(stored({ parent_block_hash: 0 }).parent, { kind: 'block', hashLow: 0, hashHigh: 0 })
  assert.deepEqual(stored({ parent_block_hash: 0 }, { zeroParentIsRoot: true }).parent, root)
})

test('locals are those of the tokens in the scope of the adapter', () => {
  assert.deepEqual(stored().locals, locals())
  const adapted = stored({ lora_id: 1, lora_name: 'sql', extra_keys: [['sql'], ['sql']] })
  assert.deepEqual(adapted.locals, locals(undefined, 'sql'))
  assert.equal(adapted.parent.kind === 'root' && adapted.parent.keyLow, scope(2, 'sql').rootLow)
})

test('a bare text in the first block is the adapter if it has its name, else the salt', () => {
  assert.deepEqual(stored({ extra_keys: [['tenant'], null] }).locals, locals([['salt:tenant'], null]))
  assert.deepEqual(
    stored({ lora_name: 'sql', extra_keys: [['sql', 'tenant'], ['sql']] }).locals,
    locals([['salt:tenant'], null], 'sql'),
  )
  assert.deepEqual(
    stored({ lora_name: 'sql', extra_keys: [['sql', 'sql'], ['sql']] }).locals,
    locals([['salt:sql'], null], 'sql'),
  )
  assert.deepEqual(stored({ cache_salt: 'tenant' }).locals, locals([['salt:tenant'], null]))
  assert.deepEqual(stored({ cache_salt: 'tenant', parent_block_hash: 5 }).locals, locals())
})

test('media, embeddings and unknown extra keys set their blocks apart, the salt comes first', () => {
  const other = encodeMsgpack([1, 2]).toString('hex')
  const keysOf = {
    extra_keys: [
      [['image', -1], 'tenant', Buffer.of(0xab)],
      ['text', [1, 2]],
    ],
  }
  assert.deepEqual(
    stored(keysOf).locals,
    locals([
      ['salt:tenant', 'mm:image@-1', 'embeds:ab'],
      ['text:text', `other:${other}`],
    ]),
  )
})

test('only groups with full attention count; others are skipped with their removals', () => {
  for (const kind of [null, 'full_attention', 'mla_attention', 'sink_full_attention']) {
    assert.equal(stored({ kv_cache_spec_kind: kind, group_idx: 2 }).group, 2)
  }
  const { events, skipped } = normalizer()
  const removal = (group: number) => ({ type: 'BlockRemoved', block_hashes: [7], group_idx: group })
  const kept = events({ ...base, kv_cache_spec_kind: 'sliding_window', group_idx: 1 }, removal(1), removal(0))
  assert.equal(kept.length, 1)
  assert.deepEqual(skipped, ['group_kind', 'group_kind'])
})

test('what cannot be keyed is skipped and counted', () => {
  for (const [fields, reason] of [
    [{ token_ids: [], block_size: 0 }, 'no_token_ids'],
    [{ token_ids: null }, 'no_token_ids'],
    [{ token_ids: [1, 2, 3] }, 'tokens_mismatch'],
    [{ block_size: 0 }, 'tokens_mismatch'],
    [{ lora_id: 3 }, 'lora_unnamed'],
    [{ group_idx: -1 }, 'group_number'],
  ] as [Record<string, Encodable>, string][]) {
    const { events, skipped } = normalizer()
    assert.deepEqual(events({ ...base, ...fields }), [])
    assert.deepEqual(skipped, [reason])
  }
})

test('the block size comes from the events: each store is keyed at its own, a run on the GPU sets the worker’s', () => {
  const { events, sizes, skipped } = normalizer({ blockSize: null })
  events(base)
  assert.deepEqual(sizes, [2])
  assert.deepEqual(events({ ...base, block_hashes: [9], token_ids: [1], block_size: 1 }), [])
  assert.deepEqual(skipped, ['short_page'])
  events({ ...base, block_hashes: [9], token_ids: [1, 2, 3, 4], block_size: 4, medium: 'CPU' })
  assert.deepEqual(sizes, [2], 'a short last page and a chunk in another tier change nothing')
  events({ ...base, block_hashes: [9], block_size: 4 })
  events({ ...base, block_hashes: [9, 10, 11, 12], block_size: 1 })
  assert.deepEqual(sizes, [2, 4, 1])
})

test('media mean what the config says they mean here', () => {
  const media = { cpu: 'shared', nvme: 'host' } as const
  assert.equal(stored({ medium: 'CPU' }, { media }).tier, tierIndex.shared)
  assert.equal(stored({ medium: 'NVMe' }, { media }).tier, tierIndex.host)
  assert.equal(stored({ medium: 'CPU_PINNED' }, { media }).tier, tierIndex.host)
})

const chunk = { ...base, block_hashes: [70], block_size: 4, medium: 'cpu' }
const removal = (hashes: number[], medium: string) => ({ type: 'BlockRemoved', block_hashes: hashes, medium })

test('chunks larger than the engine’s blocks are for a store beside it, with their removals', () => {
  const { all, skipped, sizes } = normalizer()
  const { events, others } = all(base, chunk, removal([70], 'CPU'), removal([7], 'GPU'))
  assert.deepEqual(
    events.map(({ kind }) => kind),
    ['store', 'remove'],
  )
  assert.deepEqual(
    others.map(({ part, blockSize, event }) => [part, blockSize, event.kind]),
    [
      ['chunks', 4, 'store'],
      ['chunks', 4, 'remove'],
    ],
  )
  assert(others[0]?.event.kind === 'store')
  assert.deepEqual(others[0].event.locals, localHashes(Uint32Array.from(tokens), scope(4)))
  const larger = all({ ...chunk, block_size: 8, token_ids: [1, 2, 3, 4, 5, 6, 7, 8] }, chunk)
  assert.deepEqual(
    larger.others.map(({ blockSize }) => blockSize),
    [8],
    'the largest size is the store’s',
  )
  assert.deepEqual(skipped, ['chunk_size'])
  assert.deepEqual(sizes, [])
})

test('where a tier holds blocks and chunks a removal is for both, and unknown only if both say so', () => {
  const { all } = normalizer()
  all(base, { ...base, medium: 'CPU' }, chunk)
  const { events, others, removedTwice } = all(removal([70, 7], 'CPU'))
  assert.deepEqual([events.length, others.length, removedTwice], [1, 1, 2])
})

test('an engine that drops its cache drops the chunks beside it, and leaves the shared store', () => {
  const { all } = normalizer()
  all(base, chunk, { ...chunk, medium: 'EXTERNAL' })
  const { events, others } = all({ type: 'AllBlocksCleared' })
  assert.deepEqual(events, [{ kind: 'clear' }])
  assert.deepEqual(others, [{ part: 'chunks', blockSize: 4, event: { kind: 'clear' } }])
})

test('blocks without tokens are present by hash, of a group that was described before', () => {
  const placeholder = { ...base, block_hashes: [7], token_ids: [], block_size: 0, medium: 'CPU' }
  const { all, skipped } = normalizer()
  const { events } = all(base, placeholder, { ...placeholder, group_idx: 1 })
  assert.deepEqual(
    events.map(({ kind }) => kind),
    ['store', 'present'],
  )
  assert.deepEqual(skipped, ['no_token_ids'])
  const { others } = all({ ...placeholder, medium: 'EXTERNAL' })
  assert.deepEqual(
    others.map(({ part, blockSize }) => [part, blockSize]),
    [['shared', 2]],
  )
})

test('groups whose blocks have another size than the first one’s are left out, and change no block size', () => {
  const { all, skipped, sizes } = normalizer({ blockSize: null })
  const coarse = { ...base, block_hashes: [9], block_size: 4, group_idx: 1 }
  const { events } = all(base, coarse, { ...coarse, medium: 'CPU' }, { ...removal([9], 'GPU'), group_idx: 1 }, base)
  assert.equal(events.length, 2)
  assert.deepEqual(sizes, [2])
  assert.deepEqual(skipped, ['group_block_size', 'group_kind', 'group_kind'])
})
