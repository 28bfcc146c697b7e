import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Coming } from '../../src/map/coming.ts'
import { emptyMatch, KvTree } from '../support/kv-tree.ts'

const tree = new KvTree(3)
const prompt = tree.growChain(10)
/** Shares the first four blocks. */
const other = [...prompt.slice(0, 4), ...tree.growChain(5, prompt[3])]
const keysOf = (path: readonly number[]): Uint32Array => tree.keysOf(path)

function comingOf(coming: Coming, path: readonly number[], gpu: readonly number[] = [], nowMs = 0, blockSize = 16) {
  const match = emptyMatch(4)
  match.gpu.set(gpu)
  const out = new Uint32Array(4)
  coming.match([{ blockSize, keys: keysOf(path) }], match, nowMs, out)
  return [...out]
}

test('a prompt that was sent is coming, all of it for an equal one and what they share for another', () => {
  const coming = new Coming({ requests: 8 })
  coming.expect(1, 16, keysOf(prompt), 100)
  assert.deepEqual(comingOf(coming, prompt), [0, 10, 0, 0])
  assert.deepEqual(comingOf(coming, other), [0, 4, 0, 0])
  assert.deepEqual(comingOf(coming, tree.growChain(3)), [0, 0, 0, 0])
})

test('what the worker holds already is not coming', () => {
  const coming = new Coming({ requests: 8 })
  coming.expect(1, 16, keysOf(prompt), 100)
  assert.deepEqual(comingOf(coming, prompt, [0, 3]), [0, 7, 0, 0])
  assert.deepEqual(comingOf(coming, prompt, [0, 10]), [0, 0, 0, 0])
  assert.deepEqual(comingOf(coming, other, [0, 6]), [0, 0, 0, 0])
})

test('of several prompts the longest that is shared counts, once', () => {
  const coming = new Coming({ requests: 8 })
  coming.expect(2, 16, keysOf(prompt.slice(0, 2)), 100)
  coming.expect(2, 16, keysOf(prompt.slice(0, 7)), 100)
  coming.expect(2, 16, keysOf(other), 100)
  assert.deepEqual(comingOf(coming, prompt), [0, 0, 7, 0])
})

test('an expectation ends at its time, with its request, and with its worker', () => {
  const coming = new Coming({ requests: 8 })
  coming.expect(0, 16, keysOf(prompt), 100)
  const second = coming.expect(1, 16, keysOf(prompt), 1000)
  coming.expect(2, 16, keysOf(prompt), 1000)
  assert.deepEqual(comingOf(coming, prompt, [], 99), [10, 10, 10, 0])
  assert.deepEqual(comingOf(coming, prompt, [], 100), [0, 10, 10, 0])
  coming.failed(second)
  coming.forget(2)
  assert.deepEqual(comingOf(coming, prompt, [], 100), [0, 0, 0, 0])
  assert.equal(coming.count, 0)
})

test('equal prompts on one worker are kept once, and one that fails takes nothing from the others', () => {
  const coming = new Coming({ requests: 2 })
  const [first, second] = [coming.expect(1, 16, keysOf(prompt), 100), coming.expect(1, 16, keysOf(prompt), 200)]
  coming.expect(2, 16, keysOf(prompt), 100)
  assert.equal(coming.count, 2)
  coming.failed(first)
  assert.deepEqual(comingOf(coming, prompt, [], 99), [0, 10, 10, 0])
  assert.deepEqual(comingOf(coming, prompt, [], 150), [0, 10, 0, 0])
  coming.failed(second)
  assert.deepEqual(comingOf(coming, prompt, [], 150), [0, 0, 0, 0])
  coming.expect(1, 16, keysOf(prompt), 300)
  assert.deepEqual(comingOf(coming, prompt, [], 250), [0, 10, 0, 0])
})

test('blocks of another size are not compared', () => {
  const coming = new Coming({ requests: 8 })
  coming.expect(1, 32, keysOf(prompt), 100)
  assert.deepEqual(comingOf(coming, prompt), [0, 0, 0, 0])
  assert.deepEqual(comingOf(coming, prompt, [], 0, 32), [0, 10, 0, 0])
})

test('no more requests are remembered than the limit, the oldest forgotten; with a limit of 0 none', () => {
  const coming = new Coming({ requests: 2 })
  for (const slot of [0, 1, 2]) coming.expect(slot, 16, keysOf(prompt), 100)
  assert.deepEqual(comingOf(coming, prompt), [0, 10, 10, 0])
  const off = new Coming({ requests: 0 })
  off.expect(0, 16, keysOf(prompt), 100)
  assert.deepEqual(comingOf(off, prompt), [0, 0, 0, 0])
})

test('the array is that of this prompt, whatever the last one left in it', () => {
  const coming = new Coming({ requests: 8 })
  coming.expect(1, 16, keysOf(prompt), 100)
  const out = new Uint32Array(4)
  const ask = (path: readonly number[]) => coming.match([{ blockSize: 16, keys: keysOf(path) }], emptyMatch(4), 0, out)
  ask(prompt)
  ask(tree.growChain(2))
  assert.deepEqual([...out], [0, 0, 0, 0])
})

test('for any prompts it finds what a comparison block by block finds', () => {
  const path = fc.array(fc.nat(1), { maxLength: 12 })
  const forked = new KvTree(9)
  const known = new Map<string, number>()
  const blocksOf = (turns: readonly number[]): number[] =>
    turns.map((_, i) => {
      const name = turns.slice(0, i + 1).join('')
      const block = known.get(name) ?? forked.grow(i === 0 ? -1 : known.get(turns.slice(0, i).join(''))!)
      known.set(name, block)
      return block
    })
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(2), path), { maxLength: 6 }), path, fc.nat(4), (sent, asked, held) => {
      const coming = new Coming({ requests: 100 })
      for (const [slot, turns] of sent) coming.expect(slot, 16, forked.keysOf(blocksOf(turns)), 1)
      const match = emptyMatch(3)
      match.host.fill(Math.min(held, asked.length))
      const out = new Uint32Array(3)
      coming.match([{ blockSize: 16, keys: forked.keysOf(blocksOf(asked)) }], match, 0, out)
      for (let slot = 0; slot < 3; slot++) {
        const from = match.host[slot]!
        const shared = sent
          .filter(([to]) => to === slot)
          .map(([, turns]) => {
            const end = turns.findIndex((turn, i) => turn !== asked[i])
            return end === -1 ? turns.length : end
          })
        assert.equal(out[slot], Math.max(0, Math.max(0, ...shared) - from))
      }
    }),
  )
})

test('keys that begin within a prompt tell of all that is before them', () => {
  const coming = new Coming({ requests: 8 })
  coming.expect(1, 16, keysOf(prompt).subarray(2 * 6), 100, 6)
  assert.deepEqual(comingOf(coming, prompt, [0, 6]), [0, 4, 0, 0])
  assert.deepEqual(comingOf(coming, prompt, [0, 8]), [0, 2, 0, 0])
  assert.deepEqual(comingOf(coming, prompt, [0, 2]), [0, 8, 0, 0], 'what was there has not been told of here')
  assert.deepEqual(comingOf(coming, other, [0, 4]), [0, 0, 0, 0])
  const twin = coming.expect(1, 16, keysOf(prompt), 100)
  assert.deepEqual([coming.count, twin.requests], [1, 2])
})
