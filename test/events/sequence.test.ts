import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Sequence, type Arrival } from '../../src/events/sequence.ts'

type Batch = string

/** A sequence whose outputs are written down: applied batches, and everything in order as a log. */
function watched(replay: boolean, limits: { maxBufferedBatches?: number; maxBufferedBytes?: number } = {}) {
  const log: string[] = []
  let applied: Arrival<Batch>[] = []
  let wanted: number | null = null
  const sequence = new Sequence<Batch>(
    { replay, maxBufferedBatches: limits.maxBufferedBatches ?? 1000, maxBufferedBytes: limits.maxBufferedBytes ?? 1e9 },
    {
      apply(arrival) {
        applied.push(arrival)
        log.push(`apply ${arrival.batch}`)
      },
      clear(reason) {
        applied = []
        log.push(`clear ${reason}`)
      },
      requestReplay(from) {
        wanted = from
        log.push(`replay ${from}`)
      },
      cancelReplay() {
        wanted = null
        log.push('cancel')
      },
      dropped: (reason) => log.push(`drop ${reason}`),
      gap: () => log.push('gap'),
      restart: () => log.push('restart'),
    },
  )
  return {
    sequence,
    log,
    applied: () => applied,
    names: () => applied.map((one) => one.batch),
    wanted: () => wanted,
    answered: () => (wanted = null),
  }
}

/** Batch `number` of process `name`; its time is the process's own. */
function batch(name: string, number: number): Arrival<Batch> {
  return { sequence: number, timestamp: name.charCodeAt(0) * 1000 + number, bytes: 10, batch: `${name}${number}` }
}

function live(sequence: Sequence<Batch>, name: string, ...numbers: number[]): void {
  for (const number of numbers) sequence.live(batch(name, number))
}

function replay(sequence: Sequence<Batch>, name: string, ...numbers: number[]): void {
  for (const number of numbers) sequence.replayBatch(batch(name, number))
  sequence.replayEnd()
}

/** First contact with an engine that has sent a0 … a2. */
function loaded() {
  const all = watched(true)
  all.sequence.connected()
  replay(all.sequence, 'a', 0, 1, 2)
  all.log.length = 0
  return all
}

test('without a replay endpoint batches apply as they come, from wherever they begin', () => {
  const { sequence, names, log } = watched(false)
  sequence.connected()
  live(sequence, 'a', 7, 8, 9)
  assert.deepEqual(names(), ['a7', 'a8', 'a9'])
  assert.equal(sequence.partial, true)
  assert.deepEqual([sequence.state, sequence.lastApplied], ['live', 9])
  assert.ok(!log.includes('gap'))
})

test('without a replay endpoint a gap clears, and later batches count again', () => {
  const { sequence, names, log } = watched(false)
  sequence.connected()
  live(sequence, 'a', 0, 1, 3, 4)
  assert.deepEqual(names(), ['a3', 'a4'])
  assert.deepEqual(log, ['apply a0', 'apply a1', 'gap', 'clear gap', 'apply a3', 'apply a4'])
})

test('without a replay endpoint a number that goes back is a restart and clears', () => {
  const { sequence, names, log } = watched(false)
  sequence.connected()
  live(sequence, 'a', 0, 1, 2)
  live(sequence, 'b', 0, 1)
  assert.deepEqual(names(), ['b0', 'b1'])
  assert.ok(log.includes('restart'))
  assert.equal(sequence.partial, false)
})

test('without a replay endpoint a lost subscription is cleared when it is found again', () => {
  const { sequence, names, log } = watched(false)
  sequence.connected()
  live(sequence, 'a', 0, 1)
  sequence.disconnected()
  assert.equal(sequence.state, 'unknown')
  sequence.connected()
  assert.deepEqual(names(), [])
  live(sequence, 'b', 2)
  assert.deepEqual(names(), ['b2'])
  assert.deepEqual(log.slice(2), ['clear unverified', 'apply b2'])
})

