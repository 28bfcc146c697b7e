import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RouterError } from '../../src/errors.ts'
import { decodeBatch, readTimestamp } from '../../src/events/decode.ts'
import { Normalizer } from '../../src/events/normalize.ts'
import { createKeyMaker } from '../../src/kv/keys.ts'
import { fuzz, type Chance } from '../support/fuzz.ts'
import { encodeMsgpack, type Encodable } from '../support/msgpack.ts'

const odd: readonly Encodable[] = [
  null,
  true,
  -1,
  0,
  2 ** 53,
  1.5,
  -(2n ** 63n),
  2n ** 64n - 1n,
  '',
  'GPU',
  'x',
  new Uint8Array(32),
  [],
  {},
]

function oddity(chance: Chance): Encodable {
  if (chance.oneIn(6)) return chance.list(5, () => chance.pick(odd))
  if (chance.oneIn(12)) return { [chance.pick(['type', 'block_hashes', 'x'])]: chance.pick(odd) }
  return chance.pick(odd)
}

/** Mostly what engines send, with one value in a while that none of them would. */
function event(chance: Chance): Encodable {
  const or = (usual: Encodable): Encodable => (chance.oneIn(15) ? oddity(chance) : usual)
  const blocks = chance.below(4)
  const hashes = Array.from({ length: blocks }, () => BigInt(chance.below(2 ** 31)))
  const tokens = Array.from({ length: blocks * 16 }, () => chance.below(150_000))
  const stored = [
    or('BlockStored'),
    or(hashes),
    or(chance.oneIn(2) ? null : 7n),
    or(tokens),
    or(16),
    or(null),
    or('GPU'),
    or(null),
    or(chance.oneIn(3) ? [[]] : null),
    or(0),
    or('full_attention'),
  ]
  const fields = chance.oneIn(4) ? chance.below(stored.length + 1) : stored.length
  switch (chance.below(5)) {
    case 0:
      return [or('BlockRemoved'), or(hashes), or('GPU')]
    case 1:
      return [or('AllBlocksCleared')]
    case 2:
      return { type: or('BlockStored'), block_hashes: or(hashes), token_ids: or(tokens), block_size: or(16) }
    case 3:
      return oddity(chance)
    default:
      return [...stored.slice(0, fields), ...chance.list(2, () => oddity(chance))]
  }
}

test('no event batch, malformed, huge or foreign, does worse than be refused', async (t) => {
  const keys = await createKeyMaker(Buffer.alloc(32, 1))
  let refused = 0
  let decoded = 0
  await fuzz(t, (chance) => {
    let payload = encodeMsgpack([
      chance.oneIn(20) ? oddity(chance) : 1.5,
      chance.oneIn(20) ? oddity(chance) : chance.list(5, () => event(chance)),
      ...chance.list(2, () => oddity(chance)),
    ])
    if (chance.oneIn(2)) payload = chance.mutated(payload)
    if (chance.oneIn(20)) payload = chance.bytes(300)
    assert.equal(typeof readTimestamp(payload), 'number')
    try {
      const batch = decodeBatch(payload)
      const normalizer = new Normalizer({
        keys,
        model: 'm',
        blockSize: chance.oneIn(2) ? 16 : null,
        skipped: () => undefined,
        onBlockSize: () => undefined,
      })
      for (const own of normalizer.normalize(batch.events).events) assert.ok(typeof own.kind === 'string')
      decoded++
    } catch (error) {
      assert.ok(error instanceof RouterError, error instanceof Error ? error.stack : String(error))
      assert.equal(error.code, 'EVENT_MALFORMED')
      refused++
    }
  })
  assert.ok(refused > 0 && decoded > 0)
  t.diagnostic(`${decoded} decoded, ${refused} refused`)
})
