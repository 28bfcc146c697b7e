import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Sleep } from '../../src/replication/sleep.ts'

test('a sleep lasts its time, and less where it is cut short', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const sleep = new Sleep()
  const over: string[] = []
  const first = sleep.of(1000).then(() => over.push('first'))
  t.mock.timers.tick(999)
  await Promise.resolve()
  assert.equal(over.length, 0)
  t.mock.timers.tick(1)
  await first
  const second = sleep.of(1000).then(() => over.push('second'))
  sleep.cut()
  await second
  assert.deepEqual(over, ['first', 'second'])
})

test('after the end no sleep takes time', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const sleep = new Sleep()
  const lasting = sleep.of(1000)
  sleep.end()
  await lasting
  const further = sleep.of(1000)
  t.mock.timers.tick(1)
  await further
})
