// Engines that do what they say, however hard they are pressed: nothing may ever be said against them.
import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { createKeyMaker, type KeyMaker } from '../../src/kv/keys.ts'
import { seededRandom } from '../support/random.ts'
import { TruthRig, type RigRequest, type TruthRigOptions } from '../support/truth-rig.ts'

const seed = Number(process.env['WARMROUTE_TRUTH_SEED'] ?? 20261123)
/** The full measure is 100,000 in all; a larger one is for long runs. */
const requests = Number(process.env['WARMROUTE_TRUTH_REQUESTS'] ?? 100_000)

let keys: KeyMaker
before(async () => {
  keys = await createKeyMaker(Buffer.from('a secret'))
})

interface Load extends Partial<TruthRigOptions> {
  readonly share: number
  /** Requests at once, at most. */
  readonly burst: number
  readonly pauseMs: number
  /** Distinct conversations and their longest prompt in blocks. */
  readonly conversations: number
  readonly blocks: number
  readonly restarts?: boolean
  readonly leaves?: boolean
  /** Others have filled the engine's cache before. */
  readonly warmUp?: boolean
}

const loads: Readonly<Record<string, Load>> = {
  'conversations that fit': { share: 0.15, burst: 2, pauseMs: 60, conversations: 20, blocks: 24 },
  'a cache that evicts all the time': {
    share: 0.15,
    burst: 4,
    pauseMs: 40,
    conversations: 200,
    blocks: 12,
    engine: { capacityBlocks: 160 },
    eventDelayMs: 30,
  },
  'a queue before a cache that is far too small': {
    share: 0.15,
    burst: 24,
    pauseMs: 700,
    conversations: 40,
    blocks: 10,
    engine: { capacityBlocks: 48, maxRunningRequests: 4 },
    eventDelayMs: 200,
  },
  'bursts of one prompt': { share: 0.1, burst: 40, pauseMs: 400, conversations: 1, blocks: 30, eventDelayMs: 100 },
  'restarts, resets and clients that leave': {
    share: 0.15,
    burst: 6,
    pauseMs: 50,
    conversations: 60,
    blocks: 12,
    engine: { capacityBlocks: 400 },
    eventDelayMs: 50,
    restarts: true,
    leaves: true,
  },
  'a router that comes to a warm engine, which repeats nothing': {
    share: 0.1,
    burst: 6,
    pauseMs: 50,
    conversations: 60,
    blocks: 12,
    engine: { capacityBlocks: 600 },
    eventDelayMs: 50,
    heardFromMs: 20_000,
    warmUp: true,
  },
  'the same of an engine that reports no cached tokens': {
    share: 0.05,
    burst: 6,
    pauseMs: 50,
    conversations: 60,
    blocks: 12,
    engine: { capacityBlocks: 600 },
    heardFromMs: 20_000,
    reports: false,
    warmUp: true,
  },
  'engines that report no cached tokens': {
    share: 0.15,
    burst: 6,
    pauseMs: 50,
    conversations: 100,
    blocks: 12,
    engine: { capacityBlocks: 300 },
    eventDelayMs: 300,
    reports: false,
  },
}

for (const [name, load] of Object.entries(loads)) {
  const count = Math.round(requests * load.share)
  test(`${name}: no false alarm in ${count} requests (seed ${seed})`, () => {
    const random = seededRandom(seed)
    const rig = new TruthRig({ keys, random, ...load })
    const expected = load.reports === false ? ['details_off'] : []
    if (load.warmUp === true) {
      for (let i = 0; i < 300; i++) {
        rig.foreign(requestOf(random, load, -1).tokens)
        rig.run(60)
      }
      rig.run(20_000)
    }
    let sent = 0
    while (sent < count) {
      const burst = 1 + Math.floor(random() * load.burst)
      const same = load.conversations === 1 ? sent : -1
      for (let i = 0; i < burst; i++, sent++) rig.send(requestOf(random, load, same))
      rig.run(load.pauseMs * (0.5 + random()))
      if (load.restarts === true && random() < 0.004) rig.restart()
      if (load.restarts === true && random() < 0.01) rig.reset()
      assert.equal(rig.worker.degraded, null, `after ${sent} requests`)
      for (const cause of rig.causes) assert.ok(expected.includes(cause), `${cause} after ${sent} requests`)
    }
    rig.run(10_000)
    assert.deepEqual(
      rig.log.filter(({ fields }) => fields['cause'] !== 'details_off'),
      [],
    )
    assert.equal(rig.worker.degraded, null)
    const { requests: answered, verified } = rig.worker.agreement
    assert.ok(answered > count * 0.5, `${answered} answered`)
    assert.ok(verified > answered * 0.1, `${verified} verified`)
  })
}

/** A turn of some conversation: its beginning is the same each time, mostly. */
function requestOf(random: () => number, load: Load, same: number): RigRequest {
  const conversation = same >= 0 ? same : Math.floor(random() * load.conversations)
  const length = 16 + Math.floor(random() * load.blocks * 16)
  const tokens = Uint32Array.from({ length: same >= 0 ? load.blocks * 16 : length }, (_, at) =>
    at < 64 ? at : 1000 + ((conversation * 7919 + at * 31) % 30_000),
  )
  const kind = random()
  return {
    tokens,
    outputTokens: 1 + Math.floor(random() * 30),
    chat: conversation % 2 === 0,
    stream: random() < 0.5,
    ...(conversation % 5 === 1 ? { salt: `tenant ${conversation % 3}` } : {}),
    ...(conversation % 7 === 2 ? { adapter: 'sql' } : {}),
    ...(kind < 0.05 ? { choices: 3 } : {}),
    ...(load.leaves === true && kind > 0.9 ? { leavesAfterMs: random() * 100 } : {}),
  }
}
