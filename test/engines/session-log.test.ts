import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sessionLog, type SessionLogOptions } from './session-log.ts'

const options: SessionLogOptions = {
  scale: 16,
  sessions: 8,
  turns: 5,
  longestPromptTokens: 4_000,
  pauseScale: 16,
  longestPauseMs: 1_000,
  longestOutputTokens: 12,
  seed: 7,
}

test('the same options make the same log, another seed another one', async () => {
  const log = await sessionLog(options)
  assert.deepEqual(await sessionLog(options), log)
  assert.notDeepEqual((await sessionLog({ ...options, seed: 8 })).sessions, log.sessions)
})

test('no session, prompt, pause or answer is longer than asked for', async () => {
  const { sessions, requests } = await sessionLog(options)
  const all = sessions.flat()
  assert.equal(sessions.length, 8)
  assert.equal(all.length, requests)
  assert.ok(sessions.every((session) => session.length >= 2 && session.length <= 5))
  assert.ok(all.every(({ prompt }) => prompt.length >= 1 && prompt.length <= 4_000))
  assert.ok(all.every(({ pauseMs }) => pauseMs >= 0 && pauseMs <= 1_000))
  assert.ok(all.every(({ outputTokens }) => outputTokens >= 1 && outputTokens <= 12))
})

test('what prompts share as tokens is what the recording shares as blocks', async () => {
  const { sessions, promptTokens, workingSetTokens, idealHitRatio } = await sessionLog(options)
  const blockTokens = 4
  const seen = new Set<string>()
  let [blocks, hits] = [0, 0]
  for (const { prompt } of sessions.flat()) {
    let known = true
    for (let end = blockTokens; end <= prompt.length; end += blockTokens) {
      const prefix = prompt.slice(0, end).join()
      known &&= seen.has(prefix)
      seen.add(prefix)
      blocks++
      if (known) hits++
    }
  }
  assert.ok(Math.abs(hits / blocks - idealHitRatio) < 0.01, `${hits} of ${blocks}, ${idealHitRatio} told`)
  assert.ok(workingSetTokens < promptTokens / 2)
})

test('a scale that would cut blocks into parts of tokens is refused', async () => {
  await assert.rejects(sessionLog({ ...options, scale: 48 }), /blocks of 64 tokens by 48/)
})
