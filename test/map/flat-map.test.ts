import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { KvEvent } from '../../src/kv/batch.ts'
import { FlatMap } from '../../src/map/flat-map.ts'
import { batchOf, emptyMatch, KvTree, slotOf } from '../support/kv-tree.ts'
import { NaiveMap } from '../support/naive-map.ts'

const workers = 4
/** Worker 3 has another block size, and with it another tree. */
const blockSizeOf = (worker: number): number => (worker === 3 ? 32 : 16)
const treeBlocks = 28

type Step =
  | { kind: 'batch'; worker: number; events: EventPlan[]; again: boolean }
  | { kind: 'assume'; worker: number; events: EventPlan[] }
  | { kind: 'retract'; worker: number }
  | { kind: 'clear'; worker: number }
  | { kind: 'restart'; worker: number }
  | { kind: 'leave'; worker: number }
  | { kind: 'join'; worker: number }
  | { kind: 'stale'; worker: number }
  | { kind: 'adopt'; worker: number }
  | { kind: 'sweep'; steps: number }

interface EventPlan {
  kind: 'store' | 'present' | 'remove' | 'clear'
  block: number
  length: number
  tier: number
  group: number
  alternative: number
  /** Of a removal. */
  everyTier: boolean
}

const eventPlan: fc.Arbitrary<EventPlan> = fc.record({
  kind: fc.oneof(
    { weight: 12, arbitrary: fc.constant('store' as const) },
    { weight: 3, arbitrary: fc.constant('present' as const) },
    { weight: 7, arbitrary: fc.constant('remove' as const) },
    { weight: 1, arbitrary: fc.constant('clear' as const) },
  ),
  block: fc.nat(treeBlocks - 1),
  length: fc.integer({ min: 1, max: 8 }),
  tier: fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, { weight: 3, arbitrary: fc.integer({ min: 1, max: 3 }) }),
  group: fc.oneof({ weight: 30, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.constant(5) }),
  alternative: fc.oneof({ weight: 12, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.constant(1) }),
  everyTier: fc.boolean(),
})

const worker = fc.nat(workers - 1)
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 30,
    arbitrary: fc.record({
      kind: fc.constant('batch' as const),
      worker,
      events: fc.array(eventPlan, { minLength: 1, maxLength: 4 }),
      again: fc.boolean(),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('assume' as const),
      // Mostly one worker, so that it is left as it is for a while.
      worker: fc.oneof(fc.constant(1), worker),
      events: fc.array(eventPlan, { minLength: 1, maxLength: 4 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.oneof(
      ...(['retract', 'clear', 'restart', 'leave', 'join', 'stale', 'adopt'] as const).map((kind) =>
        fc.record({ kind: fc.constant(kind), worker }),
      ),
    ),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('sweep' as const), steps: fc.integer({ min: 1, max: 6 }) }) },
)

/** Both trees have the same shape: blocks hang from a random earlier one, mostly the last. */
function growTree(seed: number, shape: readonly number[]): KvTree {
  const tree = new KvTree(seed)
  shape.forEach((draw, block) => tree.grow(draw % 3 === 0 ? (draw % (block + 1)) - 1 : block - 1))
  return tree
}

/** The last `length` blocks of the path to a block, as one event. */
function eventOf(tree: KvTree, plan: EventPlan): KvEvent {
  if (plan.kind === 'clear') return { kind: 'clear' }
  const run = tree.pathTo(plan.block).slice(-plan.length)
  if (plan.kind === 'store') return tree.store(run, plan)
  if (plan.kind === 'present') return tree.present(run, plan)
  return tree.remove(run, plan.everyTier ? { ...plan, tier: null } : plan)
}

/** The same for blocks that are known by their keys. */
function assumptionOf(tree: KvTree, plan: EventPlan): KvEvent {
  if (plan.kind === 'clear') return { kind: 'clear' }
  const run = tree.pathTo(plan.block).slice(-plan.length)
  const above = tree.parents[run[0]!]!
  if (plan.kind === 'remove') return { kind: 'remove', tier: plan.tier, group: 0, engineHashes: tree.keysOf(run) }
  return { kind: 'hold', tier: plan.tier, keys: tree.keysOf(run), parent: above < 0 ? null : tree.keys[above]! }
}

