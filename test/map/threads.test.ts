import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { FlatMap } from '../../src/map/flat-map.ts'
import { createMapReader } from '../../src/map/reader.ts'
import { batchOf, emptyMatch, KvTree, slotOf } from '../support/kv-tree.ts'
import { control } from '../support/map-reader.thread.ts'
import type { ReaderTask } from '../support/map-reader.thread.ts'
import { randomWords } from '../support/random.ts'

const deadlineMs = 20_000
const rounds = 400

test('a reader made from the shared handle answers as the map does', () => {
  const map = new FlatMap({ budgetBytes: 1 << 20, maxWorkers: 4 })
  const tree = new KvTree(1)
  const chain = tree.growChain(40)
  map.addWorker(slotOf(1), { countsStores: true, blockSize: 16 })
  const reader = createMapReader(structuredClone(map.shared()))
  const out = emptyMatch(4)
  const runOf = (): number => {
    reader.match([{ blockSize: 16, keys: tree.keysOf(chain) }], out)
    return out.gpu[1]!
  }
  assert.equal(runOf(), 0)
  map.apply(batchOf(1, 0, [tree.store(chain)]))
  assert.equal(runOf(), 40)
  map.clear(slotOf(1), 1)
  assert.equal(runOf(), 0)
})

test('a second thread never credits a worker after clear has returned, nor anyone for what was never stored', async () => {
  // Small, so that tables grow, chains are evicted and ids of entries, sets and incarnations are used again.
  const map = new FlatMap({ budgetBytes: 1 << 20, maxWorkers: 8 })
  for (let slot = 0; slot < 4; slot++) map.addWorker(slotOf(slot), { countsStores: true, blockSize: 16 })
  const tree = new KvTree(2)
  const next = randomWords(3)
  const chain = tree.growChain(64)
  const steadyBlocks = 24
  const words = new Int32Array(new SharedArrayBuffer(4 * control.words))
  const sequences = [0, 0, 0, 0]
  const epochs = [0, 0, 0, 0]
  const send = (worker: number, path: readonly number[]): void => {
    map.apply(batchOf(worker, sequences[worker]!++, [tree.store(path)], epochs[worker]))
  }
  send(1, chain.slice(0, steadyBlocks))
  const task: ReaderTask = { handle: map.shared(), words, keys: tree.keysOf(chain), steadyBlocks }
  const thread = new Worker(new URL('../support/map-reader.thread.ts', import.meta.url), { workerData: task })
  await once(thread, 'online')

  const started = performance.now()
  /** Until the reader has done some whole matches from now on. */
  const letRead = (): void => {
    const until = Atomics.load(words, control.reads) + 3
    for (let reads = until - 3; reads < until; reads = Atomics.load(words, control.reads)) {
      Atomics.wait(words, control.reads, reads, 100)
      assert.ok(performance.now() - started < deadlineMs, 'the reader goes on reading')
    }
  }
  const others = [2, 3]
  for (let round = 0; round < rounds; round++) {
    Atomics.add(words, control.state, 1)
    for (let from = 0; from < chain.length; from += 16) send(0, chain.slice(from, from + 16))
    // What the others store is of other prompts, so they never match this one.
    for (const worker of others) send(worker, tree.growChain(8 + (next() % 40)))
    if (round % 8 === 0) letRead()
    map.clear(slotOf(0), ++epochs[0]!)
    sequences[0] = 0
    Atomics.add(words, control.state, 1)
    if (round % 8 === 4) letRead()
    if (round % 50 === 0) for (const worker of others) map.clear(slotOf(worker), ++epochs[worker]!)
    map.sweep(round % 5)
  }
  letRead()
  Atomics.store(words, control.stop, 1)
  await once(thread, 'exit')
  assert.equal(words[control.afterClear], 0)
  assert.equal(words[control.tooMany], 0)
  assert.ok(words[control.hits]! > 0, 'the reader saw worker 0 while it held blocks')
  assert.ok(words[control.steadyHits]! > 0)
})
