import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { FlatMap } from '../../src/map/flat-map.ts'
import {
  assumptionOf,
  blockSizeOf,
  eventOf,
  growTree,
  step,
  treeBlocks,
  treeShape,
  workers,
} from '../support/kv-log.ts'
import { batchOf, emptyMatch, slotOf, type KvTree } from '../support/kv-tree.ts'
import { NaiveMap } from '../support/naive-map.ts'

const runs = {
  numRuns: Number(process.env['FC_RUNS'] ?? 400),
  ...(process.env['FC_SEED'] === undefined ? {} : { seed: Number(process.env['FC_SEED']) }),
}

test('the flat map answers as the naive one does under any log of events', () => {
  const logs = fc.tuple(
    treeShape,
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