const runs = {
  numRuns: Number(process.env['FC_RUNS'] ?? 400),
  ...(process.env['FC_SEED'] === undefined ? {} : { seed: Number(process.env['FC_SEED']) }),
}

test('the flat map answers as the naive one does under any log of events', () => {
  const logs = fc.tuple(
    fc.array(fc.nat(1000), { minLength: treeBlocks, maxLength: treeBlocks }),
    fc.array(step, { minLength: 1, maxLength: 60 }),
    fc.boolean(),
    fc.constantFrom(3, 4096),
  )
  fc.assert(
    fc.property(logs, ([shape, steps, countsStores, orphansPerWorker]) => {
      const trees = [growTree(1, shape), growTree(2, shape)]
      const treeOf = (slot: number): KvTree => trees[slot === 3 ? 1 : 0]!
      const naive = new NaiveMap({ orphansPerWorker })
      const flat = new FlatMap({ budgetBytes: 512 * 1024, maxWorkers: 16, orphansPerWorker })
      const join = (slot: number): void => {
        const kin = slot === 2 ? [slotOf(0), slotOf(3)] : []
        const options = { countsStores: countsStores || slot === 2, blockSize: blockSizeOf(slot), kin }
        for (const map of [naive, flat]) map.addWorker(slotOf(slot), options)
      }
      for (let slot = 0; slot < workers; slot++) join(slot)
      const epochs = [0, 0, 0, 0]
      let sequence = 0
      for (const at of steps) {
        if (at.kind === 'sweep') flat.sweep(at.steps)
        else if (at.kind === 'join') join(at.worker)
        else if (at.kind === 'assume') {
          const events = at.events.map((plan) => assumptionOf(treeOf(at.worker), plan))
          assert.deepEqual(flat.assume(slotOf(at.worker), events), naive.assume(slotOf(at.worker), events))
        } else if (at.kind === 'retract') for (const map of [naive, flat]) map.retract(slotOf(at.worker))
        else if (at.kind === 'leave') {
          for (const map of [naive, flat]) map.removeWorker(slotOf(at.worker))
          epochs[at.worker] = 0
        } else if (at.kind === 'clear') {
          const epoch = ++epochs[at.worker]!
          for (const map of [naive, flat]) map.clear(slotOf(at.worker), epoch)
        } else if (at.kind === 'adopt') {
          for (const map of [naive, flat]) map.adopt(slotOf(at.worker))
        } else if (at.kind === 'restart') epochs[at.worker]!++
        else if (at.kind === 'stale') {
          const batch = batchOf(at.worker, sequence++, [], epochs[at.worker]! - 1)
          assert.deepEqual(flat.apply(batch), naive.apply(batch))
        } else {
          const events = at.events.map((plan) => eventOf(treeOf(at.worker), plan))
          const batch = batchOf(at.worker, sequence++, events, epochs[at.worker])
          assert.deepEqual(flat.apply(batch), naive.apply(batch))
          if (at.again) assert.equal(flat.apply(batch).ignored, true)
        }
        assertSame(flat, naive, trees)
      }
      while (flat.sweep(100));
      assertSame(flat, naive, trees)
      const { keys, aliases } = naive.stats()
      assert.deepEqual([flat.stats().keys, flat.stats().aliases], [keys, aliases])
    }),
    runs,
  )
})

function assertSame(flat: FlatMap, naive: NaiveMap, trees: readonly KvTree[]): void {
  const expected = emptyMatch(workers)
  const actual = emptyMatch(workers)
  for (let block = 0; block < treeBlocks; block++) {
    if (trees[0]!.parents.includes(block) && block % 4 !== 0) continue
    const queries = trees.map((tree, i) => ({ blockSize: 16 << i, keys: tree.keysOf(tree.pathTo(block)) }))
    naive.match(queries, expected)
    flat.match(queries, actual)
    assert.deepEqual(actual, expected, `path to block ${block}`)
  }
  for (let slot = 0; slot < workers; slot++) {
    assert.deepEqual(flat.workerBlocks(slotOf(slot)), naive.workerBlocks(slotOf(slot)))
  }
  const of = ({ entries, orphans, orphansDropped, blocksByTier }: ReturnType<FlatMap['stats']>) => ({
    entries,
    orphans,
    orphansDropped,
    blocksByTier,
  })
  assert.deepEqual(of(flat.stats()), of(naive.stats()))
}
