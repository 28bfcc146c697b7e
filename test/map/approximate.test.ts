import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Approximate } from '../../src/map/approximate.ts'
import { FlatMap } from '../../src/map/flat-map.ts'
import { batchOf, emptyMatch, KvTree, slotOf } from '../support/kv-tree.ts'

function setUp({ capacityBlocks = 100, ttlMs = 1000, budgetBytes = 4 * 1024 * 1024 } = {}) {
  const map = new FlatMap({ budgetBytes, maxWorkers: 8 })
  for (const slot of [0, 1]) map.addWorker(slotOf(slot), { countsStores: true, blockSize: 16 })
  const announced = new Set<number>()
  const approximate = new Approximate({
    map,
    limits: { capacityBlocks, ttlMs },
    isAnnounced: (slot) => announced.has(slot),
  })
  const tree = new KvTree(1)
  const heldBy = (path: readonly number[], slot = 0): number => {
    const out = emptyMatch(2)
    map.match([{ blockSize: 16, keys: tree.keysOf(path) }], out)
    return out.gpu[slot]!
  }
  const promptOf = (path: readonly number[], slot = 0) => ({
    slot: slotOf(slot),
    keys: tree.keysOf(path),
    believedBlocks: heldBy(path, slot),
    capacityBlocks: null,
  })
  const computed = (path: readonly number[], nowMs = 0, slot = 0): boolean =>
    approximate.computed(promptOf(path, slot), nowMs)
  return { map, announced, approximate, tree, heldBy, promptOf, computed }
}

test('what a worker computed it holds, and a next turn on top of it', () => {
  const { tree, heldBy, computed, map } = setUp()
  const prompt = tree.growChain(8)
  computed(prompt)
  assert.equal(heldBy(prompt), 8)
  assert.equal(heldBy(prompt, 1), 0)
  const next = [...prompt, ...tree.growChain(4, prompt.at(-1))]
  assert.equal(heldBy(next), 8)
  computed(next)
  assert.equal(heldBy(next), 12)
  assert.equal(map.workerBlocks(slotOf(0)).gpu, 12)
})

test('the blocks that were used longest ago go when the worker is full, from the end of their prompts', () => {
  const { tree, heldBy, computed, map } = setUp({ capacityBlocks: 20 })
  const [first, second, third] = [tree.growChain(8), tree.growChain(8), tree.growChain(8)]
  computed(first, 1)
  computed(second, 2)
  computed(first, 3)
  computed(third, 4)
  assert.deepEqual([heldBy(first), heldBy(second), heldBy(third)], [8, 4, 8])
  assert.equal(map.workerBlocks(slotOf(0)).gpu, 20)
})

test('the worker’s own capacity goes before the assumed one', () => {
  const { approximate, tree, heldBy, promptOf } = setUp({ capacityBlocks: 5 })
  const prompt = tree.growChain(8)
  approximate.computed({ ...promptOf(prompt), capacityBlocks: 7 }, 0)
  assert.equal(heldBy(prompt), 7)
})

test('what is not used for the time to live is forgotten', () => {
  const { approximate, tree, heldBy, computed, map } = setUp({ ttlMs: 100 })
  const [old, young] = [tree.growChain(8), tree.growChain(8)]
  computed(old, 0)
  computed(young, 60)
  approximate.expire(99)
  assert.deepEqual([heldBy(old), heldBy(young)], [8, 8])
  approximate.expire(100)
  assert.deepEqual([heldBy(old), heldBy(young)], [0, 8])
  approximate.expire(160)
  assert.equal(map.stats().entries, 0)
})

test('a worker that finds fewer blocks than it was believed to have loses all that hangs below the first missing one', () => {
  const { approximate, tree, heldBy, computed, promptOf } = setUp()
  const shared = tree.growChain(4)
  const one = [...shared, ...tree.growChain(4, shared.at(-1))]
  const beside = [...shared.slice(0, 2), ...tree.growChain(2, shared[1])]
  computed(one)
  computed(beside)
  const asked = promptOf([...shared, ...tree.growChain(2, shared.at(-1))])
  approximate.found(asked, 3)
  assert.deepEqual([heldBy(one), heldBy(beside), heldBy(shared)], [3, 4, 3])
  approximate.computed(asked, 1)
  assert.deepEqual([heldBy(one), heldBy(shared)], [4, 4], 'its own blocks are there again')
})

test('finding more than was believed, or nothing where nothing was believed, changes nothing', () => {
  const { approximate, tree, heldBy, computed, promptOf } = setUp()
  const prompt = tree.growChain(6)
  computed(prompt)
  approximate.found(promptOf(prompt), 9)
  assert.equal(heldBy(prompt), 6)
  approximate.found(promptOf(tree.growChain(3)), 0)
  assert.equal(approximate.capacityOf(slotOf(0), null), 100)
})

