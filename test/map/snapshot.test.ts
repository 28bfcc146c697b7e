import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { chainKeys } from '../../src/kv/keys.ts'
import { FlatMap } from '../../src/map/flat-map.ts'
import {
  assumptionOf,
  blockSizeOf,
  eventOf,
  eventPlan,
  growTree,
  step,
  treeBlocks,
  treeShape,
  workers,
  type Step,
} from '../support/kv-log.ts'
import { batchOf, emptyMatch, slotOf, type KvTree } from '../support/kv-tree.ts'
import { factsOf, restored, shortSlices, snapshotOf } from '../support/map-snapshots.ts'
import { NaiveMap } from '../support/naive-map.ts'
import { randomWords } from '../support/random.ts'

const runs = {
  numRuns: Number(process.env['FC_RUNS'] ?? 300),
  ...(process.env['FC_SEED'] === undefined ? {} : { seed: Number(process.env['FC_SEED']) }),
}

const budgetBytes = 512 * 1024

/** Two maps that the same happens to. */
class Twins {
  readonly naive = new NaiveMap()
  flat = new FlatMap({ budgetBytes, maxWorkers: 16 })
  readonly trees: readonly KvTree[]
  readonly epochs = [0, 0, 0, 0]
  readonly countsStores: boolean
  sequence = 0

  constructor(shape: readonly number[], countsStores: boolean) {
    this.trees = [growTree(1, shape), growTree(2, shape)]
    this.countsStores = countsStores
    for (let slot = 0; slot < workers; slot++) this.join(slot)
  }

  join(slot: number, maps: readonly (NaiveMap | FlatMap)[] = [this.naive, this.flat]): void {
    const kin = slot === 2 ? [slotOf(0), slotOf(3)] : []
    const options = { countsStores: this.countsStores || slot === 2, blockSize: blockSizeOf(slot), kin }
    for (const map of maps) map.addWorker(slotOf(slot), options)
  }

  treeOf(slot: number): KvTree {
    return this.trees[slot === 3 ? 1 : 0]!
  }

  take(at: Step): void {
    const maps = [this.naive, this.flat]
    if (at.kind === 'sweep') this.flat.sweep(at.steps)
    else if (at.kind === 'join') this.join(at.worker)
    else if (at.kind === 'assume') {
      const events = at.events.map((plan) => assumptionOf(this.treeOf(at.worker), plan))
      for (const map of maps) map.assume(slotOf(at.worker), events)
    } else if (at.kind === 'retract') for (const map of maps) map.retract(slotOf(at.worker))
    else if (at.kind === 'leave') {
      for (const map of maps) map.removeWorker(slotOf(at.worker))
      this.epochs[at.worker] = 0
    } else if (at.kind === 'clear') {
      const epoch = ++this.epochs[at.worker]!
      for (const map of maps) map.clear(slotOf(at.worker), epoch)
    } else if (at.kind === 'adopt') for (const map of maps) map.adopt(slotOf(at.worker))
    else if (at.kind === 'restart') this.epochs[at.worker]!++
    else if (at.kind === 'batch') {
      const events = at.events.map((plan) => eventOf(this.treeOf(at.worker), plan))
      const batch = batchOf(at.worker, this.sequence++, events, this.epochs[at.worker])
      assert.deepEqual({ ...this.flat.apply(batch) }, this.naive.apply(batch))
    }
  }

  /** What the naive map holds of a worker from now on is nothing, and the flat one has the worker anew. */
  beginAnew(slot: number): void {
    this.naive.removeWorker(slotOf(slot))
    this.join(slot, [this.naive])
    this.epochs[slot] = 0
  }

