import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { HashSet } from '../../src/events/hash-set.ts'

test('a hash set holds what a Set would, after any additions and deletions', () => {
  // Few distinct words, so that hashes share their home places.
  const hash = fc.tuple(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 1, max: 6 }))
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.boolean(), hash), { maxLength: 400 }), (steps) => {
      const set = new HashSet(1_000)
      const model = new Set<string>()
      for (const [adds, [low, high]] of steps) {
        const name = `${low}:${high}`
        if (adds) {
          assert.equal(set.add(low, high), true)
          model.add(name)
        } else assert.equal(set.delete(low, high), model.delete(name))
        assert.equal(set.size, model.size)
      }
      for (let low = 0; low <= 40; low++)
        for (let high = 1; high <= 6; high++) assert.equal(set.has(low, high), model.has(`${low}:${high}`))
    }),
  )
})

test('a full set takes no more, and one that was emptied does', () => {
  const set = new HashSet(2)
  assert.deepEqual([set.add(1, 0), set.add(2, 0), set.add(3, 0), set.add(1, 0)], [true, true, false, true])
  set.clear()
  assert.deepEqual([set.size, set.has(1, 0), set.add(3, 0)], [0, false, true])
})

test('words with their highest bit set are the same signed and unsigned; zero is never a member', () => {
  const set = new HashSet(8)
  set.add(0x8000_0001 | 0, -1)
  assert.equal(set.has(0x8000_0001, 0xffff_ffff), true)
  assert.deepEqual([set.add(0, 0), set.has(0, 0), set.delete(0, 0)], [false, false, false])
})
