import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { WorkerConfig } from '../../src/config/schema.ts'
import { eventsPlace } from '../../src/main/worker-config.ts'
import type { EngineEvents, RankFacts } from '../../src/workers/engine.ts'

const facts = (events: EngineEvents | null): RankFacts => ({ rank: null, blockSize: 32, capacityBlocks: null, events })
const polled: EngineEvents = { kind: 'poll', url: 'http://h:8000/kv_cache_events' }
const published: EngineEvents = { kind: 'zmq', endpoint: 'tcp://h:5557', replay: null, topic: 'kv' }

function placeOf(events: WorkerConfig['events'], told: EngineEvents | null, rank: number | null = null) {
  const given: WorkerConfig = { url: 'http://user:secret@h:8000/base/', ...(events === undefined ? {} : { events }) }
  return eventsPlace(given, rank, facts(told))
}

test('events are where the engine says, unless the config says otherwise', () => {
  assert.deepEqual(placeOf(undefined, polled), polled)
  assert.deepEqual(placeOf(undefined, published), { ...published, bind: null })
  assert.equal(placeOf(undefined, null), null)
  assert.equal(placeOf(false, polled), null)
})

test('polling is configured as on, at another URL, or off; its URL bears no credentials', () => {
  assert.deepEqual(placeOf({ poll: true }, null), { kind: 'poll', url: 'http://h:8000/base/kv_cache_events' })
  assert.deepEqual(placeOf({ poll: 'http://other:9/events' }, polled), { kind: 'poll', url: 'http://other:9/events' })
  assert.equal(placeOf({ poll: false }, polled), null)
})

test('a configured publisher comes before what the engine offers, on port + rank', () => {
  const place = placeOf({ endpoint: 'tcp://h:7000' }, polled, 3)
  assert.deepEqual(place, { kind: 'zmq', endpoint: 'tcp://h:7003', replay: null, topic: '', bind: null })
})

test('a stream that somebody writes comes before what the engine offers; each rank has its own', () => {
  const place = placeOf({ redis: 'kv:%h', retainSeconds: 60 }, published, 2)
  assert.deepEqual(place, { kind: 'stream', name: 'kv:h:2', retainMs: 60_000 })
  assert.deepEqual(placeOf({ redis: 'kv', retainSeconds: 0 }, polled), { kind: 'stream', name: 'kv', retainMs: null })
})
