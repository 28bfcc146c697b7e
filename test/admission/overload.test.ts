import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RunningLimit } from '../../src/admission/running-limit.ts'
import { roomOf, type SaturationLimits } from '../../src/admission/saturation.ts'
import { seededRandom } from '../support/random.ts'

const limits: SaturationLimits = { waitingRequests: 8, kvUsage: 0.95, requestsPerWorker: null, staleMs: 3000 }

/** The first time that an engine is full can only be seen afterwards. */
const warmUpMs = 20_000

interface Load {
  /** Requests that the engine runs at a time, at a given moment. */
  readonly places: (nowMs: number) => number
  readonly arrivalsPerSecond: number
  readonly serviceMs: number
}

interface Seen {
  readonly mostWaiting: number
  /** Share of the engine's places that were in use. */
  readonly use: number
}

/**
 * An engine in virtual time, read every half second, in front of which requests are held back while `roomOf` tells of no
 * room; what was seen in it once it had been full.
 */
function overloaded(load: Load, seed: number): Seen {
  const random = seededRandom(seed)
  const limit = new RunningLimit()
  const ends: number[] = []
  let held = 0
  let waiting = 0
  let reading = { running: 0, waiting: 0, own: 0, atMs: 0 }
  let mostWaiting = 0
  let used = 0
  let offered = 0
  for (let nowMs = 0; nowMs < 60_000; nowMs++) {
    const places = load.places(nowMs)
    for (let at = ends.length - 1; at >= 0; at--) if ((ends[at] ?? 0) <= nowMs) ends.splice(at, 1)
    if (random() < load.arrivalsPerSecond / 1000) held++
    const room = (): number =>
      roomOf(
        {
          running: reading.running,
          waiting: reading.waiting,
          kvUsage: 0.5,
          loadAgeMs: nowMs - reading.atMs,
          ownRequests: ends.length + waiting,
          ownRequestsAtReading: reading.own,
          runningLimit: limit.value,
        },
        limits,
      )
    while (held > 0 && room() > 0) {
      held--
      waiting++
    }
    while (waiting > 0 && ends.length < places) {
      waiting--
      ends.push(nowMs + load.serviceMs * (0.5 + random()))
    }
    if (nowMs % 500 === 0) {
      reading = { running: ends.length, waiting, own: ends.length + waiting, atMs: nowMs }
      limit.read(reading)
    }
    if (nowMs < warmUpMs) continue
    mostWaiting = Math.max(mostWaiting, waiting)
    used += Math.min(places, ends.length)
    offered += places
  }
  return { mostWaiting, use: used / offered }
}

for (const [name, load] of [
  ['short answers', { places: () => 32, arrivalsPerSecond: 200, serviceMs: 400 }],
  ['long answers', { places: () => 256, arrivalsPerSecond: 60, serviceMs: 8000 }],
  ['few places', { places: () => 4, arrivalsPerSecond: 10, serviceMs: 1000 }],
] satisfies [string, Load][]) {
  test(`an overloaded engine is kept full, and its own queue as short as configured: ${name}`, () => {
    for (let seed = 1; seed <= 5; seed++) {
      const { mostWaiting, use } = overloaded(load, seed)
      assert.ok(mostWaiting <= limits.waitingRequests + 1, `${mostWaiting} wait in the engine`)
      assert.ok(use > 0.97, `only ${use} of the engine is used`)
    }
  })
}

test('an engine whose places change is neither left idle nor flooded for longer than it takes to see that', () => {
  const places = (nowMs: number): number => (nowMs % 20_000 < 10_000 ? 64 : 32)
  for (let seed = 1; seed <= 5; seed++) {
    const { mostWaiting, use } = overloaded({ places, arrivalsPerSecond: 150, serviceMs: 1000 }, seed)
    assert.ok(use > 0.93, `only ${use} of the engine is used`)
    assert.ok(mostWaiting < 60, `${mostWaiting} wait in the engine`)
  }
})

test('an engine that is not overloaded keeps nobody waiting outside', () => {
  const random = seededRandom(3)
  const limit = new RunningLimit()
  for (let reading = 0; reading < 1000; reading++) {
    // Now and then a burst is read in the moment in which it arrives.
    const burst = random() < 0.1
    limit.read({ running: Math.floor(random() * 100), waiting: burst && reading % 2 === 0 ? 5 : 0 })
  }
  assert.equal(limit.value, Infinity)
})
