import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { calibrated } from '../../src/replay/calibration.ts'
import { runJob } from '../../src/replay/job.ts'
import { readTrace } from '../../src/replay/traces/read.ts'
import { sharedRuns } from '../../src/replay/traces/trace.ts'
import { prose, startFleet } from '../support/fleet.ts'

function folderFor(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'warmroute-decisions-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

test('what was routed can be played again under another policy, from a log without a word of it', async (t) => {
  const folder = folderFor(t)
  const path = join(folder, 'decisions.jsonl')
  const fleet = await startFleet({ workers: 2, config: { decisions: { log: path } } })
  const story = prose('a story that nobody must find', 200)
  for (const question of ['one', 'two', 'three']) {
    const answer = await fleet.chat(`${story} ${question}`)
    assert.equal(answer.status, 200)
    await answer.text()
  }
  await fleet.stop()
  const text = readFileSync(path, 'utf8')
  assert.ok(!text.includes('story') && !text.includes('nobody'))
  const trace = await readTrace(path)
  assert.deepEqual([trace.format, trace.sessions.length, trace.blockTokens], ['decisions', 3, 16])
  const [first, second] = trace.sessions.map(({ requests }) => requests[0])
  assert.ok(first !== undefined && second !== undefined)
  assert.equal(first.outputTokens, 4)
  const blocks = Math.floor(first.promptTokens / 16)
  assert.ok(blocks > 20 && sharedRuns(first.blocks, second.blocks) >= blocks - 2, 'they begin alike')
  const calibration = { ...calibrated('standard'), blockSize: 16 }
  const { hitRatio } = await runJob(
    { policy: 'kv-aware', workers: 2, seed: 1, calibration, capacityBlocks: 1000 },
    { trace },
  )
  assert.ok(hitRatio > 0.5)
})

test('a full file is put aside, and only so many are kept', async (t) => {
  const folder = folderFor(t)
  const log = join(folder, 'decisions.jsonl')
  const fleet = await startFleet({ workers: 1, config: { decisions: { log, logBytes: 1024, logFiles: 2 } } })
  for (let index = 0; index < 12; index++) {
    const answer = await fleet.chat(prose(`request ${index}`, 60))
    await answer.text()
  }
  await fleet.stop()
  assert.deepEqual(readdirSync(folder).sort(), ['decisions.jsonl', 'decisions.jsonl.1', 'decisions.jsonl.2'])
  const { sessions } = await readTrace(`${log}.1`)
  assert.ok(sessions.length >= 1)
})

test('a log that cannot be written costs lines, told once, and no request', async (t) => {
  const log = join(folderFor(t), 'no', 'such', 'folder.jsonl')
  const fleet = await startFleet({ workers: 1, config: { decisions: { log } } })
  t.after(() => fleet.stop())
  for (let index = 0; index < 3; index++) assert.equal((await fleet.chat('hello')).status, 200)
  assert.equal(fleet.log.filter(({ message }) => message.includes('decision log')).length, 1)
  assert.ok((await fleet.metric('decision_log_dropped_total')) >= 2)
})