  assertSame(): void {
    const expected = emptyMatch(workers)
    const actual = emptyMatch(workers)
    for (let block = 0; block < treeBlocks; block++) {
      const queries = this.trees.map((tree, i) => ({ blockSize: 16 << i, keys: tree.keysOf(tree.pathTo(block)) }))
      this.naive.match(queries, expected)
      this.flat.match(queries, actual)
      assert.deepEqual(actual, expected, `path to block ${block}`)
    }
    for (let slot = 0; slot < workers; slot++)
      assert.deepEqual(this.flat.workerBlocks(slotOf(slot)), this.naive.workerBlocks(slotOf(slot)))
    const { entries, blocksByTier } = this.naive.stats()
    assert.deepEqual([this.flat.stats().entries, this.flat.stats().blocksByTier], [entries, blocksByTier])
  }
}

test('a map restored from a snapshot is the map that it was made of, whatever happens before, meanwhile and after', async () => {
  const logs = fc.record({
    shape: treeShape,
    before: fc.array(step, { maxLength: 40 }),
    meanwhile: fc.array(step, { maxLength: 40 }),
    after: fc.array(step, { maxLength: 30 }),
    countsStores: fc.boolean(),
    /** Has no position, and is left out. */
    unknown: fc.option(fc.nat(workers - 1)),
    /** Gets a batch of its own while the snapshot is read. */
    early: fc.option(fc.constantFrom(0, 1, 3)),
    earlyEvents: fc.array(eventPlan, { minLength: 1, maxLength: 2 }),
  })
  const property = fc.asyncProperty(logs, async (log) => {
    const twins = new Twins(log.shape, log.countsStores)
    for (const at of log.before) twins.take(at)
    const left = [...log.meanwhile]
    const kept = await snapshotOf(twins.flat, {
      factsOf: (slot) => (slot === log.unknown ? null : factsOf(slot, twins.sequence)),
      pace: shortSlices(() => {
        const at = left.shift()
        if (at !== undefined) twins.take(at)
      }),
    })

    const { holders } = twins.flat.parts
    twins.flat = new FlatMap({ budgetBytes, maxWorkers: 16 })
    twins.naive.dropOrphans()
    for (let slot = 0; slot < workers; slot++) if (holders.get(slotOf(slot)) !== undefined) twins.join(slot)
    const inSnapshot = new Set(kept.exported.header.parts.map(({ worker }) => Number(worker.slice(1))))
    for (let slot = 0; slot < workers; slot++) {
      const isThere = holders.get(slotOf(slot)) !== undefined
      if (isThere && (!inSnapshot.has(slot) || slot === log.early)) twins.beginAnew(slot)
    }
    let isEarly = log.early !== null
    const { parts } = await restored(twins.flat, kept, {
      pace: shortSlices(() => {
        if (!isEarly) return
        isEarly = false
        twins.take({ kind: 'batch', worker: log.early ?? 0, events: log.earlyEvents, again: false })
      }),
    })
    if (isEarly) twins.take({ kind: 'batch', worker: log.early ?? 0, events: log.earlyEvents, again: false })
    for (const part of parts) {
      const { epoch, lastSequence } = holders.get(part.slot)!
      const isTaken = part.commit({ epoch, lastSequence, isConcealed: false })
      assert.equal(isTaken, part.slot !== (log.early as number | null))
    }
    twins.assertSame()
    for (const at of log.after) {
      twins.take(at)
      twins.assertSame()
    }
    while (twins.flat.sweep(100));
    twins.assertSame()
    const { keys, aliases } = twins.naive.stats()
    assert.deepEqual([twins.flat.stats().keys, twins.flat.stats().aliases], [keys, aliases])
  })
  await fc.assert(property, runs)
})

const chainBlocks = 24

/** A map of which worker 0 holds a chain, and worker 1 its first half. */
function filled(): { map: FlatMap; tree: KvTree; chain: number[] } {
  const map = new FlatMap({ budgetBytes, maxWorkers: 16 })
  const tree = growTree(7, [])
  const chain = tree.growChain(chainBlocks)
  for (const slot of [0, 1]) map.addWorker(slotOf(slot), { countsStores: true, blockSize: 16 })
  map.apply(batchOf(0, 0, [tree.store(chain)]))
  map.apply(batchOf(1, 0, [tree.store(chain.slice(0, chainBlocks / 2))]))
  return { map, tree, chain }
}

