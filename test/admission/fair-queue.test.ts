import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { FairQueue, type Entry, type Turn } from '../../src/admission/fair-queue.ts'

const turn = (keyId: string, options: Partial<Turn> = {}): Turn => ({
  keyId,
  weight: 1,
  priority: 0,
  costTokens: 10,
  deadlineMs: Infinity,
  ...options,
})

/** Takes all entries out, as the text of their values. */
function emptied(queue: FairQueue<string>): string {
  let text = ''
  for (let entry = queue.shift(); entry !== undefined; entry = queue.shift()) text += entry.value
  return text
}

function filled(...entries: readonly [string, Partial<Turn>?][]): FairQueue<string> {
  const queue = new FairQueue<string>()
  for (const [name, options] of entries) queue.push(turn(name.charAt(0), options), name)
  return queue
}

test('one key is served in the order in which it came', () => {
  assert.equal(emptied(filled(['a1'], ['a2', { costTokens: 1 }], ['a3'])), 'a1a2a3')
})

test('a key with many waiting does not stand before one that comes later', () => {
  assert.equal(emptied(filled(['a1'], ['a2'], ['a3'], ['a4'], ['b1'], ['b2'])), 'a1b1a2b2a3a4')
})

test('a key of twice the weight is served twice as often', () => {
  const queue = filled(...[1, 2, 3, 4].map((n): [string, Partial<Turn>] => [`a${n}`, { weight: 2 }]), ['b1'], ['b2'])
  assert.equal(emptied(queue), 'a1b1a2a3b2a4')
})

test('long prompts use up their key’s share faster', () => {
  const queue = filled(['a1', { costTokens: 30 }], ['a2'], ['b1'], ['b2'], ['b3'], ['b4'])
  assert.equal(emptied(queue), 'a1b1b2b3a2b4')
})

test('a lower priority number goes first whatever came before and however much it costs', () => {
  const queue = filled(['a1', { priority: 5 }], ['a2', { priority: 0, costTokens: 1e6 }], ['b1', { priority: -1 }])
  assert.equal(emptied(queue), 'b1a2a1')
})

test('a key that was just served does not gain by coming back', () => {
  const queue = filled(['a1', { costTokens: 100 }], ['b1'], ['b2'], ['b3'])
  assert.equal(queue.shift()?.value, 'a1')
  queue.push(turn('a'), 'a2')
  assert.equal(emptied(queue), 'b1b2b3a2')
})

test('a key that comes late has saved up nothing', () => {
  const queue = filled(['a1', { costTokens: 100 }], ['a2'], ['a3'], ['a4'])
  queue.shift()
  queue.shift()
  for (const name of ['b1', 'b2', 'b3']) queue.push(turn('b'), name)
  assert.equal(emptied(queue), 'b1a3b2a4b3')
})

test('a changed weight holds from the next request on', () => {
  const queue = filled(['a1'], ['b1'], ['b2'], ['b3'])
  for (const name of ['a2', 'a3', 'a4']) queue.push(turn('a', { weight: 10 }), name)
  assert.equal(emptied(queue), 'a1b1a2a3a4b2b3')
})

test('one that is taken out is never served, and costs its key nothing', () => {
  const queue = new FairQueue<string>()
  const long = queue.push(turn('a', { costTokens: 1000 }), 'a1')
  queue.push(turn('a'), 'a2')
  queue.push(turn('b'), 'b1')
  queue.push(turn('b'), 'b2')
  assert.equal(queue.remove(long), true)
  assert.equal(queue.remove(long), false)
  assert.equal(emptied(queue), 'a2b1b2')
})

test('overdue entries come out earliest deadline first, and no others', () => {
  const queue = filled(['a1', { deadlineMs: 30 }], ['a2', { deadlineMs: 10 }], ['b1', { deadlineMs: 20 }])
  assert.equal(queue.nextDeadlineMs, 10)
  assert.equal(queue.shiftExpired(9), undefined)
  assert.deepEqual(
    [queue.shiftExpired(20), queue.shiftExpired(20), queue.shiftExpired(20)].map((e) => e?.value),
    ['a2', 'b1', undefined],
  )
  assert.equal(emptied(queue), 'a1')
  assert.equal(queue.nextDeadlineMs, Infinity)
})

test('in a full queue the newest of the key that holds most for its weight gives way, the last class first', () => {
  const hog = filled(['a1'], ['a2'], ['a3'], ['b1'])
  assert.equal(hog.leastDeserving(turn('c'))?.value, 'a3')
  assert.equal(hog.leastDeserving(turn('b'))?.value, 'a3')
  assert.equal(hog.leastDeserving(turn('a')), null)
  assert.equal(hog.leastDeserving(turn('c', { priority: 1 })), null)
  assert.equal(hog.leastDeserving(turn('a', { priority: -1 }))?.value, 'a3')
  const even = filled(['a1'], ['b1'])
  assert.equal(even.leastDeserving(turn('c')), null)
  const weighted = filled(['a1', { weight: 4 }], ['a2', { weight: 4 }], ['a3', { weight: 4 }], ['b1'], ['b2'])
  assert.equal(weighted.leastDeserving(turn('c'))?.value, 'b2')
})

