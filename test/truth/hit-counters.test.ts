// Answers that do not tell what they found: the engine's own hit counters do, where all of its traffic is ours.
import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { createKeyMaker, type KeyMaker } from '../../src/kv/keys.ts'
import type { Misreport } from '../../src/simulator/misreport.ts'
import { agreementCoverage, agreementRatio } from '../../src/workers/agreement.ts'
import { seededRandom } from '../support/random.ts'
import { TruthRig } from '../support/truth-rig.ts'

let keys: KeyMaker
before(async () => {
  keys = await createKeyMaker(Buffer.from('a secret'))
})

function rigOf(capacityBlocks: number, misreport: readonly Misreport[] = []): TruthRig {
  return new TruthRig({
    keys,
    random: seededRandom(5),
    reports: false,
    eventDelayMs: 5,
    engine: { capacityBlocks },
    misreport,
  })
}

const prompt = (conversation: number): Uint32Array =>
  Uint32Array.from({ length: 300 }, (_, at) => 1000 + ((conversation * 7919 + at * 31) % 30_000))

/** Turns of many conversations in their order, which a small cache has forgotten when they come again. */
function drive(rig: TruthRig, requests: number, each: (sent: number) => void = () => undefined): void {
  for (let sent = 0; sent < requests; sent++) {
    rig.send({ tokens: prompt(sent % 20), outputTokens: 4, stream: true })
    each(sent)
    rig.run(60)
  }
}

test('without a report all requests are verified, and agree with what the engine counts', () => {
  const rig = rigOf(2000)
  drive(rig, 400)
  const { agreement } = rig.worker
  assert.ok(agreementCoverage(agreement) > 0.9, `${agreementCoverage(agreement)}`)
  assert.ok(agreement.predicted > 10_000)
  assert.ok(agreementRatio(agreement) > 0.97, `${agreementRatio(agreement)}`)
  assert.deepEqual(rig.causes, [])
  assert.equal(rig.worker.degraded, null)
})

test('an engine that forgets without a word is found out by its counters within 100 requests', () => {
  const rig = rigOf(100, ['removals-untold'])
  let needed = 0
  drive(rig, 120, (sent) => {
    if (rig.worker.degraded === null) needed = sent
  })
  assert.equal(rig.worker.degraded, 'predictions_fail')
  assert.ok(needed <= 100, `${needed} requests`)
  assert.deepEqual(rig.causes, ['finds_less'])
  assert.equal(rig.log.filter(({ level }) => level === 'error').length, 1)
})

test('nobody need ask for its counters while they would tell nothing new', () => {
  const rig = rigOf(2000)
  const due: boolean[] = []
  assert.equal(rig.truth.wantsHits(rig.worker), true, 'a first reading begins')
  drive(rig, 60, () => due.push(rig.truth.wantsHits(rig.worker)))
  assert.ok(due.filter((isDue) => isDue).length < 10, `${due.filter((isDue) => isDue).length} of 60`)
})

test('while others send to the engine as well, its counters say nothing of our part', () => {
  const rig = rigOf(100, ['removals-untold'])
  drive(rig, 300, (sent) => rig.foreign(prompt(1000 + sent)))
  assert.equal(rig.worker.degraded, null)
  assert.ok(agreementCoverage(rig.worker.agreement) < 0.3)
})