function emptyMap(slots: readonly number[] = [0, 1]): FlatMap {
  const map = new FlatMap({ budgetBytes, maxWorkers: 16 })
  for (const slot of slots) map.addWorker(slotOf(slot), { countsStores: true, blockSize: 16 })
  return map
}

function matched(map: FlatMap, tree: KvTree, chain: readonly number[]): number[] {
  const out = emptyMatch(2)
  map.match([{ blockSize: 16, keys: tree.keysOf(chain) }], out)
  return [...out.gpu]
}

const standing = { epoch: 0, lastSequence: 0, isConcealed: false }

test('a part counts once it is committed, and one that is concealed once it is revealed', async () => {
  const { map, tree, chain } = filled()
  const target = emptyMap()
  const { parts } = await restored(target, await snapshotOf(map))
  assert.deepEqual(matched(target, tree, chain), [0, 0])
  assert.equal(parts[0]?.commit(standing), true)
  assert.equal(parts[1]?.commit({ ...standing, isConcealed: true }), true)
  assert.deepEqual(matched(target, tree, chain), [24, 0])
  // Batches go on from there, seen or not.
  target.apply(batchOf(1, 1, [tree.store(chain.slice(12, 14))]))
  assert.deepEqual(matched(target, tree, chain), [24, 0])
  target.reveal(slotOf(1))
  assert.deepEqual(matched(target, tree, chain), [24, 14])
})

test('a concealed worker that is cleared is seen again, and is in no snapshot before it is revealed', async () => {
  const { map, tree, chain } = filled()
  const target = emptyMap()
  const { parts } = await restored(target, await snapshotOf(map))
  for (const part of parts) part.commit({ ...standing, isConcealed: true })
  assert.deepEqual((await snapshotOf(target)).exported.header.parts, [])
  target.clear(slotOf(0), 1)
  target.apply(batchOf(0, 0, [tree.store(chain.slice(0, 3))], 1))
  assert.deepEqual(matched(target, tree, chain), [3, 0])
})

test('parts of unknown workers are passed over and leave nothing in the map', async () => {
  const { map, tree, chain } = filled()
  const target = emptyMap([1])
  const { parts } = await restored(target, await snapshotOf(map))
  assert.deepEqual(
    parts.map(({ slot }) => slot),
    [1],
  )
  for (const part of parts) part.discard()
  while (target.sweep(100));
  const { index } = target.parts.blocks
  for (const [low, high] of chain.map((block) => tree.keys[block]!))
    assert.equal(index.find(low | 0, high | 0), 0, 'an entry that nobody holds')
})

test('parts are told apart by who they are of, a store beside an engine among them, and keep what is said of them', async () => {
  const { map, tree, chain } = filled()
  const state = { groups: [0, 4] }
  const kept = await snapshotOf(map, {
    factsOf: (slot) => ({ ...factsOf(slot, 9), worker: 'w', part: slot === 0 ? 'engine' : 'chunks', state }),
    logPosition: () => '17-3',
  })
  const target = emptyMap()
  const { header, parts } = await restored(target, kept, { slotOf: ({ part }) => slotOf(part === 'chunks' ? 0 : 1) })
  for (const part of parts) part.commit(standing)
  assert.deepEqual(matched(target, tree, chain), [12, 24])
  assert.equal(header.logPosition, '17-3')
  assert.deepEqual(
    parts.map(({ part }) => [part.part, part.position, part.state, part.blockSize]),
    [
      ['engine', { sequence: 9, timestamp: 1 }, state, 16],
      ['chunks', { sequence: 9, timestamp: 1 }, state, 16],
    ],
  )
})

