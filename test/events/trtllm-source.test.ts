import assert from 'node:assert/strict'
import { before, test, type TestContext } from 'node:test'
import { Ingest } from '../../src/events/ingest.ts'
import { TrtllmEvents, type PollOutcome, type PollTiming } from '../../src/events/sources/trtllm.ts'
import type { WorkerSlot } from '../../src/kv/batch.ts'
import { blockKeys, createKeyMaker, type KeyMaker } from '../../src/kv/keys.ts'
import type { Cancel, Clock } from '../../src/zmtp/clock.ts'
import { collectingLog, type LogLine } from '../support/fleet.ts'
import { NaiveMap } from '../support/naive-map.ts'
import { countingCounters } from './counting.ts'
import { created, eventJson, moved, removed, stored } from './trtllm-answers.ts'

let keys: KeyMaker
before(async () => {
  keys = await createKeyMaker(Buffer.from('a secret'))
})

/** A clock whose timers run when the test says so. */
class ManualClock implements Clock {
  #now = 0
  #timers: { readonly atMs: number; readonly run: () => void }[] = []

  now(): number {
    return this.#now
  }

  after(delayMs: number, run: () => void): Cancel {
    const timer = { atMs: this.#now + delayMs, run }
    this.#timers.push(timer)
    return () => (this.#timers = this.#timers.filter((other) => other !== timer))
  }

  /** Runs the next timer; how long it was waited for. */
  next(): number {
    const [timer] = this.#timers.toSorted((a, b) => a.atMs - b.atMs)
    assert.ok(timer !== undefined, 'a timer is set')
    const waitedMs = timer.atMs - this.#now
    this.#now = timer.atMs
    this.#timers = this.#timers.filter((other) => other !== timer)
    timer.run()
    return waitedMs
  }

  get waiting(): number {
    return this.#timers.length
  }
}

const tokensOf = (name: number) => [name, 2, 3, 4]
const block = (name: number, level = 0) => ({ hash: BigInt(name), tokens: tokensOf(name), level })
const timing: PollTiming = {
  intervalMs: 20,
  idleIntervalMs: 200,
  timeoutMs: 10_000,
  lateMs: 3_000,
  answerBytes: 1_000_000,
}

interface RigOptions {
  readonly ranks?: readonly (number | null)[]
  readonly mayPoll?: () => boolean
}

function rigFor(t: TestContext, { ranks = [null], mayPoll = () => true }: RigOptions = {}) {
  const clock = new ManualClock()
  const lines: LogLine[] = []
  const map = new NaiveMap()
  const methods: string[] = []
  let inFlight = 0
  let ended = 0
  let answer: ((outcome: PollOutcome) => void) | null = null
  const engine = new TrtllmEvents({
    poll: (method, { signal }) => {
      methods.push(method)
      assert.equal(++inFlight, 1, 'one poll at a time')
      return new Promise<PollOutcome>((resolve) => {
        answer = resolve
        signal.addEventListener('abort', () => resolve({ kind: 'lost', reason: 'aborted' }))
      }).finally(() => inFlight--)
    },
    mayPoll,
    timing: () => timing,
    clock,
    random: () => 0.5,
    turn: () => Promise.resolve(),
    log: collectingLog(lines),
    name: 'engine',
    onEnd: () => ended++,
  })
  const counted = ranks.map(() => countingCounters())
  const capacities: number[] = []
  const sources = ranks.map((rank, i) => {
    map.addWorker(i as WorkerSlot, { countsStores: false, blockSize: 4 })
    return engine.worker({
      ingest: new Ingest({
        worker: i as WorkerSlot,
        map,
        keys,
        model: 'm',
        blockSize: 4,
        countsStores: false,
        counters: counted[i]!.counters,
        onBlockSize: () => undefined,
      }),
      blockSize: 4,
      counters: counted[i]!.counters,
      rank,
      name: `w${i}`,
      onRestart: () => undefined,
      onCapacity: (blocks) => capacities.push(blocks),
    })
  })
  const scope = keys.scope({ model: 'm', blockSize: 4, adapter: null })
  const rig = {
    clock,
    lines,
    methods,
    map,
    engine,
    sources,
    first: sources[0]!,
    counted,
    capacities,
    ended: () => ended,
    /** Waits for the next poll; how long the pause before it was. */
    async poll(outcome: PollOutcome): Promise<number> {
      const waitedMs = clock.next()
      await rig.finish(outcome)
      return waitedMs
    },
    async finish(outcome: PollOutcome): Promise<void> {
      assert.ok(answer !== null, 'a poll is under way')
      answer(outcome)
      answer = null
      await new Promise((resolve) => setImmediate(resolve))
    },
    events: (...events: string[]) => rig.poll(answered(200, `[${events.join()}]`)),
    tiers: (slot = 0) => map.workerBlocks(slot as WorkerSlot),
    /** Blocks of a prompt, named by their first tokens, that a worker holds on its GPU. */
    matches(names: readonly number[], slot = 0): number {
      const out = { gpu: counts(), host: counts(), disk: counts(), shared: counts() }
      map.match([{ blockSize: 4, keys: blockKeys(Uint32Array.from(names.flatMap(tokensOf)), scope) }], out)
      return (out.gpu[slot] ?? 0) + (out.host[slot] ?? 0)
    },
  }
  for (const source of sources) source.start()
  t.after(() => Promise.all(sources.map((source) => source.stop())))
  return rig
}

const counts = () => new Uint32Array(4)
const answered = (status: number, text = ''): PollOutcome => ({ kind: 'answer', status, bytes: Buffer.from(text) })
const lost: PollOutcome = { kind: 'lost', reason: 'ECONNRESET' }

test('what is polled comes into the map', async (t) => {
  const rig = rigFor(t)
  assert.equal(rig.first.status().state, 'unknown')
  await rig.events(eventJson(0, created(100, 50)), eventJson(1, stored(null, block(1), block(2), block(3))))
  assert.equal(rig.matches([1, 2, 3]), 3)
  assert.deepEqual(rig.first.status(), {
    state: 'live',
    lastSequence: 1,
    gaps: 0,
    restarts: 0,
    partial: false,
    epoch: 2,
  })
  assert.deepEqual(rig.capacities, [100])
  await rig.events(eventJson(2, removed(2n, 3n)))
  assert.deepEqual(rig.tiers(), { gpu: 1, host: 0, disk: 0 })
  assert.deepEqual(rig.counted[0]?.skipped(), {})
})

test('polls follow quickly while they bring events, ever more slowly while they bring none', async (t) => {
  const rig = rigFor(t)
  assert.equal(await rig.events(eventJson(0, created(1))), 0)
  const pauses: number[] = []
  for (let i = 0; i < 6; i++) pauses.push(await rig.events())
  assert.deepEqual(pauses, [20, 40, 80, 160, 200, 200])
  await rig.events(eventJson(1, stored(null, block(1))))
  assert.equal(await rig.events(), 20)
})

test('an engine that was never heard is not believed to have an empty cache: its events may be off', async (t) => {
  const rig = rigFor(t)
  await rig.events()
  assert.equal(rig.first.status().state, 'unknown')
  await rig.events(eventJson(7, stored(null, block(1))))
  const { state, partial } = rig.first.status()
  assert.deepEqual([state, partial], ['live', true])
})

for (const [name, outcome] of [
  ['that breaks off', lost],
  ['with a fault of the server', answered(500)],
  ['that is no list', answered(200, '[{"event_id":2,')],
] as const) {
  test(`a poll ${name} may have taken events with it: what was known is cleared, and later events count`, async (t) => {
    const rig = rigFor(t)
    await rig.events(eventJson(0, created(1)), eventJson(1, stored(null, block(1))))
    await rig.poll(outcome)
    assert.equal(rig.matches([1]), 0)
    assert.deepEqual([rig.first.status().state, rig.first.status().gaps], ['unknown', 1])
    await rig.events(eventJson(4, stored(null, block(2))))
    assert.equal(rig.matches([2]), 1)
    const { state, gaps, partial } = rig.first.status()
    assert.deepEqual([state, gaps, partial], ['live', 1, true])
    assert.equal(rig.lines.filter(({ level }) => level === 'warn').length, 1)
  })
}

test('a poll that was refused or not sent takes nothing with it; a port that nobody listens on is a process that is gone', async (t) => {
  const rig = rigFor(t)
  await rig.events(eventJson(0, created(1)), eventJson(1, stored(null, block(1))))
  await rig.poll(answered(429))
  assert.deepEqual([rig.matches([1]), rig.first.status().state], [1, 'unknown'])
  await rig.poll({ kind: 'unreached', refused: false })
  assert.equal(rig.matches([1]), 1)
  await rig.events(eventJson(2, stored(1n, block(2))))
  assert.deepEqual([rig.matches([1, 2]), rig.first.status().state], [2, 'live'])
  await rig.poll({ kind: 'unreached', refused: true })
  assert.deepEqual([rig.matches([1, 2]), rig.first.status().gaps], [0, 0])
  await rig.events(eventJson(0, created(1)), eventJson(1, stored(null, block(3))))
  assert.deepEqual([rig.matches([3]), rig.first.status().partial], [1, false])
})

test('failing polls are tried ever more slowly, and said once', async (t) => {
  const rig = rigFor(t)
  const pauses: number[] = []
  for (let i = 0; i < 6; i++) pauses.push(await rig.poll({ kind: 'unreached', refused: false }))
  assert.deepEqual(pauses, [0, 200, 400, 800, 1600, 2000])
  assert.deepEqual([rig.counted[0]?.totals.disconnects, rig.lines.length], [1, 1])
})

test('a worker that cannot be reached is doubted, not cleared: ids tell whether events were lost meanwhile', async (t) => {
  const rig = rigFor(t)
  await rig.events(eventJson(0, created(1)), eventJson(1, stored(null, block(1))))
  rig.first.workerDown()
  assert.equal(rig.first.status().state, 'unknown')
  await rig.events(eventJson(2, stored(1n, block(2))))
  assert.deepEqual([rig.matches([1, 2]), rig.first.status().state], [2, 'live'])
  rig.first.workerDown()
  await rig.events(eventJson(4, stored(null, block(3))))
  assert.deepEqual([rig.matches([1]), rig.matches([3])], [0, 1])
})

test('events that somebody else polled are a gap, which is said with its likely cause once a minute', async (t) => {
  const rig = rigFor(t)
  await rig.events(eventJson(0, created(1)), eventJson(1, stored(null, block(1))))
  for (let id = 3; id < 13; id += 2) await rig.events(eventJson(id, stored(null, block(id))))
  const said = rig.lines.filter(({ message }) => message.includes('somebody else polls'))
  assert.deepEqual([said.length, rig.first.status().gaps, rig.counted[0]?.totals.gaps], [1, 5, 5])
})

test('an engine whose path takes GET only is asked that way', async (t) => {
  const rig = rigFor(t)
  await rig.poll(answered(405))
  await rig.events(eventJson(0, created(1)))
  await rig.events()
  assert.deepEqual(rig.methods, ['POST', 'GET', 'GET'])
})

test('an engine without the path has no events, and is asked again half a minute later', async (t) => {
  const rig = rigFor(t)
  await rig.poll(answered(404))
  assert.equal(rig.first.status().state, 'absent')
  assert.equal(await rig.events(eventJson(0, created(1))), 30_000)
  assert.equal(rig.first.status().state, 'live')
})

test('one poll feeds the workers of all ranks, each with ids of its own', async (t) => {
  const rig = rigFor(t, { ranks: [0, 1] })
  await rig.events(
    eventJson(0, created(1), { rank: 0 }),
    eventJson(0, created(1), { rank: 1 }),
    eventJson(1, stored(null, block(1)), { rank: 1 }),
    eventJson(0, created(1), { rank: 2 }),
  )
  assert.deepEqual([rig.matches([1], 0), rig.matches([1], 1)], [0, 1])
  await rig.events(eventJson(3, stored(null, block(2)), { rank: 1 }), eventJson(1, stored(null, block(5)), { rank: 0 }))
  assert.deepEqual([rig.matches([1], 1), rig.matches([2], 1), rig.matches([5], 0)], [0, 1, 1])
  assert.deepEqual(
    rig.sources.map((source) => source.status().gaps),
    [0, 1],
  )
  assert.deepEqual(rig.counted[0]?.skipped(), { rank_unknown: 1 })
})

test('an engine of several ranks that is one worker gets no credit: nobody can tell which cache a request meets', async (t) => {
  const rig = rigFor(t)
  await rig.events(eventJson(0, created(1), { rank: 0 }), eventJson(1, stored(null, block(1)), { rank: 0 }))
  assert.equal(rig.matches([1]), 1)
  await rig.events(eventJson(0, created(1), { rank: 1 }))
  assert.deepEqual([rig.matches([1]), rig.first.status().state], [0, 'absent'])
  assert.equal(rig.clock.waiting, 0, 'its events are left to others')
  assert.equal(rig.lines.filter(({ message }) => message.includes('several ranks')).length, 1)
})

test('a process that may not poll leaves the events to the one that may', async (t) => {
  let owner = false
  const rig = rigFor(t, { mayPoll: () => owner })
  for (let i = 0; i < 3; i++) rig.clock.next()
  assert.deepEqual(rig.methods, [])
  owner = true
  await rig.events(eventJson(0, created(1)))
  assert.equal(rig.first.status().state, 'live')
})

test('stopping the last worker ends a poll under way, and what it brings changes nothing', async (t) => {
  const rig = rigFor(t, { ranks: [0, 1] })
  await rig.events(eventJson(0, created(1), { rank: 0 }), eventJson(1, stored(null, block(1)), { rank: 0 }))
  rig.clock.next()
  await rig.first.stop()
  assert.equal(rig.ended(), 0)
  await rig.sources[1]?.stop()
  assert.equal(rig.ended(), 1)
  await new Promise((resolve) => setImmediate(resolve))
  assert.deepEqual([rig.clock.waiting, rig.matches([1]), rig.first.status().state], [0, 1, 'absent'])
})
test('an offloaded block is held by the host until it comes back or is removed', async (t) => {
  const rig = rigFor(t)
  await rig.events(eventJson(0, created(100, 50)), eventJson(1, stored(null, block(1), block(2), block(3))))
  await rig.events(eventJson(2, moved(3n, 0, 1)), eventJson(3, moved(2n, 0, 1)))
  assert.deepEqual(rig.tiers(), { gpu: 1, host: 2, disk: 0 })
  assert.equal(rig.matches([1, 2, 3]), 3)
  await rig.events(eventJson(4, moved(2n, 1, 0)), eventJson(5, removed(3n)))
  assert.deepEqual(rig.tiers(), { gpu: 2, host: 0, disk: 0 })
  assert.deepEqual(rig.counted[0]?.skipped(), {})
})

test('an engine that leaves a poll unanswered is no longer believed nor asked, until it was down', async (t) => {
  const rig = rigFor(t)
  await rig.events(eventJson(0, created(1)), eventJson(1, stored(null, block(1))))
  rig.clock.next()
  assert.equal(rig.clock.next(), 3_000)
  assert.deepEqual([rig.matches([1]), rig.first.status().state, rig.first.status().lastSequence], [0, 'absent', null])
  await new Promise((resolve) => setImmediate(resolve))
  const said = rig.lines.filter(({ level }) => level === 'warn')
  assert.deepEqual([rig.clock.waiting, said.length, rig.first.status().gaps], [0, 1, 0])
  rig.first.workerDown()
  assert.equal(rig.first.status().state, 'unknown')
  await rig.events(eventJson(0, created(1)), eventJson(1, stored(null, block(2))))
  assert.deepEqual([rig.matches([2]), rig.first.status().state, rig.first.status().partial], [1, 'live', false])
})

test('an engine that is down leaves polls unanswered without being late', async (t) => {
  const rig = rigFor(t)
  await rig.events(eventJson(0, created(1)), eventJson(1, stored(null, block(1))))
  rig.clock.next()
  rig.first.workerDown()
  rig.clock.next()
  assert.deepEqual([rig.matches([1]), rig.first.status().state], [1, 'unknown'])
  await rig.finish(answered(200, `[${eventJson(2, stored(1n, block(2)))}]`))
  assert.deepEqual([rig.matches([1, 2]), rig.first.status().state], [2, 'live'])
})
