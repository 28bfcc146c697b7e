import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Budget } from '../../src/map/budget.ts'
import { doubleBytes, Doubles } from '../../src/map/doubles.ts'
import { FlatMap } from '../../src/map/flat-map.ts'
import { batchOf, emptyMatch, KvTree, slotOf } from '../support/kv-tree.ts'
import { NaiveMap } from '../support/naive-map.ts'
import { randomWords } from '../support/random.ts'

const workers = 3
const chainBlocks = 24
/** A run here takes as long as some thirty in flat-map.test.ts. */
const numRuns = Math.ceil(Number(process.env['FC_RUNS'] ?? 400) / 33)
const seeded = process.env['FC_SEED'] === undefined ? {} : { seed: Number(process.env['FC_SEED']) }

function setUp(budgetBytes: number): { flat: FlatMap; naive: NaiveMap } {
  const flat = new FlatMap({ budgetBytes, maxWorkers: 8 })
  const naive = new NaiveMap()
  for (let slot = 0; slot < workers; slot++) {
    for (const map of [flat, naive]) map.addWorker(slotOf(slot), { countsStores: slot === 0, blockSize: 16 })
  }
  return { flat, naive }
}

test('under a small budget the map stays within it, forgets, and never credits what the oracle does not', () => {
  let evictions = 0
  fc.assert(
    fc.property(fc.nat(1_000_000), fc.integer({ min: 64, max: 96 }), (seed, budgetKib) => {
      const { flat, naive } = setUp(budgetKib * 1024)
      const next = randomWords(seed)
      const tree = new KvTree(seed)
      const chains: number[][] = []
      for (let step = 0; step < 260; step++) {
        const worker = next() % workers
        const draw = next() % 20
        if (draw < 13 || chains.length === 0) {
          const trunk = chains[next() % (chains.length + 1)]
          const parent = trunk === undefined || draw < 4 ? -1 : trunk[next() % trunk.length]!
          chains.push(tree.growChain(chainBlocks, parent))
        }
        const chain = chains[draw < 13 ? chains.length - 1 : next() % chains.length]!
        const tier = next() % 8 === 0 ? next() % 4 : 0
        const events =
          draw === 19 ? [tree.remove(chain.slice(next() % chainBlocks), { tier })] : [tree.store(chain, { tier })]
        const batch = batchOf(worker, step, events)
        flat.apply(batch)
        naive.apply(batch)
        const { bytes, budgetBytes } = flat.stats()
        assert.ok(bytes <= budgetBytes, `${bytes} bytes of ${budgetBytes}`)
        if (step % 40 === 0) assertNoMore(flat, naive, tree, chains)
      }
      evictions += flat.stats().evictions
      assertNoMore(flat, naive, tree, chains)
      for (let slot = 0; slot < workers; slot++) {
        flat.clear(slotOf(slot), 1)
        assert.deepEqual(flat.workerBlocks(slotOf(slot)), { gpu: 0, host: 0, disk: 0 })
      }
      while (flat.sweep(100));
      const { keys, sets, aliases } = flat.stats()
      assert.deepEqual({ keys, sets, aliases }, { keys: 0, sets: 0, aliases: 0 })
    }),
    { numRuns, ...seeded },
  )
  assert.ok(evictions > 0, 'the budget was reached')
})

function assertNoMore(flat: FlatMap, naive: NaiveMap, tree: KvTree, chains: readonly number[][]): void {
  const most = emptyMatch(workers)
  const some = emptyMatch(workers)
  for (const chain of chains.slice(-16)) {
    const queries = [{ blockSize: 16, keys: tree.keysOf(tree.pathTo(chain.at(-1)!)) }]
    naive.match(queries, most)
    flat.match(queries, some)
    for (let slot = 0; slot < workers; slot++) {
      const run = (match: typeof most): number => match.gpu[slot]! + match.host[slot]! + match.disk[slot]!
      assert.ok(run(some) <= run(most))
      assert.ok(run(some) + some.shared[slot]! <= run(most) + most.shared[slot]!)
    }
  }
}

test('what is left of an evicted chain is its beginning', () => {
  const { flat } = setUp(128 * 1024)
  const tree = new KvTree(3)
  const chains = Array.from({ length: 200 }, () => tree.growChain(chainBlocks))
  chains.forEach((chain, sequence) => flat.apply(batchOf(0, sequence, [tree.store(chain)])))
  assert.ok(flat.stats().evictions > 0)
  const out = emptyMatch(workers)
  let left = 0
  for (const chain of chains) {
    flat.match([{ blockSize: 16, keys: tree.keysOf(chain) }], out)
    left += out.gpu[0]!
  }
  // Every block that the worker still holds is reached from its root: none lies behind a hole.
  assert.equal(left, flat.workerBlocks(slotOf(0)).gpu)
})

