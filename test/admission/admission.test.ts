import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Pass } from '../../src/admission/pass.ts'
import { anonymous } from '../../src/admission/caller.ts'
import { caller, limited, Rig, settled, type Sent } from './rig.ts'

const [a, b] = [caller('a'), caller('b')]

function errorOf({ outcome }: Sent) {
  if (outcome?.kind !== 'refused') return assert.fail(`not refused but ${outcome?.kind ?? 'waiting'}`)
  return outcome.error
}

test('where there is room a request goes on at once', () => {
  const rig = new Rig(2)
  const passes = [rig.enter(a), rig.enter(b)].map((sent) => rig.dispatch(sent))
  assert.deepEqual(
    passes.map(({ waitedMs }) => waitedMs),
    [0, 0],
  )
  assert.equal(rig.enter(a).outcome, null)
})

test('passes that are out and not in flight yet take room too', () => {
  const rig = new Rig(1)
  const first = rig.enter(a)
  const second = rig.enter(a)
  assert.equal(first.outcome?.kind, 'pass')
  assert.equal(second.outcome, null)
})

test('a request that waits gets the place of one that ends, and is told how long it waited', async () => {
  const rig = new Rig(1)
  const pass = rig.dispatch(rig.enter(a))
  const waiting = rig.enter(b)
  rig.hands.pass(1500)
  await settled()
  assert.equal(waiting.outcome, null)
  rig.end(pass)
  await settled()
  assert.equal(rig.dispatch(waiting).waitedMs, 1500)
  assert.equal(rig.hands.alarms, 0)
})

test('waking hands out as many passes as there is room, in fair order', async () => {
  const rig = new Rig(0)
  const waiting = [rig.enter(a), rig.enter(a), rig.enter(a), rig.enter(b)]
  rig.places = 2
  rig.admission.wake('m')
  rig.admission.wake('another')
  await settled()
  assert.deepEqual(
    waiting.map(({ outcome }) => outcome?.kind),
    ['pass', undefined, undefined, 'pass'],
  )
  assert.deepEqual(Object.fromEntries(rig.admission.queued('m')), { a: 2 })
  assert.equal(await rig.queuedGauge(), 2)
})

test('nobody overtakes those who wait, even where there is room again', async () => {
  const rig = new Rig(0)
  const waiting = rig.enter(a)
  rig.places = 1
  const later = rig.enter(b)
  await settled()
  assert.deepEqual([waiting.outcome?.kind, later.outcome], ['pass', null])
})

test('a request may stand back behind its key’s class, never push forward', async () => {
  const rig = new Rig(0)
  const pushing = rig.enter(b, { priority: -100 })
  const plain = rig.enter(a)
  const back = rig.enter(caller('c', { priority: -5 }), { priority: 7 })
  const urgent = rig.enter(caller('d', { priority: -1 }))
  const order: Sent[] = []
  for (rig.places = 1; rig.places <= 4; rig.places++) {
    rig.admission.wake('m')
    await settled()
    order.push(
      ...[pushing, plain, back, urgent].filter((sent) => sent.outcome?.kind === 'pass' && !order.includes(sent)),
    )
  }
  assert.deepEqual(order, [urgent, pushing, plain, back])
})

for (const [status, type] of [
  [429, 'RateLimitError'],
  [503, 'ServiceUnavailableError'],
  [529, 'OverloadedError'],
] as const) {
  test(`a full queue is answered ${status} where that is configured, with the time to come back`, async () => {
    const rig = new Rig(0, { requests: 1, overloadStatus: status })
    rig.enter(a)
    const second = rig.enter(a)
    await settled()
    const error = errorOf(second)
    assert.deepEqual([error.code, error.status, error.type], ['QUEUE_FULL', status, type])
    assert.equal(error.retryAfterSeconds, 30, 'nothing has ended yet')
    assert.equal(rig.refusals('queue_full'), 1)
  })
}

test('without a queue a request is refused at once', async () => {
  const rig = new Rig(0, { requests: 0 })
  const sent = rig.enter(a)
  await settled()
  assert.equal(errorOf(sent).code, 'QUEUE_FULL')
  assert.equal(rig.hands.alarms, 0)
})

