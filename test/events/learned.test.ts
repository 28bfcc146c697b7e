import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readLearned, type LearnedOfEngine } from '../../src/events/learned.ts'

const learned: LearnedOfEngine = {
  blockSize: 16,
  groups: [0],
  otherGroups: [1],
  sizingGroup: 0,
  chunkTokens: 256,
  sharedTokens: null,
  engineTiers: [1],
  chunkTiers: [],
}

test('what was learned of an engine comes back from JSON, and what is not that is refused', () => {
  assert.deepEqual(readLearned(JSON.parse(JSON.stringify(learned))), learned)
  for (const [name, value] of [
    ['blockSize', '16'],
    ['blockSize', -1],
    ['groups', [0.5]],
    ['groups', null],
    ['chunkTiers', 'none'],
    ['sharedTokens', undefined],
  ] as const)
    assert.equal(readLearned({ ...learned, [name]: value }), null, name)
  for (const value of [null, undefined, 1, 'x', []]) assert.equal(readLearned(value), null)
})
