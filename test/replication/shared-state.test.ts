import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RouterError } from '../../src/errors.ts'
import { encodeShared } from '../../src/replication/shared-record.ts'
import { KvTree, slotOf } from '../support/kv-tree.ts'
import { Log, Replica, shareTtlMs } from '../support/replicas.ts'
import { aWorker } from '../support/routing.ts'

const tree = new KvTree(5)
const path = tree.growChain(10)
const prompt = tree.keysOf(path)
const ids = ['aaaaaaaaaaaaaaaa', 'bbbbbbbbbbbbbbbb', 'cccccccccccccccc'] as const

/** Replicas that all know the same three workers and hear each other. */
function setUp(count = 2, silent: readonly number[] = []) {
  const log = new Log()
  const replicas = ids.slice(0, count).map((id) => new Replica(id, log, silent))
  for (const replica of replicas) {
    for (let index = 0; index < 3; index++) replica.add(index)
    replica.state.up()
  }
  log.pass(10)
  const [one, other] = replicas as [Replica, Replica]
  const send = (from: Replica, slot: number, keys = prompt, predictedMs = 100) => {
    const [believedBlocks = 0] = from.known(keys, slot)
    const sent = { slot: slotOf(slot), blockSize: 16, keys, believedBlocks, capacityBlocks: null }
    return from.sent.sent(sent, predictedMs, log.nowMs)
  }
  return { log, replicas, one, other, send }
}

test('what one replica has in flight counts in the other at once, and no more when it has ended', () => {
  const { log, one, other } = setUp()
  log.pass(20)
  const request = one.send(1)
  log.pass(log.delayMs)
  assert.deepEqual(
    [other.figures(0), other.figures(1)],
    [
      [0, 0, 0],
      [1, 60, 7],
    ],
  )
  request.prefilledTo(0)
  log.pass(5 + log.delayMs)
  assert.deepEqual(other.figures(1), [1, 0, 7])
  request.release()
  log.pass(5 + log.delayMs)
  assert.deepEqual(other.figures(1), [0, 0, 0])
})

test('changes that follow each other closely go out together', () => {
  const { log, one } = setUp()
  log.pass(20)
  const before = log.messages.length
  for (let ms = 0; ms < 20; ms++) {
    for (let times = 0; times < 10; times++) one.send(times % 3)
    log.pass(1)
  }
  assert.ok(log.messages.length - before <= 5, `${log.messages.length - before} messages`)
})

test('blocks that are being decoded are told with the next change, and twice a second', () => {
  const { log, one, other } = setUp()
  const request = one.send(1)
  log.pass(10)
  const before = log.messages.length
  request.generated(1000)
  log.pass(20)
  assert.equal(log.messages.length, before)
  log.pass(600)
  assert.deepEqual(other.figures(1), [1, 60, 69])
})

test('a replica that was killed counts until its time to live is over, and one that stops no longer than its goodbye takes', () => {
  const { log, replicas, one, other } = setUp(3)
  const [, , third] = replicas
  one.send(0)
  third?.send(1)
  log.pass(10)
  assert.deepEqual(
    [other.figures(0), other.figures(1)],
    [
      [1, 60, 7],
      [1, 60, 7],
    ],
  )
  one.kill()
  third?.state.stop()
  third?.kill()
  log.pass(log.delayMs)
  assert.deepEqual(other.figures(1), [0, 0, 0])
  assert.deepEqual(other.state.replicas(), [ids[0]])
  log.pass(shareTtlMs - 600)
  assert.deepEqual(other.figures(0), [1, 60, 7])
  log.pass(800)
  assert.deepEqual(other.figures(0), [0, 0, 0])
  assert.deepEqual(other.state.replicas(), [])
})

test('a replica that was started anew is another one, and what its predecessor had is gone with that', () => {
  const { log, one, other } = setUp()
  one.send(0)
  log.pass(10)
  one.kill()
  const again = new Replica('dddddddddddddddd', log)
  again.add(0)
  again.state.up()
  again.send(0)
  log.pass(10)
  assert.deepEqual(other.figures(0), [2, 120, 14])
  log.pass(shareTtlMs + 200)
  assert.deepEqual(other.figures(0), [1, 60, 7])
})

test('while Redis is away nothing is said or kept, and all figures are told when it is back', () => {
  const { log, one, other, send } = setUp()
  const own = () => log.messages.filter((message) => message.includes(Buffer.from(ids[0], 'hex'))).length
  one.state.away()
  const before = own()
  one.send(0)
  send(one, 0)
  one.owners.add('resp_1', aWorker(0))
  log.pass(3000)
  assert.equal(own(), before)
  assert.deepEqual(other.figures(0), [0, 0, 0])
  one.state.up()
  log.pass(log.delayMs)
  assert.equal(own(), before + 1)
  assert.deepEqual(other.figures(0), [1, 60, 7])
  assert.deepEqual(other.known(prompt, 0), [0, 0])
})

