import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RouterError } from '../../src/errors.ts'
import { openInRows } from '../../src/simulator/port-ranges.ts'
import { Ports } from '../../src/simulator/ports.ts'
import { seededRandom } from '../support/random.ts'

const inUse = new RouterError('PORT_IN_USE', 'taken')

test('ranks get ports in a row, another row where one of them is taken, and the same after a restart', async () => {
  const ports = new Ports('127.0.0.1', { replay: 7_000 })
  const rows: number[][] = []
  let refusals = 2
  const options = { purposes: ['events', 'replay'], ranks: 3, random: seededRandom(5) }
  const open = async (): Promise<string> => {
    rows.push([0, 1, 2].map((rank) => ports.of('events', rank)))
    assert.deepEqual([ports.of('replay', 0), ports.of('replay', 2)], [7_000, 7_002], 'what was given stays')
    if (refusals-- > 0) throw inUse
    return Promise.resolve('open')
  }
  assert.equal(await openInRows(ports, options, open), 'open')
  assert.equal(rows.length, 3)
  assert.equal(new Set(rows.map(([first]) => first)).size, 3)
  for (const [first = 0, ...others] of rows) assert.deepEqual(others, [first + 1, first + 2])
  refusals = 0
  await openInRows(ports, options, open)
  assert.deepEqual(rows[3], rows[2])
})

test('ports that were given are not exchanged for others, nor is one that the system chooses', async () => {
  const given = new Ports('127.0.0.1', { events: 9_000 })
  const refused = (): Promise<never> => Promise.reject(inUse)
  const random = seededRandom(1)
  await assert.rejects(openInRows(given, { purposes: ['events'], ranks: 2, random }, refused), inUse)
  const any = new Ports('127.0.0.1', {})
  const first = await openInRows(any, { purposes: ['events'], ranks: 1, random }, () =>
    Promise.resolve(any.of('events')),
  )
  assert.equal(first, 0)
})

test('a machine without free rows is said to be so', async () => {
  const ports = new Ports('127.0.0.1', {})
  let tries = 0
  const refused = (): Promise<never> => {
    tries++
    return Promise.reject(inUse)
  }
  await assert.rejects(openInRows(ports, { purposes: ['events'], ranks: 2, random: seededRandom(2) }, refused), inUse)
  assert.equal(tries, 20)
})