test('first contact loads from the oldest that the engine keeps, live batches wait', () => {
  const { sequence, names, log } = watched(true)
  assert.equal(sequence.state, 'unknown')
  sequence.connected()
  assert.equal(sequence.state, 'replaying')
  live(sequence, 'a', 12, 13)
  replay(sequence, 'a', 10, 11, 12)
  assert.deepEqual(names(), ['a10', 'a11', 'a12', 'a13'])
  assert.equal(sequence.partial, true)
  assert.deepEqual(log, ['replay 0', 'apply a10', 'apply a11', 'apply a12', 'drop replayed', 'apply a13'])
})

test('an engine that has sent nothing yet is complete from its first batch on', () => {
  const { sequence, names } = watched(true)
  sequence.connected()
  sequence.replayEnd()
  live(sequence, 'a', 0, 1)
  assert.deepEqual(names(), ['a0', 'a1'])
  assert.equal(sequence.partial, false)
})

test('a gap is repaired by replay from the first missing batch, in order', () => {
  const { sequence, names, log } = loaded()
  live(sequence, 'a', 3, 6, 7)
  assert.deepEqual(log, ['apply a3', 'gap', 'replay 3'])
  replay(sequence, 'a', 3, 4, 5, 6, 7, 8)
  live(sequence, 'a', 8, 9)
  assert.deepEqual(names(), ['a0', 'a1', 'a2', 'a3', 'a4', 'a5', 'a6', 'a7', 'a8', 'a9'])
})

test('a gap whose replay begins right after what is applied is repaired', () => {
  const { sequence, names, log } = loaded()
  live(sequence, 'a', 4)
  replay(sequence, 'a', 3, 4)
  assert.deepEqual(names(), ['a0', 'a1', 'a2', 'a3', 'a4'])
  assert.ok(!log.some((line) => line.startsWith('clear')))
})

test('a gap that another process answers is a restart', () => {
  const { sequence, names, log } = loaded()
  live(sequence, 'a', 5)
  sequence.replayBatch(batch('b', 2))
  assert.deepEqual(log, ['gap', 'replay 2', 'restart', 'clear restart', 'replay 0'])
  sequence.disconnected()
  sequence.connected()
  replay(sequence, 'b', 0, 1, 2)
  assert.deepEqual(names(), ['b0', 'b1', 'b2'])
})

test('a gap that is older than the replay buffer clears, and what is left counts', () => {
  const { sequence, names, log } = loaded()
  live(sequence, 'a', 50)
  replay(sequence, 'a', 45, 46, 47, 48, 49, 50)
  assert.deepEqual(names(), ['a45', 'a46', 'a47', 'a48', 'a49', 'a50'])
  assert.equal(sequence.partial, true)
  assert.deepEqual(log.slice(0, 3), ['gap', 'replay 2', 'clear gap'])
})

test('a gap that the replay knows nothing of clears', () => {
  const { sequence, names } = loaded()
  live(sequence, 'a', 9)
  replay(sequence, 'a')
  assert.deepEqual(names(), ['a9'])
  live(sequence, 'a', 10)
  assert.deepEqual(names(), ['a9', 'a10'])
})

test('a replay that fails clears and rests; later gaps clear until the rest is over, then the state is loaded anew', () => {
  const { sequence, names, log } = loaded()
  live(sequence, 'a', 5)
  sequence.replayFailed()
  assert.deepEqual(names(), ['a5'])
  live(sequence, 'a', 8)
  assert.deepEqual(names(), ['a8'])
  assert.equal(log.filter((line) => line.startsWith('replay')).length, 1)
  assert.equal(sequence.reloadWanted, true)
  sequence.restOver()
  assert.equal(sequence.state, 'live')
  live(sequence, 'a', 9)
  assert.deepEqual(names(), ['a8', 'a9'])
  replay(sequence, 'a', 0, 1, 2, 3, 4, 5, 6, 7, 8)
  assert.deepEqual(names().length, 10)
  assert.equal(sequence.partial, false)
  assert.equal(sequence.reloadWanted, false)
})

