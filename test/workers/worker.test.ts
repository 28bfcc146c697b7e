import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Fleet, InFlight, InFlightCounters } from '../../src/workers/fleet.ts'
import { agree, agreementBias, agreementCoverage, agreementRatio, newAgreement } from '../../src/workers/agreement.ts'
import { workerAddress } from '../../src/workers/worker.ts'
import { aWorker } from '../support/routing.ts'

test('a worker’s id is canonical: lower-case host, explicit port, no user info, no trailing slash', () => {
  const cases = [
    ['http://Host:8000/', null, 'http://host:8000'],
    ['http://host', null, 'http://host:80'],
    ['https://host/v2/', 3, 'https://host:443/v2#3'],
    ['http://user:secret@host:1', null, 'http://host:1'],
    ['http://[::1]:9', 0, 'http://[::1]:9#0'],
  ] as const
  for (const [url, rank, id] of cases) assert.equal(workerAddress(url, rank).id, id)
  assert.equal(
    workerAddress('http://user:secret@host:1', null).headers['authorization'],
    `Basic ${Buffer.from('user:secret').toString('base64')}`,
  )
})

test('whatever happens to requests, in-flight counts return to zero', () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('prefilled' as const), left: fc.nat(3000) }),
    fc.record({ kind: fc.constant('generated' as const), tokens: fc.nat(100) }),
    fc.constant({ kind: 'release' as const }),
  )
  const request = fc.record({
    slot: fc.nat(3),
    promptTokens: fc.nat(2000),
    cached: fc.nat(2000),
    sequences: fc.integer({ min: 1, max: 4 }),
    steps: fc.array(step, { maxLength: 12 }),
  })
  fc.assert(
    fc.property(fc.array(request, { maxLength: 10 }), (requests) => {
      const counters = new InFlightCounters(4)
      const open: InFlight[] = []
      for (const { slot, promptTokens, cached, sequences, steps } of requests) {
        const inFlight = new InFlight(counters, slot, {
          promptTokens,
          uncachedTokens: Math.max(0, promptTokens - cached),
          blockSize: 16,
          sequences,
        })
        open.push(inFlight)
        for (const entry of steps) {
          if (entry.kind === 'prefilled') inFlight.prefilledTo(entry.left)
          else if (entry.kind === 'generated') inFlight.generated(entry.tokens)
          else inFlight.release()
          for (let at = 0; at < 4; at++) {
            assert.ok(counters.requests(at) >= 0 && counters.prefillTokens(at) >= 0 && counters.decodeBlocks(at) >= 0)
          }
        }
      }
      for (const inFlight of open) inFlight.release()
      for (let at = 0; at < 4; at++)
        assert.deepEqual([counters.requests(at), counters.prefillTokens(at), counters.decodeBlocks(at)], [0, 0, 0])
    }),
  )
})

test('decode blocks follow the prompt and what was generated so far', () => {
  const counters = new InFlightCounters(1)
  const inFlight = new InFlight(counters, 0, { promptTokens: 30, uncachedTokens: 30, blockSize: 16, sequences: 2 })
  assert.equal(counters.decodeBlocks(0), 4)
  inFlight.generated(4)
  assert.equal(counters.decodeBlocks(0), 4)
  inFlight.generated(2)
  assert.equal(counters.decodeBlocks(0), 6)
})

test('a fleet reuses slots but never serials, and refuses more than its limit', () => {
  const fleet = new Fleet(2)
  const add = (index: number) => fleet.add((slot, serial) => aWorker(index, { slot, serial }))
  const first = add(0)
  const second = add(1)
  assert.equal(add(2), null)
  fleet.remove(first!)
  const third = add(3)
  assert.deepEqual([first?.slot, second?.slot, third?.slot], [0, 1, 0])
  assert.deepEqual([first?.serial, second?.serial, third?.serial], [0, 1, 2])
  assert.equal(fleet.get(first!.id), undefined)
})

test('agreement is 1 − Σ|predicted − actual| / Σ max, with the bias and the share that could be verified', () => {
  const agreement = newAgreement()
  assert.deepEqual([agreementRatio(agreement), agreementBias(agreement), agreementCoverage(agreement)], [1, 0, 1])
  agree(agreement, 100, 100)
  agree(agreement, 100, 50)
  agree(agreement, 0, 100)
  agreement.requests = 4
  agreement.verified = 3
  assert.equal(agreementRatio(agreement), 1 - 150 / 300)
  assert.equal(agreementBias(agreement), -50 / 300)
  assert.equal(agreementCoverage(agreement), 3 / 4)
})