test('chains that are matched outlive those that are not', () => {
  const { flat } = setUp(256 * 1024)
  const tree = new KvTree(4)
  const hot = Array.from({ length: 10 }, () => tree.growChain(chainBlocks))
  const out = emptyMatch(workers)
  let sequence = 0
  for (const chain of hot) flat.apply(batchOf(0, sequence++, [tree.store(chain)]))
  const cold: number[][] = []
  for (let i = 0; i < 600; i++) {
    cold.push(tree.growChain(chainBlocks))
    flat.apply(batchOf(0, sequence++, [tree.store(cold.at(-1)!)]))
    flat.match([{ blockSize: 16, keys: tree.keysOf(hot[i % hot.length]!) }], out)
  }
  const held = (chains: readonly number[][]): number => {
    let blocks = 0
    for (const chain of chains) {
      flat.match([{ blockSize: 16, keys: tree.keysOf(chain) }], out)
      blocks += out.gpu[0]!
    }
    return blocks / chains.length / chainBlocks
  }
  assert.equal(held(hot), 1)
  assert.ok(held(cold) < 0.5)
})

test('a store under an evicted parent is refused and counted, and so are its children', () => {
  const { flat } = setUp(128 * 1024)
  const tree = new KvTree(5)
  const first = tree.growChain(chainBlocks)
  flat.apply(batchOf(1, 0, [tree.store(first)]))
  for (let sequence = 0; flat.workerBlocks(slotOf(1)).gpu === chainBlocks; sequence++) {
    flat.apply(batchOf(0, sequence, [tree.store(tree.growChain(chainBlocks))]))
  }
  const next = tree.growChain(4, first.at(-1))
  assert.equal(flat.apply(batchOf(1, 1, [tree.store(next.slice(0, 2))])).parentEvicted, 2)
  assert.equal(flat.apply(batchOf(1, 2, [tree.store(next.slice(2))])).parentEvicted, 2)
  assert.equal(flat.stats().orphans, 0)
  assert.equal(flat.apply(batchOf(1, 3, [tree.remove([first.at(-1)!])])).unknownRemovals, 1)
})

test('a store larger than the whole budget keeps its beginning and refuses the rest', () => {
  const { flat } = setUp(64 * 1024)
  const tree = new KvTree(6)
  const chain = tree.growChain(5000)
  const outcome = flat.apply(batchOf(0, 0, [tree.store(chain)]))
  assert.equal(outcome.storedBlocks + outcome.parentEvicted, 5000)
  const out = emptyMatch(workers)
  flat.match([{ blockSize: 16, keys: tree.keysOf(chain) }], out)
  assert.equal(out.gpu[0], flat.workerBlocks(slotOf(0)).gpu)
  assert.ok(out.gpu[0] > 100)
})

test('when every id has been used for more blocks than it has generations, old engine hashes still name nothing', () => {
  const { flat } = setUp(64 * 1024)
  const tree = new KvTree(7)
  const out = emptyMatch(workers)
  const runOf = (chain: readonly number[]): number => {
    flat.match([{ blockSize: 16, keys: tree.keysOf(chain) }], out)
    return out.gpu[0]!
  }
  const chains: number[][] = []
  let mostBlocks = 0
  for (let sequence = 0; flat.stats().evictions < 150 * Math.max(1, mostBlocks); sequence++) {
    chains.push(tree.growChain(chainBlocks))
    flat.apply(batchOf(0, sequence, [tree.store(chains.at(-1)!)]))
    mostBlocks = Math.max(mostBlocks, flat.workerBlocks(slotOf(0)).gpu)
  }
  const runs = chains.map(runOf)
  const gone = chains.filter((_, i) => runs[i] === 0)
  const outcome = flat.apply(batchOf(0, chains.length, [tree.remove(gone.flat())]))
  assert.deepEqual([outcome.removedBlocks, outcome.unknownRemovals], [0, gone.length * chainBlocks])
  assert.deepEqual(chains.map(runOf), runs)
  assert.ok(runs.filter((run) => run > 0).length > 5)
})

test('a map that has been at its budget for long still holds nearly as much', () => {
  const { flat } = setUp(1024 * 1024)
  const tree = new KvTree(8)
  let sequence = 0
  const storeUntil = (evictions: number): void => {
    while (flat.stats().evictions < evictions) {
      flat.apply(batchOf(sequence % workers, sequence++, [tree.store(tree.growChain(chainBlocks))]))
    }
  }
  storeUntil(1)
  const { entries } = flat.stats()
  storeUntil(5 * entries)
  assert.ok(flat.stats().entries > 0.85 * entries, `${flat.stats().entries} of ${entries}`)
})

test('further engine hashes of a block are counted in bytes and refused where the budget is spent', () => {
  const budget = new Budget(2 * doubleBytes)
  const doubles = new Doubles(budget)
  assert.deepEqual(
    [doubles.add(1, 0), doubles.add(1, 0), doubles.add(2, 0), doubles.add(3, 0)],
    [true, true, true, false],
  )
  assert.equal(budget.usedBytes, 2 * doubleBytes)
  assert.deepEqual([doubles.remove(1, 0), doubles.remove(1, 0), doubles.remove(1, 0)], [true, true, false])
  doubles.forget(2)
  assert.equal(budget.usedBytes, 0)
})