test('a reload that fails leaves the partial state as it was', () => {
  const { sequence, names } = loaded()
  live(sequence, 'a', 5)
  sequence.replayFailed()
  sequence.restOver()
  live(sequence, 'a', 6)
  sequence.replayFailed()
  live(sequence, 'a', 7)
  assert.deepEqual(names(), ['a5', 'a6', 'a7'])
})

test('a live number that goes back is a restart, also while a replay is under way, and nothing of the old process stays', () => {
  const { sequence, names, log } = loaded()
  live(sequence, 'a', 5, 6)
  live(sequence, 'b', 4)
  assert.deepEqual(log.slice(-3), ['restart', 'clear restart', 'replay 0'])
  replay(sequence, 'b', 0, 1, 2, 3, 4)
  assert.deepEqual(names(), ['b0', 'b1', 'b2', 'b3', 'b4'])
})

test('a restarted engine that begins with 0 needs no replay', () => {
  const { sequence, names, log } = loaded()
  live(sequence, 'a', 3)
  live(sequence, 'b', 0, 1)
  assert.deepEqual(names(), ['b0', 'b1'])
  assert.ok(!log.some((line) => line.startsWith('replay')))
})

test('a batch that the replay also delivered is dropped if the times agree and is a restart if they differ', () => {
  for (const lateLive of [false, true]) {
    const same = watched(true)
    same.sequence.connected()
    if (!lateLive) live(same.sequence, 'a', 1)
    replay(same.sequence, 'a', 0, 1)
    if (lateLive) live(same.sequence, 'a', 1)
    assert.deepEqual(same.names(), ['a0', 'a1'])
    assert.ok(same.log.includes('drop replayed') && !same.log.includes('restart'))

    const other = watched(true)
    other.sequence.connected()
    if (!lateLive) live(other.sequence, 'b', 1)
    replay(other.sequence, 'a', 0, 1)
    if (lateLive) live(other.sequence, 'b', 1)
    assert.ok(other.log.includes('restart'))
    replay(other.sequence, 'b', 0, 1)
    assert.deepEqual(other.names(), ['b0', 'b1'])
  }
})

test('after the replay is drained, a live number that was applied before is a restart', () => {
  const { sequence, names, log } = loaded()
  live(sequence, 'a', 3, 4)
  sequence.disconnected()
  sequence.connected()
  replay(sequence, 'a', 4)
  live(sequence, 'b', 2)
  assert.ok(log.includes('restart'))
  replay(sequence, 'b', 0, 1, 2)
  assert.deepEqual(names(), ['b0', 'b1', 'b2'])
})

test('after a lost subscription the last batch proves the process the same, and the missing ones follow', () => {
  const { sequence, names, log } = loaded()
  sequence.disconnected()
  sequence.connected()
  assert.deepEqual(log, ['replay 2'])
  live(sequence, 'a', 5)
  replay(sequence, 'a', 2, 3, 4, 5)
  assert.deepEqual(names(), ['a0', 'a1', 'a2', 'a3', 'a4', 'a5'])
  assert.ok(!log.some((line) => line.startsWith('clear')))
})

test('after a lost subscription another time on the last batch is a restart, even past our last number', () => {
  const { sequence, names, log } = loaded()
  sequence.disconnected()
  sequence.connected()
  sequence.replayBatch(batch('b', 2))
  assert.deepEqual(log, ['replay 2', 'restart', 'clear restart', 'replay 0'])
  replay(sequence, 'b', 0, 1, 2, 3)
  assert.deepEqual(names(), ['b0', 'b1', 'b2', 'b3'])
})