test('a part of blocks of another size is passed over, and one of a worker whose size is not known tells it', async () => {
  const { map, tree, chain } = filled()
  const target = new FlatMap({ budgetBytes, maxWorkers: 16 })
  target.addWorker(slotOf(0), { countsStores: true, blockSize: 32 })
  target.addWorker(slotOf(1), { countsStores: true, blockSize: null })
  const { parts } = await restored(target, await snapshotOf(map))
  for (const part of parts) part.commit(standing)
  assert.deepEqual(matched(target, tree, chain), [0, 12])
})

test('a snapshot that is damaged, cut off, of another version or another secret is refused, and the map stays as it is', async () => {
  const { map, tree, chain } = filled()
  const whole = await snapshotOf(map)
  const [first = Buffer.alloc(0)] = whole.chunks
  const flipped = (frame: Buffer, at: number): Buffer => {
    const damaged = Buffer.from(frame)
    damaged[at] = (damaged[at] ?? 0) ^ 1
    return damaged
  }
  const cases = [
    ['checksum', { header: whole.header, chunks: [flipped(first, first.length - 1)] }],
    ['checksum', { header: flipped(whole.header, 40), chunks: whole.chunks }],
    ['version', { header: flipped(whole.header, 4), chunks: whole.chunks }],
    ['malformed', { header: flipped(whole.header, 0), chunks: whole.chunks }],
    ['malformed', { header: first, chunks: whole.chunks }],
    ['truncated', { header: whole.header.subarray(0, 50), chunks: whole.chunks }],
    ['truncated', { header: whole.header, chunks: [first.subarray(0, 50)] }],
    ['truncated', { header: whole.header, chunks: [] }],
    ['truncated', { header: whole.header, chunks: (await snapshotOf(map, { id: new Uint8Array(8) })).chunks }],
    ['fingerprint', await snapshotOf(map, { fingerprint: 'f2' })],
  ] as const
  for (const [reason, kept] of cases) {
    const target = emptyMap()
    target.apply(batchOf(1, 0, [tree.store(chain.slice(0, 2))]))
    const { keys, entries, aliases } = target.stats()
    await assert.rejects(restored(target, { header: kept.header, chunks: [...kept.chunks] }), { reason })
    while (target.sweep(100));
    assert.deepEqual(matched(target, tree, chain), [0, 2], reason)
    const after = target.stats()
    assert.deepEqual([after.keys, after.entries, after.aliases], [keys, entries, aliases])
    const again = await restored(target, whole)
    for (const part of again.parts) part.commit(standing)
    assert.deepEqual(matched(target, tree, chain), [24, 2], reason)
  }
})

test('any byte that is changed is found out', async () => {
  const { map } = filled()
  const { header, chunks } = await snapshotOf(map)
  const property = fc.asyncProperty(fc.nat(), fc.integer({ min: 1, max: 255 }), async (draw, change) => {
    const chunk = Buffer.from(chunks[0] ?? [])
    chunk[draw % chunk.length]! ^= change
    await assert.rejects(restored(emptyMap(), { header, chunks: [chunk] }), { code: 'SNAPSHOT_UNUSABLE' })
  })
  await fc.assert(property, { numRuns: 100 })
})

