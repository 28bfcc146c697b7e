import assert from 'node:assert/strict'
import { test } from 'node:test'
import { replay, type ReplayRow } from '../../src/replay/replay.ts'
import type { Trace } from '../../src/replay/traces/trace.ts'

const workers = 8
const quietFromMs = 20_000

/** Requests for one prompt and a word of their own behind it, more than one worker can answer; then one a second. */
function hotPrefix(): Trace {
  const rush = Array.from({ length: 400 }, (_, index) => index * 10)
  const quiet = Array.from({ length: 40 }, (_, index) => quietFromMs + index * 1000)
  const sessions = [...rush, ...quiet].map((startMs, index) => ({
    ...{ id: `c${index}`, startMs, commonBlocks: 0 },
    requests: [
      { thinkMs: 0, recordedMs: startMs, promptTokens: 4097, outputTokens: 40, blocks: Uint32Array.of(0, 4096 / 16) },
    ],
  }))
  return { name: 'hot', format: 'chat', blockTokens: 16, sessions }
}

const busyWorkers = (rows: readonly ReplayRow[]): number => new Set(rows.map(({ worker }) => worker)).size

test('a prompt that draws more than one worker can serve is spread over several, and goes to one again when it is quiet', async () => {
  const { rows } = await replay({
    trace: hotPrefix(),
    ...{ workers, seed: 1, policy: 'kv-aware', engine: { maxRunningRequests: 16 } },
  })
  const rush = rows.filter(({ sentMs }) => sentMs < quietFromMs)
  const quiet = rows.filter(({ sentMs }) => sentMs >= quietFromMs)
  assert.equal(rush.length, 400)
  assert.ok(busyWorkers(rush) >= 4, `${busyWorkers(rush)} workers had the rush`)
  // One worker alone takes 16 at a time, and some 0.5 s for each.
  const lastMs = Math.max(...rush.map(({ sentMs, ttftMs }) => sentMs + ttftMs))
  assert.ok(lastMs < 6000, `the rush had its last first token after ${lastMs} ms`)
  assert.equal(quiet.length, 40)
  assert.equal(busyWorkers(quiet), 1)
  assert.ok(quiet.every(({ cachedTokens }) => cachedTokens === 4096))
})
