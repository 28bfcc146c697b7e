import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { KvEvent } from '../../src/kv/batch.ts'
import type { CacheMap } from '../../src/map/map.ts'
import { batchOf, emptyMatch, KvTree, slotOf } from '../support/kv-tree.ts'

/** What every CacheMap must do; run it on each implementation. */
export function cacheMapContract(name: string, create: (options?: { orphansPerWorker: number }) => CacheMap): void {
  describe(`the cache map contract, ${name}`, () => {
    const setUp = (options: { countsStores?: boolean; orphansPerWorker?: number; blocks?: number } = {}) => {
      const { countsStores = true, orphansPerWorker = 4096, blocks = 8 } = options
      const map = create({ orphansPerWorker })
      for (const worker of [0, 1, 2]) map.addWorker(slotOf(worker), { countsStores, blockSize: 16 })
      const tree = new KvTree(1)
      const chain = tree.growChain(blocks)
      const sequences = [0, 0, 0, 0]
      const send = (worker: number, ...events: Parameters<typeof batchOf>[2]) =>
        map.apply(batchOf(worker, sequences[worker]!++, events))
      const matchOf = (path: readonly number[] = chain, blockSize = 16) => {
        const out = emptyMatch(4)
        map.match([{ blockSize, keys: tree.keysOf(path) }], out)
        return (worker: number) => [out.gpu[worker], out.host[worker], out.disk[worker], out.shared[worker]]
      }
      return { map, tree, chain, send, matchOf }
    }

    test('a worker matches the leading blocks that it stored, and others match none', () => {
      const { tree, chain, send, matchOf } = setUp()
      assert.equal(send(0, tree.store(chain.slice(0, 5))).storedBlocks, 5)
      assert.deepEqual(matchOf()(0), [5, 0, 0, 0])
      assert.deepEqual(matchOf()(1), [0, 0, 0, 0])
    })

    test('a run ends at a hole, whatever is held behind it', () => {
      const { tree, chain, send, matchOf } = setUp()
      send(0, tree.store(chain))
      send(0, tree.remove([chain[3]!]))
      assert.deepEqual(matchOf()(0), [3, 0, 0, 0])
      send(0, tree.store([chain[3]!]))
      assert.deepEqual(matchOf()(0), [8, 0, 0, 0])
    })

    test('a run goes on through tiers, each block counted in its best one', () => {
      const { tree, chain, send, matchOf } = setUp()
      send(0, tree.store(chain.slice(0, 6), { tier: 1 }))
      send(0, tree.store(chain.slice(0, 2)))
      send(0, tree.store(chain.slice(6), { tier: 2 }))
      assert.deepEqual(matchOf()(0), [2, 4, 2, 0])
    })

    test('shared blocks count for every worker, directly after its run only', () => {
      const { tree, chain, send, matchOf } = setUp()
      send(0, tree.store(chain.slice(0, 3)))
      send(1, tree.store(chain.slice(0, 6), { tier: 3 }))
      const match = matchOf()
      assert.deepEqual(match(0), [3, 0, 0, 3])
      assert.deepEqual(match(1), [0, 0, 0, 6])
      assert.deepEqual(match(2), [0, 0, 0, 6])
      send(1, tree.remove([chain[3]!], { tier: 3 }))
      assert.deepEqual(matchOf()(0), [3, 0, 0, 0])
      assert.deepEqual(matchOf()(2), [0, 0, 0, 3])
    })

    test('blocks named by hash alone count where the worker has told their tokens in another tier', () => {
      const { tree, chain, send, matchOf } = setUp()
      send(0, tree.store(chain.slice(0, 4)))
      const outcome = send(0, tree.present(chain.slice(0, 6), { tier: 1 }))
      assert.equal(outcome.storedBlocks, 4)
      assert.equal(outcome.unknownHashes, 2)
      send(0, tree.remove(chain.slice(0, 4)))
      assert.deepEqual(matchOf()(0), [0, 4, 0, 0])
      assert.equal(send(0, tree.remove(chain.slice(2, 5), { tier: 1 })).unknownRemovals, 1)
      assert.deepEqual(matchOf()(0), [0, 2, 0, 0])
    })

    test('a group that is only ever named by unknown hashes hides no other group’s blocks', () => {
      const { tree, chain, send, matchOf } = setUp()
      send(0, tree.store(chain.slice(0, 4), { tier: 1 }))
      send(0, tree.present(chain.slice(4), { tier: 1, group: 1 }))
      assert.deepEqual(matchOf()(0), [0, 4, 0, 0])
    })

    test('hashes and parents that a worker does not know itself are looked up among its kin of the same block size', () => {
      const { map, tree, chain, send, matchOf } = setUp()
      send(0, tree.store(chain.slice(0, 4)))
      map.addWorker(slotOf(3), { countsStores: false, blockSize: 16, kin: [slotOf(0)] })
      assert.equal(send(3, tree.present(chain.slice(0, 2), { tier: 3 })).unknownHashes, 0)
      send(3, tree.store(chain.slice(4), { tier: 3 }))
      assert.deepEqual(matchOf()(0), [4, 0, 0, 4])
      assert.deepEqual(matchOf()(1), [0, 0, 0, 2])
      send(3, tree.store(chain.slice(2, 4), { tier: 3 }))
      assert.deepEqual(matchOf()(1), [0, 0, 0, 8])
      map.clear(slotOf(0), 1)
      assert.deepEqual(matchOf()(0), [0, 0, 0, 8])
      map.addWorker(slotOf(2), { countsStores: true, blockSize: 32, kin: [slotOf(3)] })
      assert.equal(send(2, tree.present(chain.slice(0, 2))).unknownHashes, 2)
    })

    test('a block whose parent a worker’s kin announces later is found once it is adopted', () => {
      const { map, tree, chain, send, matchOf } = setUp()
      map.addWorker(slotOf(3), { countsStores: false, blockSize: 16, kin: [slotOf(0)] })
      send(3, tree.store(chain.slice(2), { tier: 3 }))
      send(0, tree.store(chain.slice(0, 2)))
      map.adopt(slotOf(3))
      assert.deepEqual(matchOf()(0), [2, 0, 0, 6])
      assert.equal(map.stats().orphans, 0)
    })

    test('a worker is matched by the query of its own block size only', () => {
      const { map, tree, chain, send, matchOf } = setUp()
      map.addWorker(slotOf(3), { countsStores: true, blockSize: null })
      send(0, tree.store(chain))
      send(3, tree.store(chain))
      assert.deepEqual(matchOf(chain, 32)(0), [0, 0, 0, 0])
      assert.deepEqual(matchOf()(3), [0, 0, 0, 0])
      map.addWorker(slotOf(3), { countsStores: true, blockSize: 16 })
      assert.deepEqual(matchOf()(3), [8, 0, 0, 0])
    })

    test('a batch delivered twice changes nothing', () => {
      const { map, tree, chain, matchOf } = setUp()
      const batch = batchOf(0, 4, [tree.store(chain)])
      assert.equal(map.apply(batch).ignored, false)
      assert.equal(map.apply(batch).ignored, true)
      map.apply(batchOf(0, 5, [tree.remove(chain)]))
      assert.deepEqual(matchOf()(0), [0, 0, 0, 0])
    })

    test('where stores are counted, a block stored twice takes two removals', () => {
      const { tree, chain, send, matchOf } = setUp()
      send(0, tree.store(chain))
      send(0, tree.store(chain))
      send(0, tree.remove(chain))
      assert.deepEqual(matchOf()(0), [8, 0, 0, 0])
      send(0, tree.remove(chain))
      assert.deepEqual(matchOf()(0), [0, 0, 0, 0])
    })

    test('where stores are not counted, one removal is enough', () => {
      const { tree, chain, send, matchOf } = setUp({ countsStores: false })
      send(0, tree.store(chain))
      send(0, tree.store(chain))
      send(0, tree.remove(chain))
      assert.deepEqual(matchOf()(0), [0, 0, 0, 0])
    })

    test('a removal from every tier takes a block from all that hold it, and is known if one did', () => {
      const { tree, chain, send, matchOf } = setUp({ countsStores: false })
      send(0, tree.store(chain))
      send(0, tree.store(chain.slice(2, 4), { tier: 1 }))
      const outcome = send(0, tree.remove(chain.slice(3), { tier: null }))
      assert.deepEqual([outcome.removedBlocks, outcome.unknownRemovals], [5, 0])
      assert.deepEqual(matchOf()(0), [3, 0, 0, 0])
      assert.equal(send(0, tree.remove(chain.slice(3), { tier: null })).unknownRemovals, 5)
    })

    test('a removal of an unknown hash is ignored and counted', () => {
      const { tree, chain, send, matchOf } = setUp()
      send(0, tree.store(chain))
      const outcome = send(1, tree.remove(chain.slice(0, 2)))
      assert.deepEqual([outcome.removedBlocks, outcome.unknownRemovals], [0, 2])
      assert.deepEqual(matchOf()(0), [8, 0, 0, 0])
    })

    test('a block with an unknown parent gives no credit until the parent arrives, then its whole line does', () => {
      const { map, tree, chain, send, matchOf } = setUp()
      assert.equal(send(0, tree.store(chain.slice(6))).orphaned, 2)
      assert.equal(send(0, tree.store(chain.slice(3, 6))).orphaned, 3)
      assert.deepEqual(map.workerBlocks(slotOf(0)), { gpu: 0, host: 0, disk: 0 })
      assert.equal(send(0, tree.store(chain.slice(0, 3))).storedBlocks, 8)
      assert.deepEqual(matchOf()(0), [8, 0, 0, 0])
      assert.equal(map.stats().orphans, 0)
    })

    test('a removal drops a waiting block', () => {
      const { map, tree, chain, send, matchOf } = setUp()
      send(0, tree.store(chain.slice(4)))
      assert.equal(send(0, tree.remove([chain[5]!])).removedBlocks, 1)
      send(0, tree.store(chain.slice(0, 4)))
      assert.deepEqual(matchOf()(0), [5, 0, 0, 0])
      assert.equal(map.stats().orphans, 2)
    })

    test('waiting blocks are bounded; the oldest is dropped and counted', () => {
      const { map, tree, chain, send, matchOf } = setUp({ orphansPerWorker: 3 })
      send(0, tree.store(chain.slice(4)))
      assert.deepEqual([map.stats().orphans, map.stats().orphansDropped], [3, 1])
      send(0, tree.store(chain.slice(0, 5)))
      assert.deepEqual(matchOf()(0), [8, 0, 0, 0])
    })

    test('clear forgets one worker wholly, its counts and waiting blocks too', () => {
      const { map, tree, chain, send, matchOf } = setUp()
      send(0, tree.store(chain.slice(0, 2)), tree.store(chain.slice(5)))
      send(1, tree.store(chain))
      map.clear(slotOf(0), 1)
      assert.deepEqual(matchOf()(0), [0, 0, 0, 0])
      assert.deepEqual(matchOf()(1), [8, 0, 0, 0])
      assert.deepEqual(map.workerBlocks(slotOf(0)), { gpu: 0, host: 0, disk: 0 })
      assert.equal(map.stats().orphans, 0)
      assert.equal(map.apply(batchOf(0, 0, [tree.remove(chain)], 1)).unknownRemovals, 8)
    })

    test('a batch of an older epoch is ignored, and one of a newer epoch clears first', () => {
      const { map, tree, chain, send, matchOf } = setUp()
      send(0, tree.store(chain))
      assert.equal(map.apply(batchOf(0, 0, [tree.store(chain.slice(0, 2))], 3)).storedBlocks, 2)
      assert.deepEqual(matchOf()(0), [2, 0, 0, 0])
      assert.equal(map.apply(batchOf(0, 9, [tree.store(chain)], 2)).ignored, true)
      assert.deepEqual(matchOf()(0), [2, 0, 0, 0])
    })

    test('a clear inside a batch parts what came before it from what comes after', () => {
      const { tree, chain, send, matchOf } = setUp()
      send(0, tree.store(chain), { kind: 'clear' }, tree.store(chain.slice(0, 3)))
      assert.deepEqual(matchOf()(0), [3, 0, 0, 0])
    })

    test('with several cache groups a block counts only while all of them hold it', () => {
      const { map, tree, chain, send, matchOf } = setUp()
      send(0, tree.store(chain, { group: 4 }))
      assert.deepEqual(matchOf()(0), [8, 0, 0, 0])
      send(0, tree.store(chain.slice(0, 6), { group: 7 }))
      assert.deepEqual(matchOf()(0), [6, 0, 0, 0])
      assert.equal(map.workerBlocks(slotOf(0)).gpu, 6)
      send(0, tree.remove([chain[5]!], { group: 4 }))
      assert.deepEqual(matchOf()(0), [5, 0, 0, 0])
      assert.equal(map.workerBlocks(slotOf(0)).gpu, 5)
    })

    test('a block that has two engine hashes is held until both are removed', () => {
      const { tree, chain, send, matchOf } = setUp()
      send(0, tree.store(chain))
      send(0, tree.store(chain, { alternative: 1 }))
      send(0, tree.remove(chain))
      assert.deepEqual(matchOf()(0), [8, 0, 0, 0])
      send(0, tree.remove(chain, { alternative: 1 }))
      assert.deepEqual(matchOf()(0), [0, 0, 0, 0])
    })

    test('a block that another tier knows needs no parent to be stored again', () => {
      const { tree, chain, send, matchOf } = setUp()
      send(0, tree.store(chain.slice(0, 4), { tier: 1 }))
      send(0, tree.store(chain.slice(4)))
      send(0, tree.remove([chain[3]!], { tier: 1 }))
      assert.equal(send(0, tree.store(chain.slice(4), { tier: 1 })).storedBlocks, 4)
      send(0, tree.remove(chain.slice(4)))
      send(0, tree.store([chain[3]!]))
      assert.deepEqual(matchOf()(0), [1, 7, 0, 0])
    })

    test('a slot given to another worker has nothing of the first', () => {
      const { map, tree, chain, send, matchOf } = setUp()
      send(0, tree.store(chain))
      map.removeWorker(slotOf(0))
      assert.equal(map.apply(batchOf(0, 50, [tree.store(chain)])).ignored, true)
      map.addWorker(slotOf(0), { countsStores: false, blockSize: 16 })
      assert.deepEqual(matchOf()(0), [0, 0, 0, 0])
      assert.equal(map.apply(batchOf(0, 0, [tree.store(chain)])).storedBlocks, 8)
      assert.deepEqual(matchOf()(0), [8, 0, 0, 0])
    })

    test('a new block size clears the worker, a block size learned late does not', () => {
      const { map, tree, chain, send, matchOf } = setUp()
      send(0, tree.store(chain))
      map.addWorker(slotOf(0), { countsStores: true, blockSize: 32 })
      assert.deepEqual(map.workerBlocks(slotOf(0)), { gpu: 0, host: 0, disk: 0 })
      assert.deepEqual(matchOf(chain, 32)(0), [0, 0, 0, 0])
    })

    describe('what is assumed of a worker that announces nothing', () => {
      const hold = (tree: KvTree, path: readonly number[]): KvEvent => {
        const parent = tree.parents[path[0]!]!
        return { kind: 'hold', tier: 0, keys: tree.keysOf(path), parent: parent < 0 ? null : tree.keys[parent]! }
      }
      const letGo = (tree: KvTree, path: readonly number[]): KvEvent => ({
        kind: 'remove',
        tier: 0,
        group: 0,
        engineHashes: tree.keysOf(path),
      })

      test('blocks held by their keys are matched beside announced ones, and removed by their keys', () => {
        const { map, tree, chain, send, matchOf } = setUp()
        send(0, tree.store(chain))
        assert.equal(map.assume(slotOf(1), [hold(tree, chain.slice(0, 3))]).storedBlocks, 3)
        assert.equal(map.assume(slotOf(1), [hold(tree, chain.slice(3, 6))]).storedBlocks, 3)
        assert.deepEqual(
          [matchOf()(0), matchOf()(1)],
          [
            [8, 0, 0, 0],
            [6, 0, 0, 0],
          ],
        )
        assert.deepEqual(map.workerBlocks(slotOf(1)), { gpu: 6, host: 0, disk: 0 })
        assert.equal(map.assume(slotOf(1), [letGo(tree, chain.slice(2, 6))]).removedBlocks, 4)
        assert.deepEqual(matchOf()(1), [2, 0, 0, 0])
        assert.deepEqual(matchOf()(0), [8, 0, 0, 0])
      })

      test('a block is held once however often that is said, where stores count too', () => {
        const { map, tree, chain, matchOf } = setUp()
        for (let times = 0; times < 3; times++) map.assume(slotOf(0), [hold(tree, chain)])
        assert.deepEqual(map.workerBlocks(slotOf(0)), { gpu: 8, host: 0, disk: 0 })
        map.assume(slotOf(0), [letGo(tree, chain)])
        assert.deepEqual(matchOf()(0), [0, 0, 0, 0])
        assert.equal(map.stats().entries, 0)
      })

      test('blocks below one that is not held are refused', () => {
        const { map, tree, chain, matchOf } = setUp()
        assert.equal(map.assume(slotOf(0), [hold(tree, chain.slice(2))]).parentEvicted, 6)
        assert.deepEqual(map.workerBlocks(slotOf(0)), { gpu: 0, host: 0, disk: 0 })
        assert.equal(map.assume(slotOf(0), [hold(tree, chain.slice(0, 2)), hold(tree, chain.slice(2))]).storedBlocks, 8)
        assert.deepEqual(matchOf()(0), [8, 0, 0, 0])
      })

      test('the first batch of events clears what was assumed, and the first assumption what was announced', () => {
        const { map, tree, chain, send, matchOf } = setUp()
        map.assume(slotOf(0), [hold(tree, chain)])
        send(0, tree.store(chain.slice(0, 2)))
        assert.deepEqual(matchOf()(0), [2, 0, 0, 0])
        send(0, tree.store(chain.slice(2, 4)))
        assert.deepEqual(matchOf()(0), [4, 0, 0, 0])
        map.assume(slotOf(0), [hold(tree, chain.slice(0, 3))])
        assert.deepEqual(matchOf()(0), [3, 0, 0, 0])
        map.retract(slotOf(0))
        assert.deepEqual(matchOf()(0), [0, 0, 0, 0])
      })

      test('to retract leaves alone what was announced; a batch that is not applied clears nothing', () => {
        const { map, tree, chain, send, matchOf } = setUp()
        send(0, tree.store(chain))
        map.retract(slotOf(0))
        assert.deepEqual(matchOf()(0), [8, 0, 0, 0])
        map.clear(slotOf(0), 4)
        map.assume(slotOf(0), [hold(tree, chain.slice(0, 5))])
        assert.equal(map.apply(batchOf(0, 9, [tree.store(chain)], 3)).ignored, true)
        assert.deepEqual(matchOf()(0), [5, 0, 0, 0])
        assert.equal(map.assume(slotOf(3), [hold(tree, chain)]).ignored, true)
      })
    })

    test('blocks are counted by worker and tier', () => {
      const { map, tree, chain, send } = setUp()
      send(0, tree.store(chain), tree.store(chain.slice(0, 3), { tier: 1 }), tree.store(chain.slice(0, 2), { tier: 2 }))
      send(1, tree.store(chain.slice(0, 4)), tree.store(chain, { tier: 3 }))
      assert.deepEqual(map.workerBlocks(slotOf(0)), { gpu: 8, host: 3, disk: 2 })
      assert.deepEqual(map.stats().blocksByTier, [12, 3, 2, 8])
      assert.equal(map.stats().entries, 25)
    })
  })
}