test('a worker that comes back under its name has the figures of its name, and its slot none of the one before', () => {
  const { log, one, other } = setUp()
  one.send(1)
  log.pass(10)
  const [, leaving] = [...other.fleet.workers()]
  const successor = other.add(1)
  assert.deepEqual(other.figures(successor.slot), [1, 60, 7])
  if (leaving !== undefined) other.remove(leaving)
  assert.deepEqual(other.figures(1), [0, 0, 0])
  const stranger = other.add(5)
  assert.equal(stranger.slot, 1)
  assert.deepEqual(other.figures(1), [0, 0, 0])
  log.pass(600)
  assert.deepEqual(
    [other.figures(1), other.figures(successor.slot)],
    [
      [0, 0, 0],
      [1, 60, 7],
    ],
  )
})

test('a prompt that one replica sent is coming in the other until it is computed', () => {
  const { log, one, other, send } = setUp()
  const underWay = send(one, 1)
  log.pass(10)
  assert.deepEqual(other.known(prompt, 1), [0, 10])
  one.sent.computed(underWay, log.nowMs)
  log.pass(10)
  assert.deepEqual(other.known(prompt, 1), [0, 10], 'events are still on their way')
  log.pass(300)
  assert.deepEqual(other.known(prompt, 1), [0, 0])
  assert.equal(other.state.followed.prompts, 0)
})

test('a prompt that failed, or whose replica is gone, is coming no more; one that is forgotten expires', () => {
  const { log, one, other, send } = setUp()
  const failed = send(one, 0)
  send(one, 1)
  send(one, 2, prompt, 10_000)
  log.pass(10)
  one.sent.ended(failed)
  log.pass(10)
  assert.deepEqual(
    [0, 1, 2].map((slot) => other.known(prompt, slot)[1]),
    [0, 10, 10],
  )
  log.pass(2000)
  assert.deepEqual(
    [0, 1, 2].map((slot) => other.known(prompt, slot)[1]),
    [0, 0, 10],
  )
  one.kill()
  log.pass(shareTtlMs + 200)
  assert.deepEqual(
    [0, 1, 2].map((slot) => other.known(prompt, slot)[1]),
    [0, 0, 0],
  )
  assert.equal(other.state.followed.prompts, 0)
})

test('of a worker with events only what it lacks is told, and that is enough to know all that is coming', () => {
  const { log, one, other } = setUp()
  const sent = { slot: slotOf(1), blockSize: 16, keys: prompt, believedBlocks: 7, capacityBlocks: null }
  const before = log.messages.length
  one.sent.sent(sent, 100, log.nowMs)
  log.pass(10)
  const bytes = log.messages.slice(before).reduce((sum, { length }) => sum + length, 0)
  assert.ok(bytes < 3 * 8 + 120, `${bytes} bytes`)
  assert.deepEqual(other.known(prompt, 1), [0, 10])
  const another = [...path.slice(0, 8), ...tree.growChain(3, path[7])]
  assert.deepEqual(other.known(tree.keysOf(another), 1), [0, 8])
  const apart = [...path.slice(0, 7), ...tree.growChain(3, path[6])]
  assert.deepEqual(other.known(tree.keysOf(apart), 1), [0, 0])
  one.sent.sent({ ...sent, believedBlocks: 10 }, 100, log.nowMs)
  log.pass(10)
  assert.equal(other.state.followed.prompts, 1, 'what brings nothing new is not told')
})

test('what a worker without events was sent by one replica is held in the other, and corrected there too', () => {
  const { log, one, other, send } = setUp(2, [0])
  const underWay = send(one, 0)
  log.pass(10)
  one.sent.computed(underWay, log.nowMs)
  log.pass(10)
  assert.deepEqual(other.known(prompt, 0), [10, 0])
  one.sent.answered(underWay, null, log.nowMs)
  one.sent.ended(underWay)
  log.pass(10)
  const again = send(one, 0)
  log.pass(10)
  assert.equal(other.state.followed.prompts, 1)
  assert.deepEqual(other.known(prompt, 0), [10, 0])
  const longer = tree.keysOf([...path, ...tree.growChain(2, path.at(-1))])
  const third = send(other, 0, longer)
  other.sent.computed(third, log.nowMs)
  other.sent.answered(third, null, log.nowMs)
  log.pass(10)
  assert.deepEqual(one.known(longer, 0), [12, 0])
  // A thousand tokens less than believed: the engine has evicted them.
  one.sent.answered({ ...again, prompt: { ...again.prompt, believedBlocks: 10 } }, 0, log.nowMs)
  log.pass(10)
  assert.deepEqual(one.known(longer, 0), other.known(longer, 0))
})