test('after a lost subscription an engine that has fewer batches is a restart', () => {
  const { sequence, names, log } = loaded()
  sequence.disconnected()
  sequence.connected()
  sequence.replayEnd()
  assert.deepEqual(log, ['replay 2', 'restart', 'clear restart', 'replay 0'])
  replay(sequence, 'b', 0)
  assert.deepEqual(names(), ['b0'])
})

test('after a lost subscription a lower live number is a restart before the replay says so', () => {
  const { sequence, names } = loaded()
  sequence.disconnected()
  sequence.connected()
  live(sequence, 'b', 1)
  assert.deepEqual(names(), [])
  replay(sequence, 'b', 0, 1)
  assert.deepEqual(names(), ['b0', 'b1'])
})

test('after a lost subscription a replay that begins too late, or fails, proves nothing and clears', () => {
  const late = loaded()
  late.sequence.disconnected()
  late.sequence.connected()
  replay(late.sequence, 'a', 3, 4)
  assert.deepEqual(late.names(), ['a3', 'a4'])
  assert.ok(late.log.includes('clear unverified'))
  for (const verified of [false, true]) {
    const failed = loaded()
    failed.sequence.disconnected()
    failed.sequence.connected()
    if (verified) failed.sequence.replayBatch(batch('a', 2))
    failed.sequence.replayFailed()
    assert.deepEqual(failed.names(), [])
    assert.ok(failed.log.includes('clear unverified'))
  }
})

test('a batch that comes twice changes nothing', () => {
  const { sequence, names, log } = loaded()
  live(sequence, 'a', 3, 3, 4)
  assert.deepEqual(names(), ['a0', 'a1', 'a2', 'a3', 'a4'])
  assert.ok(log.includes('drop duplicate'))
})

test('a full buffer drops what comes, which is asked for again', () => {
  const { sequence, names, log } = watched(true, { maxBufferedBatches: 2 })
  sequence.connected()
  live(sequence, 'a', 3, 4, 5, 6)
  replay(sequence, 'a', 0, 1, 2, 3)
  assert.deepEqual(names(), ['a0', 'a1', 'a2', 'a3', 'a4'])
  assert.equal(log.at(-1), 'replay 4')
  replay(sequence, 'a', 4, 5, 6)
  live(sequence, 'a', 7)
  assert.deepEqual(names(), ['a0', 'a1', 'a2', 'a3', 'a4', 'a5', 'a6', 'a7'])
  assert.equal(log.filter((line) => line === 'drop buffer_full').length, 2)
  const bytes = watched(true, { maxBufferedBytes: 25 })
  bytes.sequence.connected()
  live(bytes.sequence, 'a', 0, 1, 2)
  assert.equal(bytes.log.filter((line) => line === 'drop buffer_full').length, 1)
})

test('what somebody else has applied is proved by the replay before live batches follow it', () => {
  const { sequence, log } = watched(true)
  sequence.resume(batch('a', 2), false)
  assert.equal(sequence.state, 'unknown')
  sequence.connected()
  live(sequence, 'a', 5)
  replay(sequence, 'a', 2, 3, 4)
  assert.deepEqual(log, ['replay 2', 'apply a3', 'apply a4', 'apply a5'])
  assert.equal(sequence.state, 'live')
})

test('what somebody else had applied of another process is cleared', () => {
  const { sequence, log, names } = watched(true)
  sequence.resume(batch('a', 2), false)
  sequence.connected()
  sequence.replayBatch(batch('b', 2))
  assert.deepEqual(log, ['replay 2', 'restart', 'clear restart', 'replay 0'])
  replay(sequence, 'b', 0, 1, 2, 3)
  assert.deepEqual(names(), ['b0', 'b1', 'b2', 'b3'])
})

test('what somebody else has applied cannot be proved without a replay endpoint and is cleared', () => {
  const { sequence, log } = watched(false)
  sequence.resume(batch('a', 2), false)
  sequence.connected()
  live(sequence, 'a', 3)
  assert.deepEqual(log, ['clear unverified', 'apply a3'])
})