test('no key can fill the queue against the others: its newest request gives way', async () => {
  const rig = new Rig(0, { requests: 3 })
  const hog = [rig.enter(a), rig.enter(a), rig.enter(a)]
  const other = rig.enter(b)
  await settled()
  assert.deepEqual(
    hog.map(({ outcome }) => outcome?.kind),
    [undefined, undefined, 'refused'],
  )
  assert.equal(errorOf(hog[2] as Sent).code, 'QUEUE_FULL')
  assert.equal(other.outcome, null)
})

test('a request that has waited too long is refused at its deadline', async () => {
  const rig = new Rig(1, { timeoutMs: 10_000, overloadStatus: 529 })
  rig.dispatch(rig.enter(a))
  const first = rig.enter(a)
  rig.hands.pass(4000)
  const second = rig.enter(a)
  rig.hands.pass(5999)
  await settled()
  assert.equal(first.outcome, null)
  rig.hands.pass(1)
  await settled()
  const error = errorOf(first)
  assert.deepEqual([error.code, error.status], ['QUEUE_TIMEOUT', 529])
  assert.match(error.message, /waited 10 s/)
  assert.equal(second.outcome, null)
  rig.hands.pass(4000)
  await settled()
  assert.equal(errorOf(second).code, 'QUEUE_TIMEOUT')
  assert.equal(rig.hands.alarms, 0)
})

test('a request whose deadline is over is not handed out, even where its alarm is late', async () => {
  const rig = new Rig(1, { timeoutMs: 10_000 })
  const pass = rig.dispatch(rig.enter(a))
  const waiting = rig.enter(a)
  rig.hands.nowMs += 10_000
  rig.end(pass)
  await settled()
  assert.equal(errorOf(waiting).code, 'QUEUE_TIMEOUT')
})

test('the refused are told to come back when the queue will be empty, as fast as requests end', async () => {
  const rig = new Rig(1, { requests: 5 })
  // Two requests end each second.
  for (let at = 0; at < 20; at++) {
    const pass = rig.dispatch(rig.enter(a))
    rig.hands.pass(500)
    rig.end(pass)
  }
  rig.dispatch(rig.enter(a))
  const waiting = Array.from({ length: 6 }, () => rig.enter(a))
  await settled()
  assert.equal(errorOf(waiting[5] as Sent).retryAfterSeconds, 3)
})

test('a request whose client left is never handed out', async () => {
  const rig = new Rig(1)
  const pass = rig.dispatch(rig.enter(a))
  const [left, next] = [rig.enter(a), rig.enter(a)]
  left.leave()
  rig.end(pass)
  await settled()
  assert.deepEqual([left.outcome?.kind, next.outcome?.kind], ['gone', 'pass'])
  assert.equal(rig.refusals('client_gone'), 1)
  next.leave()
  assert.equal(rig.refusals('client_gone'), 1)
})

test('ending refuses those who wait and those who come; passes that are out stay good', async () => {
  const rig = new Rig(1)
  const pass = rig.dispatch(rig.enter(a))
  const waiting = rig.enter(a)
  rig.admission.close()
  const late = rig.enter(a)
  await settled()
  for (const sent of [waiting, late])
    assert.deepEqual([errorOf(sent).code, errorOf(sent).status, errorOf(sent).retryAfterSeconds], ['DRAINING', 503, 1])
  rig.end(pass)
  assert.equal(rig.hands.alarms, 0)
})

test('limits of keys come before the queue, and the queued count as running', async () => {
  const rig = new Rig(0)
  const key = limited('k', { concurrency: 1 })
  const first = rig.enter(key)
  const second = rig.enter(key)
  assert.deepEqual([errorOf(second).code, errorOf(second).status], ['RATE_LIMITED', 429])
  assert.equal(rig.refusals('rate_limited'), 1)
  first.leave()
  assert.equal(rig.enter(key).outcome, null)
  await settled()
})

test('who was refused, left, or got no worker has used none of its limits', async () => {
  const rig = new Rig(1, { requests: 2 })
  const key = limited('k', { requestsPerMinute: 60, tokensPerMinute: 600, concurrency: 10 })
  const first = rig.enter(key, { promptTokens: 100 })
  assert.equal(rig.admission.rates.figures(key)?.tokens?.remaining, 500)
  const left = rig.enter(key)
  const late = rig.enter(key)
  const full = rig.enter(key)
  left.leave()
  rig.hands.pass(10_000)
  await settled()
  assert.deepEqual([errorOf(full).code, errorOf(late).code], ['QUEUE_FULL', 'QUEUE_TIMEOUT'])
  if (first.outcome?.kind === 'pass') first.outcome.pass.done(0)
  assert.deepEqual(rig.admission.rates.figures(key)?.requests, { limit: 60, remaining: 60, resetMs: 0 })
  assert.deepEqual(rig.admission.rates.figures(key)?.tokens, { limit: 600, remaining: 600, resetMs: 0 })
})

