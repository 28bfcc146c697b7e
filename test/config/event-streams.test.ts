import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { checkAddedWorker, checkConfig, parseWorkerList } from '../../src/config/load.ts'
import { streamName } from '../../src/config/stream-name.ts'
import { RouterError } from '../../src/errors.ts'

const redis = { url: 'redis://h:6379' }

function faultOf(check: () => unknown): string {
  try {
    check()
  } catch (error) {
    if (error instanceof RouterError) return error.message
    throw error
  }
  return ''
}

const faultOfWorkers = (workers: readonly object[], more: object = { redis }): string =>
  faultOf(() => checkConfig({ pools: [{ model: 'm', workers }], ...more }))

const worker = (events: object, url = 'http://a:1'): object => ({ url, events })

test('a stream is kept for ten minutes unless the config says otherwise', () => {
  const { pools } = checkConfig({ redis, pools: [{ model: 'm', workers: [worker({ redis: 'kv:a' })] }] })
  const events = pools[0]?.workers[0]?.events
  assert.ok(events !== undefined && events !== false)
  assert.deepEqual([events.redis, events.retainSeconds], ['kv:a', 600])
})

test('a stream without a Redis to read it from is one clear fault', () => {
  const fault = faultOfWorkers([worker({ redis: 'kv:a' })], {})
  assert.equal(fault, 'pools[0].workers[0].events.redis: there is no Redis to read "kv:a" from; give redis.url')
})

test('events come from one place', () => {
  for (const other of [{ endpoint: 'tcp://a:1' }, { replay: 'tcp://a:1' }, { bind: 'tcp://a:1' }, { poll: true }]) {
    const given = { redis: 'kv:a', ...other }
    const pattern = /"redis" and "\w+" exclude each other/
    assert.match(faultOfWorkers([worker(given)]), pattern)
    assert.match(
      faultOf(() => checkAddedWorker(worker(given))),
      pattern,
    )
    assert.match(
      faultOf(() => parseWorkerList(JSON.stringify([worker(given)]), 'list')),
      pattern,
    )
  }
  assert.equal(faultOfWorkers([worker({ redis: 'kv:a', poll: false })]), '')
})

test('two workers cannot have one stream', () => {
  const two = (name: string): string => faultOfWorkers([worker({ redis: name }), worker({ redis: name }, 'http://b:1')])
  assert.match(two('kv'), /workers\[1\].events.redis: "kv" is the stream of pools\[0\].workers\[0\]/)
  assert.equal(two('kv:%h'), '')
})

test('workers that a discovery finds have a stream each', () => {
  const found = (name: string): string =>
    faultOf(() =>
      checkConfig({
        redis,
        pools: [{ model: 'm', discovery: { file: { path: 'f' }, worker: { events: { redis: name } } } }],
      }),
    )
  assert.match(found('kv'), /discovery.worker.events.redis: "kv" would be the stream of all/)
  assert.equal(found('kv:%h'), '')
})

test('in a cluster streams lie where the router’s own keys do', () => {
  const clustered = { redis: { cluster: { nodes: ['h:6379'] }, prefix: 'team' } }
  const faultOfName = (name: string): string => faultOfWorkers([worker({ redis: name })], clustered)
  assert.match(faultOfName('kv'), /let \{team\} stand in the name/)
  assert.equal(faultOfName('{team}:kv'), '')
})

test('a stream is named after the worker’s host, port and rank', () => {
  assert.equal(streamName('kv', 'http://a:8000', null), 'kv')
  assert.equal(streamName('kv', 'http://a:8000', 3), 'kv:3')
  assert.equal(streamName('kv-%r', 'http://a:8000', 3), 'kv-3')
  assert.equal(streamName('kv-%r', 'http://a:8000', null), 'kv-0')
  assert.equal(streamName('{kv}:%h:%p', 'https://user:secret@Host/base', null), '{kv}:host:443')
  assert.equal(streamName('%h/%p/%x', 'http://[::1]:80', null), '::1/80/%x')
})

test('the config that the docs show is one that runs', async () => {
  const page = readFileSync(new URL('../../docs/event-stream.md', import.meta.url), 'utf8')
  const [, text = ''] = /```yaml\n(.*?)```/s.exec(page) ?? []
  const { parse } = await import('yaml')
  assert.equal(
    faultOf(() => checkConfig(parse(text))),
    '',
  )
})
