import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { RecencyTree } from '../../src/map/recency-tree.ts'
import { KvTree } from '../support/kv-tree.ts'

/** The same block by block: least recently used ones go first, and of one prompt its last ones. */
class NaiveCache {
  /** Block name → time of use and place in the prompt; the order of insertion is that of use, tails before heads. */
  #blocks = new Map<string, number>()

  get blocks(): number {
    return this.#blocks.size
  }

  held(path: readonly string[]): number {
    const end = path.findIndex((block) => !this.#blocks.has(block))
    return end === -1 ? path.length : end
  }

  use(path: readonly string[], nowMs: number): void {
    for (const block of [...path].reverse()) {
      this.#blocks.delete(block)
      this.#blocks.set(block, nowMs)
    }
  }

  cut(path: readonly string[], from: number): void {
    const first = path[from]
    if (first === undefined || this.held(path) <= from) return
    for (const block of [...this.#blocks.keys()]) if (block.startsWith(first)) this.#blocks.delete(block)
  }

  shrink(to: number): void {
    for (const block of this.#blocks.keys()) {
      if (this.#blocks.size <= to) return
      this.#blocks.delete(block)
    }
  }

  expire(usedMs: number): void {
    for (const [block, atMs] of this.#blocks) if (atMs <= usedMs) this.#blocks.delete(block)
  }

  names(): string[] {
    return [...this.#blocks.keys()].sort()
  }
}

type Step =
  | { kind: 'use'; turns: number[] }
  | { kind: 'cut'; turns: number[]; from: number }
  | { kind: 'shrink'; to: number }
  | { kind: 'expire'; ageMs: number }

const turns = fc.array(fc.nat(1), { minLength: 1, maxLength: 9 })
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('use' as const), turns }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('cut' as const), turns, from: fc.nat(8) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('shrink' as const), to: fc.nat(40) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('expire' as const), ageMs: fc.nat(12) }) },
)

test('whatever is used, cut, shrunk and expired, it holds what a cache block by block holds, and says what goes', () => {
  const blocks = new KvTree(5)
  const known = new Map<string, number>()
  const namesOf = (path: readonly number[]): string[] => path.map((_, i) => path.slice(0, i + 1).join(''))
  const keysOf = (path: readonly number[]): Uint32Array => {
    const names = namesOf(path)
    names.forEach((name, i) => {
      if (!known.has(name)) known.set(name, blocks.grow(i === 0 ? -1 : known.get(names[i - 1]!)!))
    })
    return blocks.keysOf(names.map((name) => known.get(name)!))
  }
  const nameOf = (keys: Uint32Array, block: number): string =>
    [...known].find(
      ([, at]) => blocks.keys[at]![0] === keys[2 * block] && blocks.keys[at]![1] === keys[2 * block + 1],
    )![0]

  fc.assert(
    fc.property(fc.array(step, { maxLength: 50 }), (steps) => {
      const tree = new RecencyTree()
      const naive = new NaiveCache()
      /** Who follows only what the tree says: new blocks of a use, and what goes. */
      const told = new Set<string>()
      const gone = (keys: Uint32Array): void => {
        for (let block = 0; 2 * block < keys.length; block++) assert.ok(told.delete(nameOf(keys, block)))
      }
      for (const [nowMs, at] of steps.entries()) {
        if (at.kind === 'use') {
          const path = namesOf(at.turns)
          const held = tree.use(keysOf(at.turns), nowMs)
          assert.equal(held, naive.held(path))
          naive.use(path, nowMs)
          for (const block of path.slice(held)) told.add(block)
        } else if (at.kind === 'cut') {
          naive.cut(namesOf(at.turns), at.from)
          tree.cut(keysOf(at.turns), at.from, gone)
        } else if (at.kind === 'shrink') {
          naive.shrink(at.to)
          tree.shrink(at.to, gone)
        } else {
          naive.expire(nowMs - at.ageMs)
          tree.expire(nowMs - at.ageMs, gone)
        }
        assert.equal(tree.blocks, naive.blocks)
        assert.deepEqual([...told].sort(), naive.names())
        for (const name of known.keys()) {
          const path = name.split('').map(Number)
          assert.equal(tree.heldBlocks(keysOf(path)), naive.held(namesOf(path)))
        }
      }
      tree.clear()
      assert.deepEqual([tree.blocks, tree.runs], [0, 0])
    }),
    { numRuns: 150 },
  )
})

test('a prompt takes as many steps as its conversation has turns, however many blocks it has', () => {
  const blocks = new KvTree(6)
  const tree = new RecencyTree()
  const chain = blocks.growChain(5_000)
  for (let turn = 1; turn <= 10; turn++) tree.use(blocks.keysOf(chain.slice(0, 500 * turn)), turn)
  assert.deepEqual([tree.blocks, tree.runs], [5_000, 10])
  tree.use(blocks.keysOf([...chain.slice(0, 750), blocks.grow(chain[749]!)]), 11)
  assert.deepEqual([tree.blocks, tree.runs], [5_001, 12])
})