test('the number that waits is told by key', () => {
  const queue = filled(['a1'], ['a2', { priority: 1 }], ['b1'])
  assert.deepEqual(Object.fromEntries(queue.lengthByKey()), { a: 2, b: 1 })
  assert.equal(queue.length, 3)
})

interface Served {
  readonly key: number
  readonly cost: number
}

test('keys that wait all the time share the service by weight, to within one entry of each', () => {
  const keys = fc.array(
    fc.record({
      weight: fc.double({ min: 0.1, max: 10, noNaN: true }),
      costs: fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 5, maxLength: 60 }),
    }),
    { minLength: 2, maxLength: 6 },
  )
  fc.assert(
    fc.property(keys, (given) => {
      const queue = new FairQueue<Served>()
      for (const [key, { weight, costs }] of given.entries())
        for (const cost of costs) queue.push(turn(String(key), { weight, costTokens: cost }), { key, cost })
      const left = given.map(({ costs }) => costs.length)
      const got = given.map(() => 0)
      const most = given.map(({ weight, costs }) => Math.max(...costs) / weight)
      // As long as all of them wait, any two may differ by no more than their largest entries over their weights.
      while (left.every((count) => count > 0)) {
        const { key, cost } = queue.shift()?.value as Served
        left[key] = (left[key] as number) - 1
        got[key] = (got[key] as number) + cost / (given[key]?.weight as number)
        for (const [i, a] of got.entries())
          for (const [j, b] of got.entries())
            assert.ok(Math.abs(a - b) <= (most[i] as number) + (most[j] as number) + 1e-6)
      }
    }),
  )
})

test('in any order of pushing, taking and leaving: nothing is lost, doubled or overtaken by its own key', () => {
  const step = fc.record({
    kind: fc.constantFrom('push', 'push', 'push', 'shift', 'remove', 'expire'),
    key: fc.integer({ min: 0, max: 4 }),
    weight: fc.integer({ min: 1, max: 5 }),
    priority: fc.integer({ min: 0, max: 2 }),
    cost: fc.integer({ min: 0, max: 100 }),
    at: fc.nat({ max: 1000 }),
  })
  fc.assert(
    fc.property(fc.array(step, { minLength: 40, maxLength: 300 }), (steps) => {
      const queue = new FairQueue<number>()
      const waiting = new Map<number, Entry<number>>()
      const classOf = new Map<number, { key: number; priority: number }>()
      let pushed = 0
      const out = (entry: Entry<number> | undefined): void => {
        if (entry !== undefined) assert.ok(waiting.delete(entry.value), 'came out twice')
      }
      for (const { kind, key, weight, priority, cost, at } of steps) {
        switch (kind) {
          case 'push': {
            const number = pushed++
            classOf.set(number, { key, priority })
            const options = { weight, priority, costTokens: cost, deadlineMs: at }
            waiting.set(number, queue.push(turn(String(key), options), number))
            break
          }
          case 'shift': {
            const entry = queue.shift()
            assert.equal(entry === undefined, waiting.size === 0)
            if (entry === undefined) break
            const own = classOf.get(entry.value)
            for (const other of waiting.keys()) {
              const its = classOf.get(other)
              assert.ok((its?.priority ?? 0) >= (own?.priority ?? 0), 'a lower number goes first')
              if (its?.key === own?.key && its?.priority === own?.priority) assert.ok(other >= entry.value)
            }
            out(entry)
            break
          }
          case 'remove': {
            const entry = [...waiting.values()][at % Math.max(1, waiting.size)]
            if (entry === undefined) break
            assert.ok(queue.remove(entry))
            assert.ok(!queue.remove(entry))
            out(entry)
            break
          }
          case 'expire': {
            const entry = queue.shiftExpired(at)
            const least = Math.min(...[...waiting.values()].map(({ deadlineMs }) => deadlineMs))
            assert.equal(entry?.deadlineMs, least <= at ? least : undefined)
            out(entry)
            break
          }
          default:
            kind satisfies never
        }
        assert.equal(queue.length, waiting.size)
        assert.equal(
          [...queue.lengthByKey().values()].reduce((sum, count) => sum + count, 0),
          waiting.size,
        )
      }
      for (let entry = queue.shift(); entry !== undefined; entry = queue.shift()) out(entry)
      assert.equal(waiting.size, 0)
      assert.equal(queue.rememberedKeys, 0)
    }),
  )
})

test('a key that keeps waiting gets its turn however many others come', () => {
  const queue = new FairQueue<string>()
  queue.push(turn('first', { costTokens: 10 }), 'patient')
  let served = 0
  for (let newcomer = 0; ; newcomer++) {
    for (const part of ['x', 'y']) queue.push(turn(`${part}${newcomer % 7}`), `${part}${newcomer}`)
    served++
    if (queue.shift()?.value === 'patient') break
    assert.ok(served < 20, 'starves')
  }
})

test('keys that are gone are forgotten while others go on waiting', () => {
  const queue = new FairQueue<string>()
  for (let at = 0; at < 10_000; at++) {
    queue.push(turn(`once-${at}`), 'once')
    queue.push(turn('always'), 'always')
    queue.shift()
    if (at % 2 === 0) queue.shift()
    while (queue.length > 50) queue.shift()
    assert.ok(queue.rememberedKeys < 150, `${queue.rememberedKeys} keys are remembered`)
  }
})
