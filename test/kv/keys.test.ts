import assert from 'node:assert/strict'
import { before, describe, test } from 'node:test'
import fc from 'fast-check'
import { blockKeys, chainKeys, createKeyMaker, localHashes } from '../../src/kv/keys.ts'
import type { BlockExtras, KeyScope } from '../../src/kv/keys.ts'

const secret = new Uint8Array(32).fill(9)
let scope: KeyScope

before(async () => {
  scope = (await createKeyMaker(secret)).scope({ model: 'llama', blockSize: 16, adapter: null })
})

const keyOf = (keys: Uint32Array, block: number): string => `${keys[2 * block]}:${keys[2 * block + 1]}`

const prompts = fc.record({
  tokens: fc.uint32Array({ maxLength: 200 }),
  blockSize: fc.integer({ min: 1, max: 33 }),
  extras: fc.array(fc.option(fc.array(fc.string(), { maxLength: 3 })), { maxLength: 8 }),
})

describe('block keys', () => {
  test('keys are the local hashes chained from the root', () => {
    fc.assert(
      fc.property(prompts, ({ tokens, blockSize, extras }) => {
        const own = { ...scope, blockSize }
        const locals = localHashes(tokens, own, extras)
        const chained = new Uint32Array(locals.length)
        chainKeys(own.rootLow, own.rootHigh, locals, chained)
        assert.deepEqual(blockKeys(tokens, own, extras), chained)
        assert.equal(locals.length, 2 * Math.floor(tokens.length / blockSize))
      }),
    )
  })

  test('the chain is prefix-closed: a longer prompt begins with the keys of a shorter one', () => {
    fc.assert(
      fc.property(prompts, fc.nat(200), ({ tokens, blockSize, extras }, cut) => {
        const own = { ...scope, blockSize }
        const whole = blockKeys(tokens, own, extras)
        const part = blockKeys(tokens.subarray(0, cut), own, extras)
        assert.deepEqual(part, whole.subarray(0, part.length))
      }),
    )
  })

  test('a prompt continued from the keys of its earlier turn gets the keys that it would get alone', () => {
    fc.assert(
      fc.property(prompts, fc.nat(200), ({ tokens, blockSize, extras }, cut) => {
        const own = { ...scope, blockSize }
        const known = blockKeys(tokens.subarray(0, cut), own, extras)
        assert.deepEqual(blockKeys(tokens, own, extras, known), blockKeys(tokens, own, extras))
        assert.deepEqual(blockKeys(tokens.subarray(0, cut), own, extras, blockKeys(tokens, own, extras)), known)
      }),
    )
  })

  test('keys chained in place equal keys chained into another array', () => {
    const locals = localHashes(
      Uint32Array.from({ length: 160 }, (_, i) => i),
      scope,
    )
    const out = new Uint32Array(locals.length)
    chainKeys(1, 2, locals, out)
    chainKeys(1, 2, locals, locals)
    assert.deepEqual(locals, out)
  })

  test('model, block size, adapter and secret each give another root', async () => {
    const maker = await createKeyMaker(secret)
    const other = await createKeyMaker(new Uint8Array(32).fill(8))
    const base = { model: 'm', blockSize: 16, adapter: null }
    const scopes = [
      maker.scope(base),
      maker.scope({ ...base, model: 'm2' }),
      maker.scope({ ...base, blockSize: 32 }),
      maker.scope({ ...base, adapter: '' }),
      maker.scope({ ...base, adapter: 'a' }),
      maker.scope({ ...base, model: 'ma' }),
      other.scope(base),
    ]
    assert.equal(new Set(scopes.map(({ rootLow, rootHigh }) => `${rootLow}:${rootHigh}`)).size, scopes.length)
    assert.notEqual(scopes[0]!.seedLow, other.scope(base).seedLow)
    assert.deepEqual((await createKeyMaker(secret)).scope(base), scopes[0])
  })

  test('extras change the keys from their block on, and how strings are cut matters', () => {
    const tokens = new Uint32Array(48)
    const keys = (extras?: BlockExtras): Uint32Array => blockKeys(tokens, scope, extras)
    const plain = keys()
    const salted = keys([null, ['mm:cat@3'], null])
    assert.equal(keyOf(salted, 0), keyOf(plain, 0))
    assert.notEqual(keyOf(salted, 1), keyOf(plain, 1))
    assert.notEqual(keyOf(salted, 2), keyOf(plain, 2))
    assert.deepEqual(keys([null, [], null]), plain)
    const cuts: BlockExtras[] = [[['ab', 'c']], [['a', 'bc']], [['abc']], [['abc', '']], [['c', 'ab']]]
    assert.equal(new Set(cuts.map((extras) => keyOf(keys(extras), 0))).size, cuts.length)
  })

  test('keys of a fixed prompt stay the same from version to version', () => {
    const fixed: KeyScope = { rootLow: 1, rootHigh: 2, seedLow: 3, seedHigh: 4, blockSize: 4 }
    const tokens = Uint32Array.of(1, 2, 3, 4, 128_000, 0, 0xffffffff, 7)
    assert.deepEqual(
      [...blockKeys(tokens, fixed, [['salt:a'], null])],
      [1878164366, 4088488980, 2538196555, 4021056746],
    )
  })

  test('a changed bit of a token, a local hash or a parent changes each bit of the answer about half of the time', () => {
    let state = 1
    const next = (): number => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0)
    const trials = 4000
    const flips = new Float64Array(64)
    const count = (one: Uint32Array, two: Uint32Array): void => {
      for (let bit = 0; bit < 64; bit++) {
        const mask = 1 << (bit & 31)
        if (((one[bit >>> 5]! ^ two[bit >>> 5]!) & mask) !== 0) flips[bit]!++
      }
    }
    const check = (name: string): void => {
      for (let bit = 0; bit < 64; bit++) {
        const share = flips[bit]! / trials
        assert.ok(share > 0.44 && share < 0.56, `${name}: output bit ${bit} flips in ${share} of the cases`)
      }
      flips.fill(0)
    }
    for (let position = 0; position < 16; position++) {
      for (let trial = 0; trial < trials; trial++) {
        const tokens = Uint32Array.from({ length: 16 }, () => next() >>> 15)
        const before = localHashes(tokens, scope)
        tokens[position]! ^= 1 << (trial % 18)
        count(before, localHashes(tokens, scope))
      }
      check(`token ${position}`)
    }
    for (const part of ['parent low', 'parent high', 'local low', 'local high']) {
      for (let trial = 0; trial < trials; trial++) {
        const words = [next(), next(), next(), next()]
        const chain = (): Uint32Array => {
          const out = new Uint32Array(2)
          chainKeys(words[0]!, words[1]!, Uint32Array.of(words[2]!, words[3]!), out)
          return out
        }
        const before = chain()
        words[['parent low', 'parent high', 'local low', 'local high'].indexOf(part)]! ^= 1 << (trial & 31)
        count(before, chain())
      }
      check(part)
    }
  })

  test('two million structured blocks have different keys, in each half no more alike than random ones', () => {
    // Counters, single set bits, repeated tokens and swapped neighbours: what weak mixing folds together.
    const blocks = 2_000_000
    const lows = new Uint32Array(blocks)
    const highs = new Uint32Array(blocks)
    const pairs = new BigUint64Array(blocks)
    const tokens = new Uint32Array(16)
    for (let i = 0; i < blocks; i++) {
      const kind = i & 3
      const n = i >>> 2
      tokens.fill(kind)
      if (kind === 0) tokens[15] = n
      else if (kind === 1) tokens.fill(n)
      else if (kind === 2) {
        tokens[n & 15] = 100 + (n >>> 4)
        tokens[(n + 5) & 15] = 77
      } else {
        tokens[(n >>> 2) & 15] = n
        tokens[((n >>> 2) + 1) & 15] = n >>> 3
      }
      const key = blockKeys(tokens, scope)
      lows[i] = key[0]!
      highs[i] = key[1]!
      pairs[i] = (BigInt(key[1]!) << 32n) | BigInt(key[0]!)
    }
    const repeats = (sorted: ArrayLike<number | bigint>): number => {
      let count = 0
      for (let i = 1; i < sorted.length; i++) if (sorted[i] === sorted[i - 1]) count++
      return count
    }
    const inputs = 1_999_990
    assert.ok(blocks - repeats(pairs.sort()) >= inputs, 'blocks that differ have keys that differ')
    // Birthday bound of 32 bits: 2e6² / 2³³ = 466 expected.
    for (const half of [lows, highs]) assert.ok(repeats(half.sort()) < 800)
  })

  test('the key 0:0, which marks unused places, never comes out of a chain', () => {
    // The chain step is invertible, so some local hash would give 0:0 under this parent; all small ones are tried.
    const out = new Uint32Array(2)
    for (let i = 0; i < 200_000; i++) {
      chainKeys(0, 0, Uint32Array.of(i, 0), out)
      assert.ok((out[0]! | out[1]!) !== 0)
    }
  })
})
