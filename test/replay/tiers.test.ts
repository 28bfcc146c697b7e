import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { calibrated } from '../../src/replay/calibration.ts'
import { runJob, type ReplayJob } from '../../src/replay/job.ts'
import { engineOf } from '../../src/replay/calibration.ts'
import { oraclePolicy, replay } from '../../src/replay/replay.ts'
import type { ReplayResult } from '../../src/replay/summary.ts'
import { Link, Tiers, type TierOptions } from '../../src/replay/tiers.ts'
import { readTrace } from '../../src/replay/traces/read.ts'

const path = fileURLToPath(new URL('../fixtures/traces/agentic_sessions.jsonl', import.meta.url))
const trace = await readTrace(path, { mostSessions: 60 })
const calibration = calibrated('agentic', { sharedBytesPerSecond: 20e9 })
const capacityBlocks = 8_000
const load = { users: 20, thinkCapMs: 20_000, durationMs: 150_000, warmUpMs: 60_000, mostTokens: 500_000 }

function play(tiers?: TierOptions, more: Partial<ReplayJob> = {}): Promise<ReplayResult> {
  const job = { policy: 'kv-aware', workers: 4, seed: 1, calibration, load, capacityBlocks, ...more }
  return runJob(tiers === undefined ? job : { ...job, tiers }, { trace })
}

test('each further tier finds more, and what it saves is more than what it costs', async () => {
  const alone = await play()
  const host = await play({ hostBlocks: 12_000 })
  const disk = await play({ hostBlocks: 12_000, diskBlocks: 60_000 })
  const shared = await play({ sharedBlocks: 200_000 })
  assert.ok(host.hitRatio > alone.hitRatio + 0.01, `${host.hitRatio}, ${alone.hitRatio}`)
  assert.ok(disk.hitRatio > host.hitRatio + 0.01, `${disk.hitRatio}, ${host.hitRatio}`)
  assert.ok(shared.hitRatio > disk.hitRatio - 0.01, `${shared.hitRatio}, ${disk.hitRatio}`)
  assert.ok(shared.ttftMs.mean < alone.ttftMs.mean)
  assert.equal(alone.moved, undefined)
  assert.ok((host.moved?.host ?? 0) > 0 && host.moved?.disk === 0 && host.moved.shared === 0)
  assert.ok((disk.moved?.disk ?? 0) > 0)
})

test('only what another node brought moves between nodes', async () => {
  const apart = (await play({ sharedBlocks: 200_000, workersPerNode: 1 })).moved
  const together = (await play({ sharedBlocks: 200_000, workersPerNode: 4 })).moved
  assert.ok(apart !== undefined && together !== undefined)
  assert.ok(apart.betweenNodes > 0 && apart.betweenNodes <= apart.shared)
  assert.equal(together.betweenNodes, 0)
  assert.ok(together.shared > 0 && together.toShared > 0)
})

test('a slower network makes what it brings later, and its queue is waited for', async () => {
  const at = async (sharedBytesPerSecond: number) =>
    (await play({ sharedBlocks: 200_000, sharedCredit: 1 }, { calibration: { ...calibration, sharedBytesPerSecond } }))
      .ttftMs.mean
  assert.ok((await at(20e9)) < (await at(1e9)))
  const link = new Link(1e6)
  assert.equal(link.takeMs(500, 0), 0.5)
  assert.equal(link.takeMs(500, 0), 1)
  assert.equal(link.takeMs(500, 10), 0.5)
})

test('equal options give equal bits with all tiers, step by step as well', async () => {
  for (const policy of ['kv-aware', oraclePolicy]) {
    const run = (stepByStep: boolean) => {
      const tiers = new Tiers(
        { hostBlocks: 2_000, diskBlocks: 5_000, sharedBlocks: 12_000, workersPerNode: 2 },
        calibration,
      )
      return replay({
        ...{ trace, load },
        policy,
        workers: 4,
        seed: 3,
        engine: engineOf(calibration, capacityBlocks),
        tiers,
        stepByStep,
      })
    }
    assert.deepEqual(await run(true), await run(false))
  }
})

test('the router knows what the tiers hold', async () => {
  const { agreement, hitRatio } = await play({ hostBlocks: 12_000, diskBlocks: 60_000 })
  assert.ok(hitRatio > 0.1)
  assert.ok(agreement > 0.9, String(agreement))
})