test('resuming from nothing is first contact', () => {
  const { sequence, log } = watched(true)
  sequence.resume(null, false)
  sequence.connected()
  assert.deepEqual(log, ['replay 0'])
})

test('distrust clears, and loads anew while the subscription stands', () => {
  const { sequence, names, log } = loaded()
  sequence.distrust()
  assert.deepEqual(log, ['clear distrust', 'replay 0'])
  replay(sequence, 'a', 0, 1, 2)
  assert.equal(names().length, 3)
  sequence.disconnected()
  sequence.distrust()
  assert.deepEqual(names(), [])
  sequence.connected()
  assert.equal(log.at(-1), 'replay 0')
})

/*
 * A model of an engine, its two channels and the faults between: processes that die, subscriptions that break, batches
 * that PUB drops at its high-water mark, a replay buffer that keeps only the newest, replays that fail.
 */
class World {
  readonly view: ReturnType<typeof watched>
  readonly keeps: number
  /** A dying process's connections break at once; else its last messages still arrive while its successor answers. */
  readonly breaks: boolean
  process = 0
  published: Arrival<Batch>[] = []
  /** In flight on the subscription; it belongs to the process that it was made to. */
  onWire: Arrival<Batch>[] = []
  subscribedTo: number | null = null
  replayed: (Arrival<Batch> | null)[] | null = null
  servedRequest = 0

  constructor(replay: boolean, keeps: number, buffered: number, breaks = false) {
    this.view = watched(replay, { maxBufferedBatches: buffered })
    this.keeps = keeps
    this.breaks = breaks
  }

  publish(lost: boolean): void {
    const number = this.published.length
    const next = {
      sequence: number,
      timestamp: this.process * 1e6 + number,
      bytes: 1,
      batch: `${this.process}:${number}`,
    }
    this.published.push(next)
    if (this.subscribedTo === this.process && !lost) this.onWire.push(next)
  }

  die(): void {
    this.process++
    this.published = []
    if (!this.breaks || this.subscribedTo === null) return
    this.view.answered()
    this.onWire = []
    this.subscribedTo = null
    this.view.sequence.disconnected()
  }

  deliver(): void {
    const next = this.onWire.shift()
    if (next !== undefined && this.subscribedTo !== null) this.view.sequence.live(next)
  }

  reconnect(): void {
    if (this.subscribedTo !== null) this.view.sequence.disconnected()
    this.view.answered()
    this.onWire = []
    this.subscribedTo = this.process
    this.replayed = null
    this.view.sequence.connected()
  }

  /** The replay socket answers one message, from what the engine keeps when it starts to answer. */
  answer(): void {
    const from = this.view.wanted()
    const requests = this.view.log.filter((line) => line.startsWith('replay ') || line === 'cancel').length
    if (requests !== this.servedRequest) this.replayed = null
    this.servedRequest = requests
    if (from === null) return
    this.replayed ??= [...this.published.slice(-this.keeps).filter((one) => one.sequence >= from), null]
    const next = this.replayed.shift()
    if (next === null) {
      this.replayed = null
      this.view.answered()
      this.view.sequence.replayEnd()
    } else if (next !== undefined) {
      this.view.sequence.replayBatch(next)
    }
  }

  fail(): void {
    this.replayed = null
    this.view.answered()
    this.view.sequence.replayFailed()
  }
}

const step = fc.oneof(
  { weight: 8, arbitrary: fc.constant('publish') },
  { weight: 1, arbitrary: fc.constant('publish and lose') },
  { weight: 8, arbitrary: fc.constant('deliver') },
  { weight: 8, arbitrary: fc.constant('answer') },
  { weight: 1, arbitrary: fc.constant('die') },
  { weight: 1, arbitrary: fc.constant('reconnect') },
  { weight: 1, arbitrary: fc.constant('fail') },
  { weight: 1, arbitrary: fc.constant('rest over') },
  { weight: 1, arbitrary: fc.constant('distrust') },
)