test('a prompt in blocks of another size than we know the worker by is not believed', () => {
  const { log, one, other } = setUp()
  const sent = { slot: slotOf(1), blockSize: 32, keys: prompt, believedBlocks: 0, capacityBlocks: null }
  one.sent.sent(sent, 100, log.nowMs)
  log.pass(10)
  assert.deepEqual(other.known(prompt, 1), [0, 0])
  assert.equal(other.state.followed.prompts, 0)
})

test('who holds a response is known in the other replica, as long as its worker is there, and nobody’s id is told', () => {
  const { log, one, other } = setUp()
  const [first] = [...one.fleet.workers()]
  assert.ok(first !== undefined)
  one.owners.add('resp_1234567890', first)
  assert.throws(() => other.owners.owner('resp_1234567890'), RouterError)
  log.pass(10)
  const [here] = [...other.fleet.workers()]
  assert.ok(here !== undefined)
  assert.equal(other.owners.owner('resp_1234567890'), here)
  assert.ok(log.messages.every((message) => !message.includes('resp_') && !message.includes('1234567890')))
  other.remove(here)
  other.add(0)
  assert.throws(() => other.owners.owner('resp_1234567890'), RouterError, 'another process under its name')
})

test('of the owners that others tell the oldest are forgotten', () => {
  const { log, one, other } = setUp()
  const [first] = [...one.fleet.workers()]
  assert.ok(first !== undefined)
  for (let i = 0; i < 4; i++) one.owners.add(`resp_${i}`, first)
  log.pass(10)
  assert.throws(() => other.owners.owner('resp_0'), RouterError)
  assert.ok(other.owners.owner('resp_1'))
})

test('more replicas than there may be are not believed, until one of them has gone', () => {
  const log = new Log()
  const one = new Replica(ids[0], log)
  one.add(0)
  const figures = { worker: aWorker(0).id, requests: 1, sequences: 1, prefillTokens: 10, decodeBlocks: 1 }
  const say = (replica: number): void =>
    one.state.receive(
      encodeShared({
        replica: replica.toString(16).padStart(16, '0'),
        counter: 1,
        records: [{ kind: 'load', full: true, workers: [figures] }],
      }),
    )
  for (let replica = 1; replica <= 70; replica++) say(replica)
  assert.deepEqual(one.figures(0), [64, 640, 64])
  log.pass(shareTtlMs + 200)
  say(70)
  assert.deepEqual(one.figures(0), [1, 10, 1])
})

test('what lay unread for longer than the time to live is not believed', () => {
  const log = new Log()
  const one = new Replica(ids[0], log)
  one.add(0)
  const figures = { worker: aWorker(0).id, requests: 1, sequences: 1, prefillTokens: 10, decodeBlocks: 1 }
  const records = [{ kind: 'load', full: true, workers: [figures] }] as const
  one.state.receive(encodeShared({ replica: ids[1], counter: 1, records }), shareTtlMs + 1)
  assert.deepEqual(one.figures(0), [0, 0, 0])
  one.state.receive(encodeShared({ replica: ids[1], counter: 2, records }), shareTtlMs - 500)
  assert.deepEqual([one.figures(0), one.state.oldestShareMs], [[1, 10, 1], shareTtlMs - 500])
  log.pass(600)
  assert.deepEqual([one.figures(0), one.state.oldestShareMs], [[0, 0, 0], null])
})

test('a policy hears of the requests of all replicas, once, until they are over', () => {
  const { log, one, other } = setUp()
  const [worker] = [...one.fleet.workers()]
  const [same] = [...other.fleet.workers()]
  assert.ok(worker !== undefined && same !== undefined)
  const dispatch = one.dispatch(worker)
  log.pass(log.delayMs)
  assert.deepEqual([...other.told], [{ ...dispatch, serial: same.serial, atMs: log.nowMs }])
  one.state.dispatches.onFirstByte(dispatch, 123.4)
  log.pass(10)
  assert.deepEqual(other.firstBytesMs, [123.4])
  one.finish(dispatch)
  log.pass(10)
  assert.deepEqual([one.told.size, other.told.size, other.state.followed.requests], [0, 0, 0])
})

test('requests of a replica that is gone, or could not tell of their end, are over for the others', () => {
  const { log, one, other } = setUp()
  const [worker] = [...one.fleet.workers()]
  assert.ok(worker !== undefined)
  const dispatch = one.dispatch(worker)
  log.pass(10)
  assert.equal(other.told.size, 1)
  one.state.away()
  one.finish(dispatch)
  log.pass(500)
  assert.equal(other.told.size, 1)
  one.state.up()
  log.pass(10)
  assert.equal(other.told.size, 0)
  one.dispatch(worker)
  log.pass(10)
  other.state.missed()
  assert.equal(other.told.size, 0, 'messages may have been missed')
  one.dispatch(worker)
  log.pass(10)
  one.kill()
  log.pass(shareTtlMs + 200)
  assert.equal(other.told.size, 0)
})