test('a map at its budget, which evicts while its snapshot is made and while it is read, credits nobody with what is not there', async () => {
  const naive = new NaiveMap()
  const flat = new FlatMap({ budgetBytes: 256 * 1024, maxWorkers: 16 })
  const tree = growTree(3, [])
  const chains = Array.from({ length: 300 }, () => tree.growChain(40))
  let at = 0
  for (const map of [naive, flat])
    for (const slot of [0, 1]) map.addWorker(slotOf(slot), { countsStores: true, blockSize: 16 })
  const next = (): void => {
    const chain = chains[at % chains.length]!
    const slot = at % 2
    const events = [tree.store(chain)]
    if (at >= 4) events.unshift(tree.remove(chains[(at - 4) % chains.length]!.slice(30)))
    for (const map of [naive, flat]) map.apply(batchOf(slot, at, events))
    at++
  }
  while (at < 200) next()
  assert.ok(flat.stats().evictions > 0)
  const kept = await snapshotOf(flat, { pace: shortSlices(() => at < chains.length && next()) })
  assert.ok(at > 220, 'batches were applied meanwhile')
  const target = new FlatMap({ budgetBytes: 200 * 1024, maxWorkers: 16 })
  for (const slot of [0, 1]) target.addWorker(slotOf(slot), { countsStores: true, blockSize: 16 })
  const { parts } = await restored(target, kept)
  for (const part of parts) part.commit(standing)
  let credited = 0
  for (const chain of chains.filter((_, i) => i % 8 === 0)) {
    const [actual, expected] = [emptyMatch(2), emptyMatch(2)]
    const queries = [{ blockSize: 16, keys: tree.keysOf(chain) }]
    target.match(queries, actual)
    naive.match(queries, expected)
    for (const slot of [0, 1]) assert.ok(actual.gpu[slot]! <= expected.gpu[slot]!)
    credited += actual.gpu[0]! + actual.gpu[1]!
  }
  assert.ok(credited > 0)
  assert.ok(target.stats().bytes <= target.stats().budgetBytes)
})

test('a snapshot of many chunks is the map', async () => {
  const map = new FlatMap({ budgetBytes: 32 * 2 ** 20, maxWorkers: 16 })
  for (const slot of [0, 1, 2]) map.addWorker(slotOf(slot), { countsStores: true, blockSize: 16 })
  const next = randomWords(5)
  const chains = Array.from({ length: 300 }, (_, i) => {
    const locals = Uint32Array.from({ length: 1000 }, next)
    const keys = new Uint32Array(1000)
    chainKeys(i, 1, locals, keys)
    const engineHashes = Uint32Array.from({ length: 1000 }, next)
    const parent = { kind: 'root', keyLow: i, keyHigh: 1 } as const
    map.apply(batchOf(i % 3, i, [{ kind: 'store', tier: i % 2, group: 0, engineHashes, locals, parent }]))
    return keys
  })
  const kept = await snapshotOf(map, { pace: { ...shortSlices(), sliceMs: 500 } })
  assert.ok(kept.chunks.length > 2)
  const target = new FlatMap({ budgetBytes: 32 * 2 ** 20, maxWorkers: 16 })
  for (const slot of [0, 1, 2]) target.addWorker(slotOf(slot), { countsStores: true, blockSize: 16 })
  for (const part of (await restored(target, kept, { pace: { ...shortSlices(), sliceMs: 500 } })).parts)
    part.commit(standing)
  for (const keys of chains) {
    const [actual, expected] = [emptyMatch(3), emptyMatch(3)]
    map.match([{ blockSize: 16, keys }], expected)
    target.match([{ blockSize: 16, keys }], actual)
    assert.deepEqual(actual, expected)
  }
  const { entries, keys, sets, aliases } = map.stats()
  const after = target.stats()
  assert.deepEqual([after.entries, after.keys, after.sets, after.aliases], [entries, keys, sets, aliases])
})

test('more changes than may wait end the snapshot, and the next one can be made', async () => {
  const { map, tree, chain } = filled()
  let sequence = 1
  const pace = shortSlices(() => {
    for (let n = 0; n < 100; n++) map.apply(batchOf(0, sequence++, [tree.store(chain)]))
  })
  await assert.rejects(snapshotOf(map, { pace, limits: { changes: 1024 } }), { reason: 'overrun' })
  assert.equal((await snapshotOf(map)).exported.header.parts.length, 2)
})

test('what a sink cannot keep ends the snapshot with its error', async () => {
  const { map } = filled()
  const fails = { chunk: () => Promise.reject(new Error('no space')), header: () => Promise.resolve() }
  await assert.rejects(snapshotOf(map, { sink: fails }), { message: 'no space' })
  assert.equal((await snapshotOf(map)).exported.header.parts.length, 2)
})