test('a worker that keeps losing blocks is relied on for less, and for all of it again as it finds them', () => {
  const { approximate, tree, promptOf, computed } = setUp({ capacityBlocks: 1000 })
  const prompt = tree.growChain(10)
  for (let times = 0; times < 40; times++) {
    computed(prompt)
    approximate.found(promptOf(prompt), 2)
  }
  const shrunk = approximate.capacityOf(slotOf(0), null)!
  assert.ok(shrunk < 150 && shrunk >= 1000 / 64, `${shrunk} blocks`)
  computed(prompt)
  for (let times = 0; times < 1000; times++) approximate.found(promptOf(prompt), 10)
  assert.equal(approximate.capacityOf(slotOf(0), null), 1000)
})

test('a worker that finds what it was thought too small for is relied on for more, and for less where that was too much', () => {
  const { approximate, tree, promptOf, computed, heldBy } = setUp({ capacityBlocks: 40 })
  const prompts = Array.from({ length: 8 }, () => tree.growChain(10))
  // It holds 80 blocks, and with 40 the prompt that comes next was always the one that was given up last.
  for (let turn = 0; turn < 200; turn++) {
    const prompt = prompts[turn % 8]!
    const asked = promptOf(prompt)
    computed(prompt)
    approximate.found(asked, turn < 8 ? 0 : 10)
  }
  assert.deepEqual(
    prompts.map((prompt) => heldBy(prompt)),
    prompts.map(() => 10),
  )
  const grown = approximate.capacityOf(slotOf(0), null)!
  assert.ok(grown >= 80 && grown < 100, `${grown} blocks`)
  for (let times = 0; times < 10; times++) {
    computed(prompts[0]!)
    approximate.found(promptOf(prompts[0]!), 5)
  }
  assert.ok(approximate.capacityOf(slotOf(0), null)! < 0.7 * grown)
})

test('a worker with room to spare is not relied on for more, whatever it finds', () => {
  const { approximate, tree, promptOf } = setUp({ capacityBlocks: 1000 })
  for (let times = 0; times < 20; times++) {
    const prompt = tree.growChain(20)
    approximate.computed(promptOf(prompt), 0)
    approximate.found({ ...promptOf(prompt), believedBlocks: 0 }, 20)
  }
  assert.equal(approximate.capacityOf(slotOf(0), null), 1000)
})

test('a worker whose events begin goes over to them, and back when they are gone for good', () => {
  const { map, announced, approximate, tree, heldBy, computed } = setUp()
  const prompt = tree.growChain(8)
  computed(prompt)
  announced.add(0)
  map.apply(batchOf(0, 0, [tree.store(prompt.slice(0, 3))]))
  assert.equal(heldBy(prompt), 3, 'its first batch clears what was assumed')
  computed(prompt)
  approximate.expire(1e9)
  assert.equal(heldBy(prompt), 3, 'and nothing is assumed any more')
  map.clear(slotOf(0), 1)
  announced.delete(0)
  computed(prompt.slice(0, 5))
  assert.equal(heldBy(prompt), 5)
})

test('events that are live and have told of nothing yet clear what was assumed', () => {
  const { announced, approximate, tree, heldBy, computed } = setUp()
  const prompt = tree.growChain(8)
  computed(prompt)
  announced.add(0)
  approximate.expire(0)
  assert.equal(heldBy(prompt), 0)
})

test('a worker that is gone or was started anew holds nothing', () => {
  const { map, approximate, tree, heldBy, computed } = setUp()
  const prompt = tree.growChain(8)
  computed(prompt)
  computed(prompt, 0, 1)
  approximate.forget(slotOf(0))
  assert.deepEqual([heldBy(prompt), heldBy(prompt, 1)], [0, 8])
  assert.equal(map.workerBlocks(slotOf(0)).gpu, 0)
  computed(prompt.slice(0, 2))
  assert.equal(heldBy(prompt), 2)
})

test('what the map gave up for its budget comes back with the next use', () => {
  const { map, tree, heldBy, computed } = setUp({ capacityBlocks: 100_000, ttlMs: 1e9, budgetBytes: 256 * 1024 })
  const prompt = tree.growChain(8)
  computed(prompt)
  for (let filler = 0; map.stats().evictions === 0 || heldBy(prompt) === 8; filler++) {
    assert.ok(filler < 1000, 'the map fills up')
    computed(tree.growChain(32))
  }
  computed(prompt)
  assert.equal(heldBy(prompt), 8)
})
