import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import type { RedisCommands } from '../../src/replication/redis-commands.ts'
import { until } from '../support/until.ts'

/** What every implementation of the commands does alike. Keys of a run begin with `prefix`. */
export function redisCommandsContract(
  name: string,
  open: (t: TestContext) => Promise<{ commands: RedisCommands; prefix: string }>,
): void {
  const bytes = Buffer.from([0, 255, 13, 10])

  test(`${name}: values, with and without a time to live`, async (t) => {
    const { commands, prefix } = await open(t)
    const [a, b, c] = [`${prefix}a`, `${prefix}b`, `${prefix}c`] as const
    await commands.set(a, bytes, null)
    assert.deepEqual(await commands.get([a, b]), [bytes, null])
    assert.deepEqual(await commands.setIfAbsent([a, b], 'me', 10_000), [false, true])
    assert.deepEqual(await commands.expire([b, c], 20), [true, false])
    await until(async () => (await commands.get([b]))[0] === null, 'b has run out')
    await commands.set(a, 'text', 20)
    await until(async () => (await commands.get([a]))[0] === null, 'a has run out')
    await commands.set(a, 'again', null)
    await commands.delete([a, b])
    assert.deepEqual(await commands.get([a, b]), [null, null])
    for (const none of [commands.get([]), commands.setIfAbsent([], '', 1), commands.expire([], 1)])
      assert.deepEqual(await none, [])
    await commands.delete([])
  })

  test(`${name}: a stream is read in order, from any place`, async (t) => {
    const { commands, prefix } = await open(t)
    const stream = `${prefix}events`
    assert.equal(await commands.lastId(stream), null)
    const ids: string[] = []
    for (const text of ['a', 'b', 'c']) ids.push(await commands.append(stream, 'v1', Buffer.from(text), 100))
    assert.equal(await commands.lastId(stream), ids[2])
    const read = async (id: string, most: number): Promise<string[]> => {
      const [found] = await commands.read([{ stream, id }], most, 0)
      return (found?.entries ?? []).map(({ fields }) => fields.join())
    }
    assert.deepEqual(await read('0-0', 10), ['v1,a', 'v1,b', 'v1,c'])
    assert.deepEqual(await read('0-0', 2), ['v1,a', 'v1,b'])
    assert.deepEqual(await read(ids[1] ?? '', 10), ['v1,c'])
    assert.deepEqual(await read(ids[2] ?? '', 10), [])
    const range = async (from: string, to: string): Promise<string[]> =>
      (await commands.range(stream, from, to, 10)).map(({ id }) => id)
    assert.deepEqual(await range('-', '+'), ids)
    assert.deepEqual(await range(ids[1] ?? '', ids[1] ?? ''), [ids[1]])
  })

  test(`${name}: a read waits for what comes, on any of its streams, and not for ever`, async (t) => {
    const { commands, prefix } = await open(t)
    const streams = [`${prefix}one`, `${prefix}two`]
    const after = streams.map((stream) => ({ stream, id: '0-0' }))
    assert.deepEqual(await commands.read(after, 10, 20), [])
    const waiting = commands.read(after, 10, 5000)
    const id = await commands.append(`${prefix}two`, 'v1', bytes, 100)
    assert.deepEqual(await waiting, [{ stream: `${prefix}two`, entries: [{ id, fields: [Buffer.from('v1'), bytes] }] }])
  })

  test(`${name}: a stream keeps about as much as it is told to`, async (t) => {
    const { commands, prefix } = await open(t)
    const stream = `${prefix}events`
    const ids: string[] = []
    for (let i = 0; i < 1000; i++) ids.push(await commands.append(stream, 'v1', bytes, 300))
    const kept = await commands.range(stream, '-', '+', 1000)
    assert.ok(kept.length >= 300 && kept.length < 600, `${kept.length} entries`)
    await commands.trimBefore(stream, ids[900] ?? '')
    const left = await commands.range(stream, '-', '+', 1000)
    assert.ok(left.length >= 100 && left.length <= 300, `${left.length} entries`)
    assert.equal(left.at(-1)?.id, ids[999])
  })
}