const steps = fc.array(step, { maxLength: 120, size: 'max' })

function run(world: World, steps: readonly string[]): void {
  for (const one of steps) {
    if (one === 'publish') world.publish(false)
    else if (one === 'publish and lose') world.publish(true)
    else if (one === 'deliver') world.deliver()
    else if (one === 'answer') world.answer()
    else if (one === 'die') world.die()
    else if (one === 'reconnect') world.reconnect()
    else if (one === 'fail') world.fail()
    else if (one === 'rest over') world.view.sequence.restOver()
    else world.view.sequence.distrust()
    const applied = world.view.applied()
    for (let i = 1; i < applied.length; i++) {
      assert.equal(applied[i]?.sequence, (applied[i - 1]?.sequence ?? 0) + 1, 'what is applied has no holes')
    }
  }
}

/** Faults end: the loss of a dead process's connection is noticed, one more batch comes, every replay is answered. */
function quieten(world: World): void {
  if (world.subscribedTo !== world.process) world.reconnect()
  for (let round = 0; round < 3; round++) {
    world.view.sequence.restOver()
    world.publish(false)
    for (
      let i = 0;
      i < 2_000 &&
      (world.onWire.length > 0 ||
        world.view.sequence.state === 'replaying' ||
        world.replayed !== null ||
        (world.view.sequence.reloadWanted && i < 500));
      i++
    ) {
      world.deliver()
      world.answer()
    }
  }
}

test('after faults of every kind and quiet with a working replay, the state is the engine’s, whole', () => {
  fc.assert(
    fc.property(steps, fc.integer({ min: 1, max: 40 }), (steps, buffered) => {
      const world = new World(true, Infinity, buffered)
      run(world, steps)
      quieten(world)
      assert.deepEqual(
        world.view.names(),
        world.published.map((one) => one.batch),
      )
      assert.deepEqual([world.view.sequence.state, world.view.sequence.partial], ['live', false])
    }),
    { numRuns: 1_500 },
  )
})

test('after faults of every kind with a short replay buffer, the state is an unbroken run of the present process up to its end', () => {
  fc.assert(
    fc.property(steps, fc.integer({ min: 1, max: 8 }), fc.integer({ min: 1, max: 40 }), (steps, keeps, buffered) => {
      const world = new World(true, keeps, buffered, true)
      run(world, steps)
      quieten(world)
      const { published } = world
      const names = world.view.names()
      assert.ok(names.length > 0)
      assert.deepEqual(
        names,
        published.slice(-names.length).map((one) => one.batch),
      )
      assert.equal(world.view.sequence.partial, names.length < published.length)
    }),
    { numRuns: 1_500 },
  )
})

test('after faults of every kind without a replay endpoint, the state is an unbroken run of the present process up to its end', () => {
  fc.assert(
    fc.property(steps, (steps) => {
      const world = new World(false, 0, 10)
      run(world, steps)
      quieten(world)
      const { published } = world
      const names = world.view.names()
      assert.ok(names.length > 0)
      assert.deepEqual(
        names,
        published.slice(-names.length).map((one) => one.batch),
      )
    }),
    { numRuns: 1_500 },
  )
})

test('no batch of a process that is known to be gone is left applied', () => {
  fc.assert(
    fc.property(steps, fc.boolean(), (steps, replays) => {
      const world = new World(replays, Infinity, 10)
      for (const one of steps) {
        const log = world.view.log.length
        run(world, [one])
        if (world.view.log.slice(log).includes('restart')) {
          const processes = new Set(world.view.names().map((name) => name.split(':')[0]))
          assert.ok(processes.size <= 1)
        }
      }
      world.reconnect()
      for (let i = 0; i < 2_000 && world.view.wanted() !== null && world.view.sequence.state === 'replaying'; i++)
        world.answer()
      for (const name of world.view.names()) assert.equal(name.split(':')[0], String(world.process))
    }),
    { numRuns: 1_000 },
  )
})
