import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { PrefixTree } from '../../src/routing/sglang/prefix-tree.ts'
import type { SglangRecord } from '../parity/sglang.ts'
import { sequenceCases } from '../parity/sglang/cases.ts'
import { nearestChoices, ownChoices } from '../parity/sglang/own-choices.ts'
import { logDigest, type LogStep } from '../parity/sglang/request-log.ts'

const fixture = new URL('../fixtures/parity/sglang.json', import.meta.url)
const record = JSON.parse(readFileSync(fixture, 'utf8')) as SglangRecord

for (const one of sequenceCases(record.seed)) {
  test(`sglang-router ${record.version} chose the same workers: ${one.title}`, () => {
    const recorded = record.cases.find(({ title }) => title === one.title)
    assert.ok(recorded !== undefined)
    assert.equal(logDigest(one.steps), recorded.logDigest, 'another log: npm run test:parity records it anew')
    assert.equal(nearestChoices(one, Array.from(recorded.chosen).map(Number)).join(''), recorded.chosen)
  })
}

function unitsOf(text: string): Uint32Array {
  return Uint32Array.from(Array.from(text).flatMap((character) => [character.codePointAt(0) ?? 0, 0]))
}

/** Owner and length of the longest match. */
function matchOf(tree: PrefixTree, text: string): [number | null, number] {
  return [tree.match(unitsOf(text)), tree.matchedUnits]
}

test('a run belongs to the worker that was sent it first, also after it was split', () => {
  const tree = new PrefixTree()
  tree.insert(unitsOf('system question'), 1)
  tree.insert(unitsOf('system answer'), 2)
  assert.deepEqual(matchOf(tree, 'system prompt'), [1, 7])
  assert.deepEqual(matchOf(tree, 'system answer and more'), [2, 13])
  assert.deepEqual(matchOf(tree, 'sys'), [1, 3])
  assert.deepEqual(matchOf(tree, 'other'), [null, 0])
})

test('a worker counts a run once, however often it was sent it', () => {
  const tree = new PrefixTree()
  for (let i = 0; i < 3; i++) tree.insert(unitsOf('abcdef'), 1)
  tree.insert(unitsOf('abcxyz'), 1)
  tree.insert(unitsOf('abcdef'), 2)
  assert.deepEqual([tree.unitsOf(1), tree.unitsOf(2)], [9, 6])
})

test('what was used longest ago goes first, from its end, and only from the worker that has too much', () => {
  const tree = new PrefixTree()
  tree.insert(unitsOf('aaaa1111'), 1)
  tree.insert(unitsOf('aaaa2222'), 1)
  tree.insert(unitsOf('bbbb'), 1)
  tree.insert(unitsOf('aaaa1111'), 2)
  tree.evict(12)
  assert.deepEqual([tree.unitsOf(1), tree.unitsOf(2)], [12, 8])
  assert.deepEqual(matchOf(tree, 'aaaa1111'), [2, 8], 'the other worker keeps it')
  assert.deepEqual(matchOf(tree, 'aaaa2222'), [1, 8])
  tree.evict(4)
  assert.deepEqual(matchOf(tree, 'bbbb'), [1, 4], 'the last one that was sent')
  assert.deepEqual(matchOf(tree, 'aaaa2222'), [2, 4])
})

test('an eviction in small pieces, amid new prompts, leaves nobody with too much and takes nothing that was just used', () => {
  const tree = new PrefixTree()
  for (let i = 0; i < 300; i++) tree.insert(unitsOf(`prompt ${i} of many`), i % 3)
  tree.beginEviction(200)
  for (let i = 300; i < 900; i++) {
    tree.evictSome(5)
    if (i < 320) tree.insert(unitsOf(`prompt ${i - 290} of many`), (i - 290) % 3)
  }
  for (const owner of [0, 1, 2]) assert.ok(tree.unitsOf(owner) <= 200 && tree.unitsOf(owner) > 150)
  for (let i = 20; i < 29; i++) assert.equal(matchOf(tree, `prompt ${i} of many`)[1], 17)
})

test('a worker that is removed leaves no trace', () => {
  const tree = new PrefixTree()
  tree.insert(unitsOf('abc'), 1)
  tree.insert(unitsOf('abd'), 2)
  tree.remove(1)
  assert.deepEqual(matchOf(tree, 'abc'), [2, 2])
  tree.remove(2)
  assert.deepEqual(matchOf(tree, 'abd'), [null, 0])
  assert.deepEqual([...tree.owners()], [])
})

/** Requests that stay in flight. */
function held(prompts: readonly string[]): LogStep[] {
  return prompts.map((prompt, index) => ({ kind: 'send', name: `r${index}`, prompt }))
}

test('sglang goes by the match until one worker has more than 64 requests more and half as many again as the idlest', () => {
  const chosen = ownChoices('sglang', 3, held(Array.from({ length: 70 }, () => 'the same prompt for everybody')))
  assert.deepEqual(
    chosen.slice(0, 65),
    Array.from({ length: 65 }, () => 0),
  )
  assert.deepEqual(chosen.slice(65), [1, 2, 0, 1, 2])
})

test('sglang needs a match of more than three tenths of the prompt', () => {
  assert.deepEqual(ownChoices('sglang', 2, held(['abcdefghij', 'abc0123456'])), [0, 1])
  assert.deepEqual(ownChoices('sglang', 2, held(['abcdefghij', 'abcd012345'])), [0, 0])
})

test('sglang sends what was not tokenized to the worker with the fewest requests', () => {
  assert.deepEqual(ownChoices('sglang', 3, held(['', '', '', ''])), [0, 1, 2, 0])
})

test('sglang-cache-aware follows a match only beyond its cacheThreshold', () => {
  const withThreshold = (cacheThreshold: number) => ({
    picker: { type: 'sglang-cache-aware', parameters: { cacheThreshold } },
  })
  const prompts = held(['abcdefghij', 'abcdefg012'])
  assert.deepEqual(ownChoices(withThreshold(0.6), 2, prompts), [0, 0])
  assert.deepEqual(ownChoices(withThreshold(0.7), 2, prompts), [0, 1])
})

test('sglang-power-of-two compares requests where an engine does not tell its tokens', () => {
  const choice = { picker: { type: 'sglang-power-of-two' } }
  const random = (): number => 0
  assert.deepEqual(ownChoices(choice, 2, held(['a', 'b', 'c']), { random, heldTokens: [500, 100] }), [1, 1, 1])
  assert.deepEqual(ownChoices(choice, 2, held(['a', 'b', 'c']), { random }), [0, 1, 0])
})
