import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ReplicaRequests } from '../../src/replication/replica-requests.ts'

function setUp(requests: readonly (readonly [replica: string, number: number, entry: string])[]) {
  const ended: string[] = []
  const followed = new ReplicaRequests<string>((entry) => ended.push(entry))
  for (const [replica, number, entry] of requests) followed.add(replica, number, entry)
  return { ended, followed }
}

test('a request is known by its replica and its number there, and ends once', () => {
  const { ended, followed } = setUp([
    ['one', 7, 'a'],
    ['other', 7, 'b'],
  ])
  assert.deepEqual([followed.get('one', 7), followed.get('other', 7), followed.get('one', 8)], ['a', 'b', undefined])
  followed.end('one', 7)
  followed.end('one', 7)
  followed.end('nobody', 7)
  assert.deepEqual(ended, ['a'])
  assert.equal(followed.count, 1)
})

test('nobody hears of the end of a request that was dropped', () => {
  const { ended, followed } = setUp([['one', 7, 'a']])
  followed.drop('one', 7)
  followed.forget('one')
  assert.deepEqual(ended, [])
  assert.equal(followed.count, 0)
})

test('with a replica all its requests end, and no others', () => {
  const { ended, followed } = setUp([
    ['one', 1, 'a'],
    ['other', 1, 'b'],
    ['one', 2, 'c'],
  ])
  followed.forget('one')
  assert.deepEqual(ended, ['a', 'c'])
  assert.equal(followed.get('other', 1), 'b')
})

test('a replica that says too much loses its oldest request, and others lose none', () => {
  const { ended, followed } = setUp([['other', 0, 'first']])
  for (let number = 0; number < 4097; number++) followed.add('one', number, `request ${number}`)
  assert.deepEqual(ended, ['request 0'])
  assert.equal(followed.count, 4097)
})

test('requests end where something holds for them, or from the oldest on as far as it does', () => {
  const requests = ['x', 'y', 'x'].map((entry, number) => ['one', number, entry] as const)
  const anywhere = setUp(requests)
  anywhere.followed.endWhere((entry) => entry === 'x')
  assert.deepEqual([anywhere.ended, anywhere.followed.count], [['x', 'x'], 1])
  const oldest = setUp(requests)
  oldest.followed.endOldest((entry) => entry === 'x')
  assert.deepEqual([oldest.ended, oldest.followed.count], [['x'], 2])
})
