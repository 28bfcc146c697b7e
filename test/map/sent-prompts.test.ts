import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Approximate } from '../../src/map/approximate.ts'
import { Coming } from '../../src/map/coming.ts'
import { FlatMap } from '../../src/map/flat-map.ts'
import { SentPrompts } from '../../src/map/sent-prompts.ts'
import { emptyMatch, KvTree, slotOf } from '../support/kv-tree.ts'

/** Worker 0 announces nothing, worker 1 does. */
function setUp() {
  const map = new FlatMap({ budgetBytes: 4 * 1024 * 1024, maxWorkers: 8 })
  for (const slot of [0, 1]) map.addWorker(slotOf(slot), { countsStores: true, blockSize: 16 })
  const coming = new Coming({ requests: 64 })
  const approximate = new Approximate({
    map,
    limits: { capacityBlocks: 1000, ttlMs: 1e9 },
    isAnnounced: (slot) => slot === 1,
  })
  const sent = new SentPrompts({ coming, approximate })
  const tree = new KvTree(1)
  /** Blocks that are held and those that are coming, at a time. */
  const known = (path: readonly number[], slot: number, nowMs: number): readonly number[] => {
    const match = emptyMatch(2)
    const out = new Uint32Array(2)
    const queries = [{ blockSize: 16, keys: tree.keysOf(path) }]
    map.match(queries, match)
    coming.match(queries, match, nowMs, out)
    return [match.gpu[slot]!, out[slot]!]
  }
  const send = (path: readonly number[], slot: number, nowMs: number, predictedMs = 100) => {
    const [believedBlocks = 0] = known(path, slot, nowMs)
    const prompt = { slot: slotOf(slot), blockSize: 16, keys: tree.keysOf(path), believedBlocks, capacityBlocks: null }
    return sent.sent(prompt, predictedMs, nowMs)
  }
  return { sent, tree, known, send }
}

test('a prompt is coming until its first token, and then held where no events will tell', () => {
  const { sent, tree, known, send } = setUp()
  const prompt = tree.growChain(6)
  const [silent, telling] = [send(prompt, 0, 0), send(prompt, 1, 0)]
  assert.deepEqual(
    [known(prompt, 0, 10), known(prompt, 1, 10)],
    [
      [0, 6],
      [0, 6],
    ],
  )
  for (const underWay of [silent, telling]) sent.computed(underWay, 100)
  assert.deepEqual(known(prompt, 0, 101), [6, 0])
  assert.deepEqual(known(prompt, 1, 101), [0, 6], 'events need a moment')
  assert.deepEqual(known(prompt, 1, 350), [0, 0], 'and were evicted since if they told nothing')
})

test('a prompt that failed before its first token is not coming, and one that broke off after it was computed', () => {
  const { sent, tree, known, send } = setUp()
  const prompt = tree.growChain(6)
  sent.ended(send(prompt, 0, 0))
  assert.deepEqual(known(prompt, 0, 1), [0, 0])
  const cut = send(prompt, 0, 2)
  sent.computed(cut, 3)
  sent.ended(cut)
  assert.deepEqual(known(prompt, 0, 4), [6, 0])
})

test('an answer in one piece shows that its prompt was computed', () => {
  const { sent, tree, known, send } = setUp()
  const prompt = tree.growChain(6)
  const whole = send(prompt, 0, 0)
  sent.answered(whole, null, 900)
  sent.ended(whole)
  assert.deepEqual(known(prompt, 0, 901), [6, 0])
})

test('a prompt is expected for a few times its prefill, and two seconds at least', () => {
  const { tree, known, send } = setUp()
  const [short, long] = [tree.growChain(3), tree.growChain(3)]
  send(short, 1, 0, 10)
  send(long, 1, 0, 5000)
  assert.deepEqual(
    [known(short, 1, 1999), known(short, 1, 2000)],
    [
      [0, 3],
      [0, 0],
    ],
  )
  assert.deepEqual(
    [known(long, 1, 19_999), known(long, 1, 20_000)],
    [
      [0, 3],
      [0, 0],
    ],
  )
})

test('what a coarser engine does not find for its page size is no loss; more than that is', () => {
  const { sent, tree, known, send } = setUp()
  const shared = tree.growChain(30)
  const [one, other] = [tree.growChain(4, shared.at(-1)), tree.growChain(4, shared.at(-1))]
  sent.answered(send([...shared, ...one], 0, 0), 0, 1)
  sent.answered(send([...shared, ...other], 0, 2), 15 * 16, 3)
  assert.deepEqual(known([...shared, ...one], 0, 4), [34, 0])
  sent.answered(send([...shared, ...other], 0, 5), 14 * 16, 6)
  assert.deepEqual(known([...shared, ...one], 0, 1000), [30, 0], 'what hung below is gone, its own blocks are there')
})