test('what a request generated is charged when it ends', () => {
  const rig = new Rig(1)
  const key = limited('k', { tokensPerMinute: 600 })
  rig.end(rig.dispatch(rig.enter(key, { promptTokens: 100 })), 40)
  assert.equal(rig.admission.rates.figures(key)?.tokens?.remaining, 460)
})

test('a pass that was never sent frees its room when it is given back', async () => {
  const rig = new Rig(1)
  const unused = rig.enter(a)
  const waiting = rig.enter(a)
  if (unused.outcome?.kind === 'pass') unused.outcome.pass.done(0)
  await settled()
  assert.equal(waiting.outcome?.kind, 'pass')
})

test('other settings hold for requests that come from then on', async () => {
  const rig = new Rig(0)
  const first = rig.enter(a)
  rig.admission.reconfigure({ queue: { requests: 2, timeoutMs: 100 }, overloadStatus: 503 })
  const [second, third] = [rig.enter(b), rig.enter(b)]
  rig.hands.pass(100)
  await settled()
  assert.deepEqual([errorOf(third).status, errorOf(second).code, first.outcome], [503, 'QUEUE_TIMEOUT', null])
})

test('whatever happens: no more run than there is room, each request ends in one way, and nothing is kept', async () => {
  const step = fc.record({
    kind: fc.constantFrom('enter', 'enter', 'enter', 'leave', 'end', 'end', 'unused', 'pass', 'places'),
    at: fc.nat({ max: 1000 }),
  })
  const keys = [
    anonymous,
    limited('k', { concurrency: 3, requestsPerMinute: 100 }),
    caller('w', { weight: 3 }),
    limited('t', { tokensPerMinute: 1000 }),
  ]
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 120 }), async (steps) => {
      const rig = new Rig(2, { requests: 4, timeoutMs: 3000 })
      const open = new Set<Sent>()
      const gone = new Set<Sent>()
      const running: Pass[] = []
      const take = async (): Promise<void> => {
        await settled()
        for (const sent of open) {
          if (sent.outcome === null) continue
          open.delete(sent)
          if (sent.outcome.kind !== 'pass') continue
          assert.ok(!gone.has(sent), 'a request whose client had left got a pass')
          running.push(rig.dispatch(sent))
        }
        assert.equal(rig.running, running.length)
        const queued = [...rig.admission.queued('m').values()].reduce((sum, count) => sum + count, 0)
        assert.equal(queued, open.size, 'all that wait are in the queue and nothing else is')
        assert.ok(queued <= 4)
        assert.ok(queued === 0 || rig.running >= rig.places, 'nobody waits while there is room')
      }
      for (const { kind, at } of steps) {
        switch (kind) {
          case 'enter': {
            const before = rig.running
            const sent = rig.enter(keys[at % keys.length] ?? anonymous)
            if (sent.outcome?.kind === 'pass') assert.ok(before < rig.places)
            open.add(sent)
            break
          }
          case 'leave': {
            const waiting = [...open][at % Math.max(1, open.size)]
            if (waiting === undefined) break
            gone.add(waiting)
            waiting.leave()
            break
          }
          case 'end':
          case 'unused': {
            const [pass] = running.splice(at % Math.max(1, running.length), 1)
            if (pass === undefined) break
            rig.end(pass, at)
            pass.done(at)
            pass.sent()
            break
          }
          case 'pass':
            rig.hands.pass(at)
            break
          case 'places':
            rig.places = 1 + (at % 3)
            rig.admission.wake('m')
            break
          default:
            kind satisfies never
        }
        await take()
      }
      rig.places = Infinity
      rig.admission.wake('m')
      await take()
      for (const pass of running.splice(0)) rig.end(pass)
      assert.equal(open.size, 0)
      assert.equal(rig.hands.alarms, 0)
      // Nothing of what ran is left behind: as many may run again as ever.
      rig.hands.pass(3_600_000)
      for (let at = 0; at < 3; at++)
        assert.equal(rig.enter(limited('k', { concurrency: 3 }), { promptTokens: 0 }).outcome?.kind, 'pass')
    }),
    { numRuns: 60 },
  )
})
