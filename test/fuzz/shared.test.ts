import { test } from 'node:test'
import assert from 'node:assert/strict'
import { decodeShared, encodeShared, type SharedRecord } from '../../src/replication/shared-record.ts'
import { KvTree } from '../support/kv-tree.ts'
import { fuzz, type Chance } from '../support/fuzz.ts'
import { Log, Replica, slots } from '../support/replicas.ts'

const tree = new KvTree(1)
const keys = tree.keysOf(tree.growChain(12))
const url = (chance: Chance): string => `http://127.0.0.1:${8000 + chance.below(4)}`
const figure = (chance: Chance): number => (chance.oneIn(8) ? 0xffffffff : chance.below(5000))

function someRecord(chance: Chance): SharedRecord {
  const number = chance.below(20)
  return chance.pick<() => SharedRecord>([
    () => ({
      kind: 'load',
      full: chance.oneIn(2),
      workers: chance.list(5, () => ({
        worker: url(chance),
        requests: figure(chance),
        sequences: figure(chance),
        prefillTokens: figure(chance),
        decodeBlocks: figure(chance),
      })),
    }),
    () => ({
      ...{ kind: 'prompt', number, worker: url(chance), assumed: chance.oneIn(2), blockSize: 16 },
      ...{ believedBlocks: figure(chance), firstBlock: chance.below(4), predictedMs: figure(chance) },
      keys: keys.subarray(2 * chance.below(12)),
    }),
    () => ({ kind: 'computed', number }),
    () => ({ kind: 'answered', number, foundBlocks: chance.oneIn(2) ? null : figure(chance) }),
    () => ({ kind: 'ended', number }),
    () => ({ kind: 'owner', response: '0'.repeat(32), worker: url(chance) }),
    () => ({
      ...{ kind: 'dispatched', number, worker: url(chance), stream: true, promptTokens: figure(chance) },
      ...{ uncachedTokens: figure(chance), loadTokens: 0, prefillTokensAhead: figure(chance), requestsAhead: 1 },
      session: chance.oneIn(2) ? null : '0123456789abcdef',
    }),
    () => ({ kind: 'firstByte', number, ttftMs: figure(chance) }),
    () => ({ kind: 'finished', number }),
    () => ({ kind: 'anew' }),
    () => ({ kind: 'bye' }),
  ])()
}

test('whatever is said to a replica, it goes on, its figures stay sound, and silence takes all of it back', async (t) => {
  await fuzz(t, (chance) => {
    const log = new Log()
    const one = new Replica('aaaaaaaaaaaaaaaa', log, [0])
    for (let worker = 0; worker < 3; worker++) one.add(worker)
    for (let times = chance.below(12); times >= 0; times--) {
      const replica = chance.pick(['bbbbbbbbbbbbbbbb', 'cccccccccccccccc', 'aaaaaaaaaaaaaaaa'])
      const records = chance.list(6, () => someRecord(chance))
      const bytes = encodeShared({ replica, counter: chance.below(30), records })
      one.state.receive(chance.oneIn(2) ? chance.mutated(bytes) : bytes, chance.oneIn(4) ? chance.below(3000) : 0)
      for (let slot = 0; slot < slots; slot++) {
        for (const value of one.figures(slot)) assert.ok(Number.isInteger(value) && value >= 0 && value < 2 ** 31)
        const [held = 0, coming = 0] = one.known(keys, slot)
        assert.ok(held + coming <= 12)
      }
      if (chance.oneIn(3)) log.pass(chance.below(800))
    }
    log.pass(2200)
    for (let slot = 0; slot < slots; slot++) assert.deepEqual(one.figures(slot), [0, 0, 0])
    assert.deepEqual(one.state.replicas(), [])
    assert.equal(one.told.size, 0)
    log.pass(700_000)
    for (let slot = 0; slot < slots; slot++) assert.equal(one.known(keys, slot)[1], 0)
  })
})

test('random bytes are passed over', async (t) => {
  await fuzz(t, (chance) => {
    const bytes = chance.bytes(80)
    if (chance.oneIn(2)) bytes[0] = 1
    decodeShared(bytes, () => undefined)
  })
})
