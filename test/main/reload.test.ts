import assert from 'node:assert/strict'
import { test } from 'node:test'
import { checkConfig } from '../../src/config/load.ts'
import { changedOptions, Reloader, type Reloadable } from '../../src/main/reload.ts'
import { RouterError } from '../../src/errors.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import { collectingLog, type LogLine } from '../support/fleet.ts'

const config = (more: object = {}) => checkConfig({ pools: [{ model: 'm' }], ...more })

function reloader(given: object, parts: readonly Reloadable[]) {
  const log: LogLine[] = []
  return {
    log,
    reloader: new Reloader({
      config: config(),
      load: () => config(given),
      parts,
      log: collectingLog(log),
      metrics: createMetrics(),
    }),
  }
}

test('nothing changes unless every part can', async () => {
  const changed: string[] = []
  const { reloader: one, log } = reloader({ expose: 'all' }, [
    () => () => changed.push('first'),
    () => Promise.reject(new RouterError('TOKENIZER_UNREADABLE', 'no such file')),
    () => () => changed.push('third'),
  ])
  assert.equal(await one.reload(), 'failed')
  assert.deepEqual(changed, [])
  assert.equal(log[0]?.fields['fault'], 'no such file')
})

test('parts change in their order, all in one turn, with what waits for a restart left as it is', async () => {
  const seen: unknown[] = []
  const { reloader: one } = reloader(
    { expose: 'all', map: { budgetBytes: 2 ** 21 }, keys: { secret: 'x'.repeat(16) } },
    [
      (next, before) => {
        void Promise.resolve().then(() => seen.push('later'))
        return () => seen.push([before.expose, next.expose, next.map.budgetBytes, next.keys.secret])
      },
      () => () => seen.push('second'),
    ],
  )
  assert.equal(await one.reload(), 'applied')
  assert.deepEqual(seen, ['later', ['loopback', 'all', config().map.budgetBytes, undefined], 'second'])
})

test('reloads that are asked for while one waits are one', async () => {
  let prepared = 0
  const { reloader: one } = reloader({ expose: 'all' }, [() => (prepared++, () => undefined)])
  const results = await Promise.all([one.reload(), one.reload(), one.reload()])
  assert.deepEqual(results, ['applied', 'applied', 'applied'])
  assert.equal(prepared, 1)
  assert.equal(await one.reload(), 'unchanged')
})

test('changed options are named by their path, a list as one', () => {
  const before = { a: { b: 1, c: [1, 2] }, d: 'x' }
  assert.deepEqual(changedOptions(before, structuredClone(before)), [])
  assert.deepEqual(changedOptions(before, { a: { b: 2, c: [1, 3] }, e: 1 }), ['a.b', 'a.c', 'd', 'e'])
})
